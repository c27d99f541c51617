/**
 * State transfer: brings a member up to another's state, whatever it has missed: new members, trimmed logs, lost data.
 *
 * Compared top-down, in a conversation of three requests (state-messages.ts): the digests of slots, where those of their groups differ; then,
 * of the slots that differ, a digest of each key the asker has, and the states of those keys come that differ; then, of big sets, only the
 * members that differ. Whatever has come is merged at once, so a transfer that broke off goes on where it stopped.
 *
 * Invariant: the asker's marks are raised to the giver's, as they were before it read anything, only when all that differs has been
 * merged. Raised earlier, a transfer that breaks off would leave holes that nothing would ever fill.
 *
 * Equal digests don't mean equal knowledge: digests say nothing of what was removed. Who raises its marks over frames that it hasn't had
 * must know what they removed, or a third member that is behind could bring it back. So a transfer is either a *comparison*,
 * which merges what differs and raises nothing; or *complete*: it compares headers in place of live data. They tell all that is known of a
 * key, deletions too, and of equal knowledge every member makes equal bytes (replica/key-record.ts).
 *
 * The asker compares with its own digests as they are once the giver's marks are known: what it merges later is noted (touched-keys.ts).
 * The group digests that it sends are older; a group that is equal to them tells that the giver's slots are what the asker's were then.
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
import { CommitWindow } from './commit-window.js';
import { comparedDigest, headersOf } from './key-digests.js';
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
  groupDigests,
  groupOf,
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
  readonly mesh: Pick<Mesh, 'request'>;
  readonly peer: PeerId;
  readonly store: Store;
  readonly maxValueBytes: number;
  readonly isAhead: (stamp: number) => boolean;
  readonly merge: (item: RemoteItem) => void;
  /**
   * Makes it a complete transfer: given the giver's marks, the stamp since which it may have applied something that this node hasn't.
   * null: it is a comparison, and raises no marks. Default: the marks are raised though only live data are compared, which is right
   * where nothing can have been removed unseen.
   */
  readonly since?: ((marks: readonly AppliedMark[]) => Stamp) | null;
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
  /** See {@link StateRequest}. */
  #since: Stamp | null = null;
  /** Keys that may come. */
  #mostKeys = 0;
  /** Big sets to ask for, by key. */
  #sets = new Map<ByteString, SetRequest>();
  #buckets = 0;
  /** Slots that were compared and slots to compare. */
  #slotsDone = 0;
  #slots = 0;
  /** Keys of this node that were compared. */
  #listed = 0;
  readonly #window = new CommitWindow();

  constructor(options: PullOptions) {
    this.#options = options;
    this.#counts = options.counts ?? { keys: 0, keysTotal: 0, bytes: 0 };
    this.#touched = options.touched ?? new TouchedKeys();
    this.#big = { bigSetMembers: options.bigSetMembers ?? BIG_SET_MEMBERS };
    this.#assembly = new SetAssembly(options.store, this.#big);
  }

  async run(): Promise<TransferOutcome> {
    const { store, peer, isAhead, since } = this.#options;
    const raises = since !== null;
    try {
      // A complete transfer needs to know all slots that the giver uses: where nothing lives, things may have been removed.
      const before = typeof since === 'function' ? null : await store.digests();
      const theirs = await this.#askDigests(before);
      const { marks } = this.#head;
      if (marks.some((mark) => isAhead(mark.stamp)))
        throw new PeerError(`${peer} has applied stamps from the future: check its clock`);
      this.#options.checkFloor?.(this.#head);
      const missing = since?.(marks) ?? MAX_STAMP;
      this.#since = missing < MAX_STAMP ? missing : null;
      let slots: number[] = [];
      let ours: ReadonlyMap<number, number> | null = null;
      for (let round = 0; ; round += 1) {
        this.#touched.watch(marks);
        // What was handed to the replica before is committed now; what comes after is noted.
        await this.#merged({ frames: [], states: [], marks: [] });
        if (round === 0) {
          ours = await store.digests();
          slots = this.#since === null ? differing(ours, theirs) : [...theirs.keys()];
        }
        this.#slots += slots.length;
        await this.#pullSlots(slots, ours);
        await this.#window.empty();
        ours = null;
        const { keys } = this.#touched;
        if (keys.size === 0 || !raises) break;
        if (round === MAX_ROUNDS) throw new PeerError('what was compared changes all the time');
        slots = [...new Set([...keys].map(keySlot))].sort((a, b) => a - b);
      }
      if (raises) await this.#merged({ frames: [], states: [], marks }, this.#options.raise);
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

  /** Asks for the digests of the giver's slots, only of groups that differ from what was here `before`. */
  async #askDigests(before: ReadonlyMap<number, number> | null): Promise<Map<number, number>> {
    const { peer } = this.#options;
    let digests: Map<number, number> | null = null;
    let begun = false;
    const groups = before && groupDigests(before);
    for await (const message of this.#ask({ kind: 'digests', groups })) {
      if (digests !== null) throw new DecodeError('a state transfer goes on after its digests');
      if (begun) digests = decodeSlotDigests(message);
      else this.#head = decodeStateHead(message);
      begun = true;
    }
    if (digests === null) throw new PeerError(`${peer} sent an empty state transfer`);
    this.#mostKeys = 2 * this.#head.keys + MORE_KEYS;
    this.#estimate();
    // What the giver holds in the other groups is what was here before. It need not be any more: that is for the caller to compare.
    const sent = new Set([...digests.keys()].map(groupOf));
    for (const [slot, digest] of before ?? []) if (!sent.has(groupOf(slot))) digests.set(slot, digest);
    return digests;
  }

  /** Compares the keys of some slots, and merges those that differ. `held`: the slots that hold anything here; null = perhaps all. */
  async #pullSlots(slots: readonly number[], held: ReadonlyMap<number, number> | null): Promise<void> {
    let some = new Map<number, KeyDigest[]>();
    let listed = 0;
    const here = headersOf(this.#options.store, held ? slots.filter((slot) => held.has(slot)) : slots);
    for (const slot of slots) {
      const headers = held === null || held.has(slot) ? ((await here.next()).value?.[1] ?? []) : [];
      // Keys that aren't listed come whether they differ or not.
      const digests = headers.slice(0, KEYS_PER_REQUEST).map(([key, header]: [ByteString, ByteString]) => ({
        hash: hash32(key),
        digest: comparedDigest(key, header, this.#since !== null),
      }));
      if (listed > 0 && listed + digests.length > KEYS_PER_REQUEST) {
        await this.#askKeys(some);
        some = new Map();
        listed = 0;
      }
      some.set(slot, digests);
      listed += digests.length;
      this.#mostKeys += headers.length;
      this.#listed += headers.length;
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
      since: this.#since,
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
      await this.#take(answer, message.length, mayCome);
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
      for (const key of await this.#take(answer, message.length, (key) => missing.has(key)))
        missing.delete(key);
    }
    if (missing.size > 0) throw new PeerError(`${peer} has left out a set`);
  }

  /** Hands over what an answer of so many bytes completes; gives the keys. */
  async #take(
    answer: StateAnswer,
    bytes: number,
    mayCome: (key: ByteString) => boolean,
  ): Promise<ByteString[]> {
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
      // A set has come in many messages.
      const size = answer.kind === 'end' ? this.#assembly.bytes : bytes;
      await this.#window.room(size);
      const merged = this.#merged({ frames: [], states, marks: [] });
      this.#window.add(
        merged.then(() => {
          this.#counts.keys += states.length;
          this.#estimate();
        }),
        size,
      );
    }
    return states.map(([key]) => key);
  }

  /** How many keys will have come: all that aren't here of a complete transfer; else as the slots that are done allow to tell. */
  #estimate(): void {
    const { keys } = this.#counts;
    const share = this.#slotsDone === 0 ? 0 : this.#slots / this.#slotsDone;
    const total =
      typeof this.#options.since === 'function' ? this.#head.keys - this.#listed : Math.round(keys * share);
    this.#counts.keysTotal = Math.max(keys, total);
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
