/**
 * State transfer: brings a member up to another's state, whatever it has missed: new members, trimmed logs, lost data.
 *
 * Compared top-down, in a conversation of three requests (state-messages.ts): the digests of all slots; then, of the slots that differ, a
 * digest of each key the asker has, and the states of those keys come that differ; then, of big sets, only the members that differ.
 * Whatever has come is merged at once, so a transfer that broke off goes on where it stopped: what was merged doesn't differ any more.
 *
 * Invariant: the asker's marks are raised to the giver's, as they were before it read anything, only when all that differs has been
 * merged. Raised earlier, a transfer that breaks off would leave holes that nothing would ever fill.
 *
 * Equal digests don't mean equal knowledge: digests say nothing of what was removed. Who raises its marks over frames that it hasn't had
 * must know what they removed, or a third member that is behind could bring it back. So a transfer is either a *comparison*,
 * which merges what differs and raises nothing; or *complete*: it takes also each key that the giver touched since the first of those frames.
 *
 * Invariant: what compared equal must still be what was compared when the marks are raised, but for changes that the marks don't cover
 * (touched-keys.ts); otherwise it is compared again.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import { MAX_STAMP, type Stamp } from '../../crdts/stamp.js';
import { DecodeError, PeerError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { RemoteItem } from '../replica/remote-batch.js';
import { keySlot } from '../store/slots.js';
import type { AppliedMark, Store } from '../store/store.js';
import { digestOf, headersOf, recordOf } from './key-digests.js';
import { hash32 } from './member-buckets.js';
import { PROTOCOLS } from './messages.js';
import { fromPieces } from './pieces.js';
import { SetAssembly } from './set-assembly.js';
import { compareSet, wasAsked } from './set-giver.js';
import { BIG_SET_MEMBERS } from './set-scan.js';
import { decodeStateAnswer, type StateAnswer } from './state-answers.js';
import {
  decodeSlotDigests,
  decodeStateHead,
  encodeStateRequest,
  type KeyDigest,
  MAX_SETS,
  type SetRequest,
  type StateHead,
  type StateRequest,
} from './state-messages.js';
import { TouchedKeys } from './touched-keys.js';

export { readStates, totalDigest } from './key-digests.js';

/** Keys whose digests go into one request: 2 MB of them. */
const KEYS_PER_REQUEST = 200_000;
/** Big sets are asked for when the request for them has grown so long, in buckets; or at the end. */
const BUCKETS_PER_REQUEST = 4096;
/** Comparisons of what changed meanwhile; after them the transfer is given up, with no marks raised. */
const MAX_ROUNDS = 5;
/** Keys beyond what the giver announced that are accepted: it may be written to meanwhile. */
const MORE_KEYS = 10_000;
const TIMEOUT_MS = 30_000;

/** What a pull has merged so far. Counted up while it runs. */
export interface PullCounts {
  keys: number;
  /** Keys that will have come at the end, as far as the slots that are done allow to tell; 0 = not known yet. */
  keysTotal: number;
  /** Bytes sent and received. */
  bytes: number;
}

export interface PullOptions {
  readonly mesh: Mesh;
  readonly peer: PeerId;
  readonly store: Store;
  readonly maxValueBytes: number;
  readonly isAhead: (stamp: number) => boolean;
  readonly merge: (item: RemoteItem) => void;
  /**
   * Given the giver's marks: the stamp since which it may have applied something that this node hasn't; keys touched since then come
   * whether they differ or not, and the marks are raised. null = only compare. Default: marks are raised, and only what differs comes.
   */
  readonly since?: (marks: readonly AppliedMark[]) => Stamp | null;
  /** Throws when the giver and this node may not merge: one of them has forgotten what the other still has. Default: they may. */
  readonly checkFloor?: (head: StateHead) => void;
  /** Merges the marks. Called at once when nothing is left to compare. Default: as {@link merge} does. */
  readonly raise?: (item: RemoteItem) => void;
  /** Told of all frames that are merged. Default: none are. */
  readonly touched?: TouchedKeys;
  /** Where to count what was merged, for those who look on. */
  readonly counts?: PullCounts;
  /** Default: {@link BIG_SET_MEMBERS}. */
  readonly bigSetMembers?: number;
  readonly signal: AbortSignal;
}

export interface TransferOutcome {
  readonly marks: readonly AppliedMark[];
  readonly slots: number;
  readonly keys: number;
  readonly bytes: number;
}

/**
 * Pulls a peer's state and merges it. Rejects when the transfer breaks off or the peer sends something else; then what was
 * merged stays (it is right, only not complete) and no mark is raised.
 */
export function pullState(options: PullOptions): Promise<TransferOutcome> {
  return new Pull(options).run();
}

