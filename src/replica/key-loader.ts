/** Loads what a batch needs of its keys: from the cache where it is known, and the rest in one batched read. */
import type { ByteString } from '../../crdts/bytes.js';
import { UNLOADED } from '../../crdts/register.js';
import type { LoadRequest, Store } from '../store/store.js';
import type { KeyCache } from './key-cache.js';
import { addEntries, decodeRecord, type KeyRecord } from './key-record.js';

/** What a batch needs of one key. */
export interface Want {
  value: boolean;
  whole: boolean;
  members: Set<ByteString> | null;
}

export type Wants = Map<ByteString, Want>;

/** Adds to what is wanted of a key. */
export function want(
  wants: Wants,
  key: ByteString,
  value: boolean,
  members: Iterable<ByteString> | 'all' | undefined,
): void {
  let wanted = wants.get(key);
  if (wanted === undefined) {
    wanted = { value: false, whole: false, members: null };
    wants.set(key, wanted);
  }
  if (value) wanted.value = true;
  if (members === 'all') wanted.whole = true;
  else if (members !== undefined) {
    wanted.members ??= new Set();
    for (const member of members) wanted.members.add(member);
  }
}

/** What of a want a record doesn't hold; null = nothing. */
function missing(record: KeyRecord | undefined, wanted: Want): Omit<LoadRequest, 'key'> | null {
  if (record === undefined) {
    const elements = wanted.whole ? 'all' : wanted.members === null ? undefined : [...wanted.members];
    return { value: wanted.value, ...(elements === undefined ? {} : { elements }) };
  }
  const { string, set } = record.state;
  const value =
    wanted.value && string !== null && string.register.value === UNLOADED && !record.nativeMissing;
  if (set === null || set.whole) return value ? { value } : null;
  if (wanted.whole) return { value, elements: 'all' };
  const elements: ByteString[] = [];
  for (const member of wanted.members ?? []) if (!set.entries.has(member)) elements.push(member);
  return value || elements.length > 0 ? { value, elements } : null;
}

/** Brings every wanted key's record, complete as wanted, into `records` (and the cache). Rejects as the store does. */
export async function loadKeys(
  store: Store,
  cache: KeyCache,
  wants: Wants,
  records: Map<ByteString, KeyRecord>,
): Promise<void> {
  const requests: LoadRequest[] = [];
  for (const [key, wanted] of wants) {
    const record = cache.get(key);
    const lacks = missing(record, wanted);
    if (lacks === null) records.set(key, record!);
    else requests.push({ key, ...lacks });
  }
  if (requests.length === 0) return;
  const loaded = await store.load(requests);
  for (const [i, request] of requests.entries()) {
    const answer = loaded[i]!;
    const { key, elements } = request;
    const asked = {
      value: request.value === true,
      whole: elements === 'all',
      members: elements === undefined || elements === 'all' ? [] : elements,
    };
    let record = cache.get(key);
    if (record === undefined || record.header !== answer.header) {
      // Not known, or another node on the same Valkey has written it.
      const whole = wants.get(key)!;
      record = decodeRecord(key, answer, asked);
      cache.set(record);
      // A record that was replaced knew some members that weren't asked for again.
      if (missing(record, whole) !== null) {
        const again = (await store.load([{ key, ...missing(record, whole)! }]))[0]!;
        complete(record, again, { ...asked, value: true, members: [...(whole.members ?? [])] });
      }
    } else {
      complete(record, answer, asked);
    }
    records.set(key, record);
  }
}

function complete(
  record: KeyRecord,
  answer: {
    value: ByteString | null;
    entries: ReadonlyMap<ByteString, ByteString>;
    header: ByteString | null;
  },
  asked: { value: boolean; whole: boolean; members: readonly ByteString[] },
): void {
  const register = record.state.string?.register;
  if (asked.value && register !== undefined && register.value === UNLOADED) {
    if (answer.value === null) record.nativeMissing = true;
    else register.value = answer.value;
  }
  addEntries(record, answer, asked);
}
