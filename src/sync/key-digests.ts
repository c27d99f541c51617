/** Key digests: what a store's headers say of its keys without a value or a member being read; and states, where that isn't enough. */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, bodyDigest, storedDigest } from '../../crdts/digest.js';
import type { KeyState } from '../../crdts/key-state.js';
import { UNLOADED } from '../../crdts/register.js';
import { addEntries, decodeRecord, type KeyRecord, readHeader } from '../replica/key-record.js';
import type { LoadRequest, Store } from '../store/store.js';

/** Bytes of headers that are read at once, about; while they are looked at, as much again is read ahead. */
const HEADER_BYTES = 256 * 1024;
/** Slots that are read at once, at most. */
const SLOTS_AT_ONCE = 2048;

/** One digest over all slots. */
export function totalDigest(digests: ReadonlyMap<number, number>): number {
  let total = 0;
  for (const digest of digests.values()) total = addDigests(total, digest);
  return total;
}

/** The digest of a key's live data (crdts/digest.ts); 0 = dead. */
export function digestOf({ key, state, membersDigest }: KeyRecord): number {
  return addDigests(bodyDigest(key, state), state.set === null ? 0 : membersDigest);
}

/**
 * What a transfer compares of a key. `whole`: a digest of its header, which says all that is known of the key, deletions too: of the
 * same frames every member makes the same header, since its encoding is canonical. Else the digest of its live data.
 */
export function comparedDigest(key: ByteString, header: ByteString, whole: boolean): number {
  return whole ? storedDigest(key, header) : digestOf(readHeader(key, header));
}

/** Goes through the headers of some slots, in the given order, reading ahead. */
export async function* headersOf(
  store: Store,
  slots: readonly number[],
): AsyncGenerator<[slot: number, headers: [ByteString, ByteString][]]> {
  const read = (from: number): Promise<[ByteString, ByteString][][]> => {
    const lists = store.headers(slots.slice(from, from + SLOTS_AT_ONCE), HEADER_BYTES);
    // Who breaks off doesn't wait for it.
    lists.catch(() => {});
    return lists;
  };
  let ahead = read(0);
  for (let at = 0; at < slots.length; ) {
    const lists = await ahead;
    const first = at;
    at += lists.length;
    if (at < slots.length) ahead = read(at);
    for (const [i, headers] of lists.entries()) yield [slots[first + i]!, headers];
  }
}

/** Reads the whole state of some keys from a store. Keys without a header are left out. */
export async function readStates(
  store: Store,
  keys: readonly ByteString[],
): Promise<[ByteString, KeyState][]> {
  const loaded = await store.load(keys.map((key) => ({ key, value: true, elements: 'all' as const })));
  const states: [ByteString, KeyState][] = [];
  for (const [i, key] of keys.entries()) {
    const record = decodeRecord(key, loaded[i]!, { value: true, whole: true, members: [] });
    if (record.header === null) continue;
    states.push([key, record.state]);
  }
  return states;
}

/** The same for keys whose headers are known: reads only what those leave out, all of it where a header has changed meanwhile. */
export async function completeStates(
  store: Store,
  records: readonly KeyRecord[],
): Promise<[ByteString, KeyState][]> {
  const states: [ByteString, KeyState][] = [];
  const requests: LoadRequest[] = [];
  const lacking: KeyRecord[] = [];
  for (const record of records) {
    const { key, state } = record;
    const value = state.string?.register.value === UNLOADED;
    const members = state.set !== null && !state.set.whole;
    if (value || members) {
      requests.push({ key, value, ...(members ? { elements: 'all' as const } : {}) });
      lacking.push(record);
    } else states.push([key, state]);
  }
  if (requests.length === 0) return states;
  const loaded = await store.load(requests);
  const changed: ByteString[] = [];
  for (const [i, record] of lacking.entries()) {
    const { key, state, header } = record;
    const answer = loaded[i]!;
    if (answer.header !== header) {
      changed.push(key);
      continue;
    }
    if (requests[i]!.value === true && answer.value !== null) state.string!.register.value = answer.value;
    addEntries(record, answer, { whole: requests[i]!.elements === 'all', members: [] });
    states.push([key, state]);
  }
  if (changed.length > 0) states.push(...(await readStates(store, changed)));
  return states;
}