class Pull {
  readonly #options: PullOptions;
  readonly #counts: PullCounts;
  readonly #touched: TouchedKeys;
  readonly #big: { readonly bigSetMembers: number };
  readonly #assembly: SetAssembly;
  #head: StateHead = { marks: [], keys: 0, token: '', floor: new Map() };
  #since: Stamp | null = null;
  /** Keys that may come. */
  #mostKeys = 0;
  /** Big sets to ask for, by key. */
  #sets = new Map<ByteString, SetRequest>();
  #buckets = 0;
  /** Slots that were compared and slots to compare. */
  #slotsDone = 0;
  #slots = 0;

  constructor(options: PullOptions) {
    this.#options = options;
    this.#counts = options.counts ?? { keys: 0, keysTotal: 0, bytes: 0 };
    this.#touched = options.touched ?? new TouchedKeys();
    this.#big = { bigSetMembers: options.bigSetMembers ?? BIG_SET_MEMBERS };
    this.#assembly = new SetAssembly(options.store, this.#big);
  }

  async run(): Promise<TransferOutcome> {
    const { store, peer, isAhead } = this.#options;
    try {
      const theirs = await this.#askDigests();
      const { marks } = this.#head;
      if (marks.some((mark) => isAhead(mark.stamp)))
        throw new PeerError(`${peer} has applied stamps from the future: check its clock`);
      this.#options.checkFloor?.(this.#head);
      this.#since = (this.#options.since ?? (() => MAX_STAMP))(marks);
      let slots: number[] = [];
      for (let round = 0; ; round += 1) {
        this.#touched.watch(marks);
        // What was handed to the replica before is committed now; what comes after is noted.
        await this.#merged({ frames: [], states: [], marks: [] });
        if (round === 0) {
          const ours = await store.digests();
          const all = this.#since !== null && this.#since < MAX_STAMP;
          slots = all ? either(ours, theirs) : differing(ours, theirs);
        }
        this.#slots += slots.length;
        await this.#pullSlots(slots);
        const { keys } = this.#touched;
        if (keys.size === 0 || this.#since === null) break;
        if (round === MAX_ROUNDS) throw new PeerError('what was compared changes all the time');
        slots = [...new Set([...keys].map(keySlot))].sort((a, b) => a - b);
      }
      if (this.#since !== null) await this.#merged({ frames: [], states: [], marks }, this.#options.raise);
      const { keys, bytes } = this.#counts;
      return { marks, slots: this.#slots, keys, bytes };
    } finally {
      this.#touched.stop();
    }
  }

  #merged(item: Omit<RemoteItem, 'done'>, merge = this.#options.merge): Promise<void> {
    return new Promise((resolve, reject) => {
      merge({ ...item, done: (error) => (error === null ? resolve() : reject(error)) });
    });
  }

  async *#ask(request: StateRequest): AsyncGenerator<Uint8Array> {
    const { mesh, peer, signal } = this.#options;
    const body = encodeStateRequest(request);
    this.#counts.bytes += body.length;
    const pieces = mesh.request(peer, PROTOCOLS.state, body, { signal, timeoutMs: TIMEOUT_MS });
    for await (const message of fromPieces(pieces)) {
      this.#counts.bytes += message.length;
      yield message;
    }
  }

  async #askDigests(): Promise<Map<number, number>> {
    const { peer } = this.#options;
    let digests: Map<number, number> | null = null;
    let begun = false;
    for await (const message of this.#ask({ kind: 'digests' })) {
      if (digests !== null) throw new DecodeError('a state transfer goes on after its digests');
      if (begun) digests = decodeSlotDigests(message);
      else this.#head = decodeStateHead(message);
      begun = true;
    }
    if (digests === null) throw new PeerError(`${peer} sent an empty state transfer`);
    this.#mostKeys = 2 * this.#head.keys + MORE_KEYS;
    return digests;
  }

  /** Compares the keys of some slots, and merges those that differ. */
  async #pullSlots(slots: readonly number[]): Promise<void> {
    let some = new Map<number, KeyDigest[]>();
    let listed = 0;
    for await (const [slot, headers] of headersOf(this.#options.store, slots)) {
      // Keys that aren't listed come whether they differ or not.
      const digests = headers.slice(0, KEYS_PER_REQUEST).map(([key, header]) => ({
        hash: hash32(key),
        digest: digestOf(recordOf(key, header)),
      }));
      if (listed > 0 && listed + digests.length > KEYS_PER_REQUEST) {
        await this.#askKeys(some);
        some = new Map();
        listed = 0;
      }
      some.set(slot, digests);
      listed += digests.length;
      this.#mostKeys += headers.length;
    }
    if (some.size > 0) await this.#askKeys(some);
    await this.#askMembers();
  }

