/** State giver: answers the three requests of a state transfer (state-messages.ts), holding two batches of keys in memory at a time. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import { MAX_STAMP } from '../../crdts/stamp.js';
import { PeerError } from '../errors.js';
import { type KeyRecord, readHeader } from '../replica/key-record.js';
import type { AppliedMark, Store } from '../store/store.js';
import { comparedDigest, completeStates, digestOf, headersOf } from './key-digests.js';
import { hash32 } from './member-buckets.js';
import { giveSet } from './set-giver.js';
import { type BigSets, scanDigests } from './set-scan.js';
import { encodeStateAnswer, type StateAnswer } from './state-answers.js';
import {
  decodeStateRequest,
  encodeSlotDigests,
  encodeStateHead,
  groupDigests,
  groupOf,
  type KeyDigest,
  type StateRequest,
} from './state-messages.js';

/** Keys that are loaded at once: at least and at most, as their size allows; and bytes per message, about. */
const LEAST_KEYS = 16;
const MOST_KEYS = 1024;
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
    const digests = await giver.store.digests();
    const { groups } = request;
    if (groups !== null) {
      const ours = groupDigests(digests);
      for (const slot of digests.keys())
        if (ours[groupOf(slot)] === groups[groupOf(slot)]) digests.delete(slot);
    }
    yield encodeSlotDigests(digests);
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

/** States of the keys that differ from what the asker has, slot by slot; while some are sent, the next are read. */
async function* giveKeys(
  giver: Giver,
  { slots, since }: Extract<StateRequest, { kind: 'keys' }>,
): AsyncGenerator<StateAnswer> {
  const { store } = giver;
  const whole = since !== null;
  const batches = new KeyBatches(store);
  let slotsDone = 0;
  let told = 0;
  for await (const [slot, headers] of headersOf(store, [...slots.keys()])) {
    const theirs = byHash(slots.get(slot)!);
    for (const [key, header] of headers) {
      const known = theirs.size === 0 ? undefined : theirs.get(hash32(key));
      if (known?.includes(comparedDigest(key, header, whole))) continue;
      const record = readHeader(key, header);
      // What is dead and older is known to the asker, or was before it forgot it.
      if (known === undefined && record.state.touched <= (since ?? MAX_STAMP) && digestOf(record) === 0)
        continue;
      const size = record.state.set?.size ?? 0;
      if (size < giver.bigSetMembers) {
        if (batches.add(record, slotsDone)) yield* batches.turn();
        continue;
      }
      if (known === undefined) {
        const all = { key, rest: 0, coarse: null, fine: [] };
        yield* giveSet(store, all, giver, batches.slotsDone ?? slotsDone);
      } else {
        const coarse = (await scanDigests(store, key, giver)).coarse();
        yield { kind: 'big set', key, size, coarse };
      }
    }
    slotsDone += 1;
    if (slotsDone - told < SILENT_SLOTS) continue;
    told = slotsDone;
    yield* batches.flush();
    yield { kind: 'keys', slotsDone, states: [] };
  }
  yield* batches.flush();
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

/** Keys that are sent together: what is read of them, and how many slots were complete before the first of them. */
interface Batch {
  readonly states: Promise<[ByteString, KeyState][]>;
  readonly slotsDone: number;
}

/**
 * Reads keys in batches, one ahead of what is being sent. How many make a batch depends on how large the last ones were: their
 * values' size isn't known before they are read.
 */
class KeyBatches {
  readonly #store: Store;
  #most = LEAST_KEYS;
  #records: KeyRecord[] = [];
  /** Slots that were complete before the first of {@link #records}. */
  #begun = 0;
  #reading: Batch | null = null;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Slots of which everything is sent; null = all that came before. */
  get slotsDone(): number | null {
    return this.#reading?.slotsDone ?? (this.#records.length > 0 ? this.#begun : null);
  }

  /** Adds a key; says whether there are enough for a batch. */
  add(record: KeyRecord, slotsDone: number): boolean {
    if (this.#records.length === 0) this.#begun = slotsDone;
    this.#records.push(record);
    return this.#records.length >= this.#most;
  }

  /** Gives everything that is left. */
  async *flush(): AsyncGenerator<StateAnswer> {
    if (this.#records.length > 0) yield* this.turn();
    if (this.#reading !== null) yield* this.#send(this.#reading);
    this.#reading = null;
  }

  /** Begins to read what was added, and gives what was read before. */
  async *turn(): AsyncGenerator<StateAnswer> {
    const states = completeStates(this.#store, this.#records);
    // Who breaks off doesn't wait for it.
    states.catch(() => {});
    const before = this.#reading;
    this.#reading = { states, slotsDone: this.#begun };
    this.#records = [];
    if (before !== null) yield* this.#send(before);
  }

  /** Cuts states into messages of about {@link MESSAGE_BYTES}; one key is never cut. */
  async *#send({ states, slotsDone }: Batch): AsyncGenerator<StateAnswer> {
    let some: [ByteString, KeyState][] = [];
    let bytes = 0;
    let total = 0;
    for (const item of await states) {
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
