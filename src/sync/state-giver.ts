/** State giver: answers the three requests of a state transfer (state-messages.ts), holding one message in memory at a time. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import { PeerError } from '../errors.js';
import type { AppliedMark, Store } from '../store/store.js';
import { digestOf, headersOf, readStates, recordOf } from './key-digests.js';
import { hash32 } from './member-buckets.js';
import { giveSet } from './set-giver.js';
import { type BigSets, scanDigests } from './set-scan.js';
import { encodeStateAnswer, type StateAnswer } from './state-answers.js';
import {
  decodeStateRequest,
  encodeSlotDigests,
  encodeStateHead,
  type KeyDigest,
  type StateRequest,
} from './state-messages.js';

/** Keys that are loaded at once: at least and at most, as their size allows; and bytes per message, about. */
const LEAST_KEYS = 16;
const MOST_KEYS = 256;
const MESSAGE_BYTES = 256 * 1024;
/** Slots without a difference after which something is said all the same: the asker is waiting. */
const SILENT_SLOTS = 1024;

/** Who gives. */
export interface Giver extends BigSets {
  readonly store: Store;
  /** The applied marks of this moment. */
  readonly marks: () => Iterable<AppliedMark>;
  /** What all members had applied when something was last forgotten. Default: nothing was. */
  readonly floor?: ReadonlyMap<ReplicaId, number>;
  /** Names the data: another one when the store has lost some. */
  readonly token: string;
}

/** Answers one request. Throws DecodeError when it is none, and PeerError when the data that it goes on about are gone. */
export async function* giveState(giver: Giver, body: Uint8Array): AsyncGenerator<Uint8Array> {
  const request = decodeStateRequest(body);
  if (request.kind === 'digests') {
    // Before anything is read: what is read later may hold more, never less.
    const marks = [...giver.marks()];
    yield encodeStateHead({
      marks,
      keys: await giver.store.count(),
      token: giver.token,
      floor: giver.floor ?? new Map(),
    });
    yield encodeSlotDigests(await giver.store.digests());
    return;
  }
  if (request.token !== giver.token) {
    throw new PeerError("this node's data are not what the transfer began with: begin again");
  }
  if (request.kind === 'keys') {
    for await (const answer of giveKeys(giver, request)) yield encodeStateAnswer(answer);
    return;
  }
  for (const set of request.sets)
    for await (const answer of giveSet(giver.store, set, giver, 0)) yield encodeStateAnswer(answer);
}

/** States of the keys that differ from what the asker has, slot by slot. */
async function* giveKeys(
  giver: Giver,
  { slots, since }: Extract<StateRequest, { kind: 'keys' }>,
): AsyncGenerator<StateAnswer> {
  const { store } = giver;
  const batch = new KeyBatch(store);
  let slotsDone = 0;
  let told = 0;
  for await (const [slot, headers] of headersOf(store, [...slots.keys()])) {
    const theirs = byHash(slots.get(slot)!);
    for (const [key, header] of headers) {
      const record = recordOf(key, header);
      const digest = digestOf(record);
      const known = theirs.get(hash32(key));
      if (known?.includes(digest) && record.state.touched <= since) continue;
      // What is dead and older is known to the asker, or was before it forgot it.
      if (known === undefined && digest === 0 && record.state.touched <= since) continue;
      const size = record.state.set?.size ?? 0;
      if (size < giver.bigSetMembers) {
        batch.keys.push(key);
        if (batch.full) yield* batch.take(slotsDone);
      } else if (known === undefined) {
        yield* giveSet(store, { key, rest: 0, coarse: null, fine: [] }, giver, slotsDone);
      } else {
        const coarse = (await scanDigests(store, key, giver)).coarse();
        yield { kind: 'big set', key, size, coarse };
      }
    }
    slotsDone += 1;
    if (batch.keys.length > 0) told = slotsDone;
    else if (slotsDone - told >= SILENT_SLOTS) {
      told = slotsDone;
      yield { kind: 'keys', slotsDone, states: [] };
    }
  }
  yield* batch.take(slotsDone);
  yield { kind: 'keys', slotsDone, states: [] };
}

function byHash(digests: readonly KeyDigest[]): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const { hash, digest } of digests) {
    const list = found.get(hash);
    if (list === undefined) found.set(hash, [digest]);
    else list.push(digest);
  }
  return found;
}

/** Keys that are sent together. How many depends on how large the last ones were: their values' size isn't known before they are read. */
class KeyBatch {
  readonly keys: ByteString[] = [];
  readonly #store: Store;
  #most = LEAST_KEYS;

  constructor(store: Store) {
    this.#store = store;
  }

  get full(): boolean {
    return this.keys.length >= this.#most;
  }

  /** Reads the keys and cuts their states into messages of about {@link MESSAGE_BYTES}; one key is never cut. */
  async *take(slotsDone: number): AsyncGenerator<StateAnswer> {
    const states = await readStates(this.#store, this.keys.splice(0));
    let some: [ByteString, KeyState][] = [];
    let bytes = 0;
    let total = 0;
    for (const item of states) {
      const size = roughSize(item[1]);
      if (some.length > 0 && bytes + size > MESSAGE_BYTES) {
        yield { kind: 'keys', slotsDone, states: some };
        some = [];
        bytes = 0;
      }
      some.push(item);
      bytes += size;
      total += size;
    }
    if (some.length > 0) yield { kind: 'keys', slotsDone, states: some };
    this.#most = total > MESSAGE_BYTES ? LEAST_KEYS : Math.min(2 * this.#most, MOST_KEYS);
  }
}

function roughSize({ string, set, values }: KeyState): number {
  const value = string?.register.value;
  let size = 64 + (typeof value === 'string' ? value.length : 0);
  for (const member of set?.entries.keys() ?? []) size += member.length + 24;
  for (const sibling of values?.siblings.values() ?? []) size += sibling.value.bytes.length + 24;
  return size;
}