  async #askKeys(slots: ReadonlyMap<number, KeyDigest[]>): Promise<void> {
    const { store, maxValueBytes, peer } = this.#options;
    const before = this.#slotsDone;
    let done = 0;
    let silent = 0;
    for await (const message of this.#ask({
      kind: 'keys',
      token: this.#head.token,
      since: this.#since ?? MAX_STAMP,
      slots,
    })) {
      const answer = decodeStateAnswer(message, maxValueBytes);
      const mayCome = (key: ByteString) => slots.has(keySlot(key));
      if (answer.kind === 'keys') {
        const { slotsDone, states } = answer;
        // The last one may say only that it is the last.
        if (states.length === 0 && slotsDone === done) silent += 1;
        if (slotsDone < done || slotsDone > slots.size || silent > 1)
          throw new DecodeError('a state transfer does not go on');
        done = slotsDone;
        this.#slotsDone = before + done;
      } else if (answer.kind === 'big set') {
        if (!mayCome(answer.key)) throw new DecodeError('a key comes that was not asked for');
        const request = await compareSet(store, answer.key, answer.coarse, this.#big);
        this.#sets.set(answer.key, request);
        this.#buckets += 1 + (request.coarse?.length ?? 0);
        this.#count(1);
        if (this.#buckets >= BUCKETS_PER_REQUEST || this.#sets.size >= MAX_SETS) await this.#askMembers();
        continue;
      } else if (answer.kind === 'begin' && answer.fine !== null) {
        throw new DecodeError('a part of a set comes that was not asked for');
      }
      await this.#take(answer, mayCome);
    }
    if (done < slots.size || this.#assembly.key !== null)
      throw new PeerError(`${peer} stopped in the middle of a state transfer`);
  }

  async #askMembers(): Promise<void> {
    if (this.#sets.size === 0) return;
    const { maxValueBytes, peer } = this.#options;
    const asked = this.#sets;
    this.#sets = new Map();
    this.#buckets = 0;
    const missing = new Set(asked.keys());
    const request = { kind: 'members', token: this.#head.token, sets: [...asked.values()] } as const;
    for await (const message of this.#ask(request)) {
      const answer = decodeStateAnswer(message, maxValueBytes);
      if (answer.kind === 'big set') throw new DecodeError('a set is announced where its members belong');
      if (answer.kind === 'begin' && answer.fine !== null) {
        const wanted = asked.get(answer.key);
        if (wanted?.coarse == null || !wasAsked(wanted, answer.fine))
          throw new DecodeError('a part of a set comes that was not asked for');
      }
      for (const key of await this.#take(answer, (key) => missing.has(key))) missing.delete(key);
    }
    if (missing.size > 0) throw new PeerError(`${peer} has left out a set`);
  }

  /** Merges what an answer completes; gives the keys. */
  async #take(answer: StateAnswer, mayCome: (key: ByteString) => boolean): Promise<ByteString[]> {
    let states: readonly (readonly [ByteString, KeyState])[] = [];
    if (answer.kind === 'begin') {
      this.#require([[answer.key, answer.state]], mayCome);
      this.#assembly.begin(answer);
    } else if (answer.kind === 'members') this.#assembly.add(answer);
    else if (answer.kind === 'end') states = [await this.#assembly.end()];
    else if (answer.kind === 'keys') {
      this.#require(answer.states, mayCome);
      states = answer.states;
    }
    if (states.length > 0) {
      this.#count(states.length);
      await this.#merged({ frames: [], states, marks: [] });
      const { keys } = this.#counts;
      this.#counts.keys = keys + states.length;
    }
    const share = this.#slotsDone === 0 ? 0 : this.#slots / this.#slotsDone;
    this.#counts.keysTotal = Math.max(this.#counts.keys, Math.round(this.#counts.keys * share));
    return states.map(([key]) => key);
  }

  /** Counts keys against what was announced. */
  #count(keys: number): void {
    this.#mostKeys -= keys;
    if (this.#mostKeys < 0) throw new PeerError(`${this.#options.peer} sends more keys than it announced`);
  }

  #require(
    states: readonly (readonly [ByteString, KeyState])[],
    mayCome: (key: ByteString) => boolean,
  ): void {
    for (const [key, state] of states) {
      if (!mayCome(key)) throw new DecodeError('a key comes that was not asked for');
      if (this.#options.isAhead(state.touched)) {
        throw new PeerError(
          `the state of ${this.#options.peer} holds stamps from the future: check its clock`,
        );
      }
    }
  }
}

/** The slots that either side has anything in, in ascending order. */
function either(ours: ReadonlyMap<number, number>, theirs: ReadonlyMap<number, number>): number[] {
  return [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b);
}

/** Those of them whose digests differ. */
function differing(ours: ReadonlyMap<number, number>, theirs: ReadonlyMap<number, number>): number[] {
  return either(ours, theirs).filter((slot) => (ours.get(slot) ?? 0) !== (theirs.get(slot) ?? 0));
}

/** The stamp since which a giver with these marks may have applied something that `applied` doesn't cover; the greatest if there is nothing. */
export function missingSince(
  marks: readonly AppliedMark[],
  applied: ReadonlyMap<ReplicaId, AppliedMark>,
): Stamp {
  let since = MAX_STAMP;
  for (const { replica, number } of marks) {
    const own = applied.get(replica);
    if ((own?.number ?? 0) < number) since = Math.min(since, own?.stamp ?? 0);
  }
  return since;
}
