/** Key digests: what a store's headers say of its keys without a value or a member being read; and states, where that isn't enough. */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, bodyDigest } from '../../crdts/digest.js';
import type { KeyState } from '../../crdts/key-state.js';
import { decodeRecord, type KeyRecord } from '../replica/key-record.js';
import type { Store } from '../store/store.js';

/** Slots whose headers are read at the same time. */
const SLOTS_AHEAD = 16;

/** One digest over all slots. */
export function totalDigest(digests: ReadonlyMap<number, number>): number {
  let total = 0;
  for (const digest of digests.values()) total = addDigests(total, digest);
  return total;
}

/** What a header alone says of a key: everything but the string's bytes and the set's members. */
export function recordOf(key: ByteString, header: ByteString): KeyRecord {
  const loaded = { header, value: null, entries: new Map() };
  return decodeRecord(key, loaded, { value: false, whole: false, members: [] });
}

/** The digest of a key's live data (crdts/digest.ts); 0 = dead. */
export function digestOf({ key, state, membersDigest }: KeyRecord): number {
  return addDigests(bodyDigest(key, state), state.set === null ? 0 : membersDigest);
}

/** Goes through the headers of some slots, in the given order. */
export async function* headersOf(
  store: Store,
  slots: readonly number[],
): AsyncGenerator<[slot: number, headers: [ByteString, ByteString][]]> {
  for (let at = 0; at < slots.length; at += SLOTS_AHEAD) {
    const some = slots.slice(at, at + SLOTS_AHEAD);
    const headers = await Promise.all(some.map((slot) => store.slotHeaders(slot)));
    for (const [i, slot] of some.entries()) yield [slot, headers[i]!];
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
