/**
 * Transfers: when whole states are pulled, and whether they may be given. What travels, and how, is told in state-transfer.ts.
 *
 * A transfer is begun by whoever is behind by more than frames can bring (repairs.ts), and at intervals with a random member, to find
 * what no frame told of.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock } from '../../crdts/stamp.js';
import { DecodeError, PeerError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { Frame } from '../replica/frame.js';
import type { RemoteItem } from '../replica/remote-batch.js';
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Member } from './members.js';
import { BIG_SET_MEMBERS } from './set-scan.js';
import type { Siblings } from './siblings.js';
import { coversFloor } from './stability.js';
import { giveState } from './state-giver.js';
import type { StateHead } from './state-messages.js';
import { missingSince, type PullCounts, pullState } from './state-transfer.js';
import { TouchedKeys } from './touched-keys.js';

/** How far a transfer is that is under way. */
export interface TransferProgress extends Readonly<PullCounts> {
  /** Who gives. */
  readonly peer: PeerId;
  /** When it began, by this node's clock. */
  readonly startedAtMs: number;
}

export interface TransfersOptions {
  readonly mesh: Pick<Mesh, 'request'>;
  readonly store: Store;
  readonly replica: Pick<Replica, 'id' | 'available' | 'applied' | 'merge'>;
  readonly clock: HybridClock;
  readonly timers: Timers;
  readonly random: () => number;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  /** Time between comparisons of all digests with a random member. */
  readonly antiEntropyMs: number;
  /** Sets of at least so many members are compared by their members' buckets. Default: 1,024. */
  readonly bigSetMembers?: number;
  /** What all members had applied when something was last forgotten here: replica → number. */
  readonly floor: () => ReadonlyMap<ReplicaId, number>;
  /** Other nodes on this node's store; with those nothing is transferred. */
  readonly siblings: Pick<Siblings, 'has' | 'leads' | 'makes'>;
  /** Reads what other nodes on the store have done to it, if there are any. */
  readonly refresh: () => Promise<void>;
  /** What is here is too old to be merged with what others have: they have forgotten what was deleted of it. */
  readonly onOutdated: (peer: PeerId) => void;
  readonly stopped: AbortSignal;
  /** Members that can be asked. */
  readonly present: () => readonly Pick<Member, 'peerId'>[];
  /** All that differed is merged: this much counts as applied now. Its commit is under way. */
  readonly onMarks: (marks: readonly AppliedMark[]) => void;
  /** A peer sent something that can't be read. */
  readonly onRefused: (peer: PeerId, error: DecodeError) => void;
}

/** Pause before a peer is asked again whose transfer failed; doubled each time in a row, so often at most. */
const PULL_AGAIN_MS = 1_000;
const MAX_DOUBLINGS = 4;

export class Transfers {
  readonly #options: TransfersOptions;
  /** Counts the restarts: what was asked for before one must not be taken in after it. */
  #era = 0;
  #pulling: { readonly peer: PeerId; readonly startedAtMs: number; readonly counts: PullCounts } | null =
    null;
  readonly #touched = new TouchedKeys();
  /** Peers that are not asked before a time, and how often in a row their transfers failed. Others may be asked meanwhile. */
  readonly #pauses = new Map<PeerId, { readonly untilMs: number; readonly failures: number }>();
  #nextCompareMs = 0;
  /** Another node on the store has applied something since the transfer began. */
  #disturbed = false;
  /** Transfers that were completed. */
  completed = 0;

  constructor(options: TransfersOptions) {
    this.#options = options;
    this.#nextCompareMs = options.timers.now() + options.antiEntropyMs * (0.5 + options.random());
  }

  /** The transfer that is under way; null = none. */
  get progress(): TransferProgress | null {
    if (this.#pulling === null) return null;
    const { peer, startedAtMs, counts } = this.#pulling;
    return { peer, startedAtMs, ...counts };
  }

  /** The store was away: what is under way must not be taken for what it holds now. */
  restart(): void {
    this.#era += 1;
  }

  /** Gives states for as long as the marks that were given first are true of what is stored. */
  async *give(body: Uint8Array): AsyncGenerator<Uint8Array> {
    const { replica, store, bigSetMembers = BIG_SET_MEMBERS } = this.#options;
    // Another node on the store may have forgotten something.
    await this.#options.refresh();
    const era = this.#era;
    const check = (): void => {
      if (era === this.#era && replica.available) return;
      throw new PeerError("this node's store is unavailable, or has lost data meanwhile: ask again later");
    };
    check();
    // Another epoch, or other data under the same: what was told of them doesn't hold any more.
    const token = `${replica.id} ${era}`;
    const giver = {
      store,
      marks: () => replica.applied.values(),
      token,
      bigSetMembers,
      floor: this.#options.floor(),
    };
    for await (const chunk of giveState(giver, body)) {
      check();
      yield chunk;
    }
    check();
  }

  /** Another node on the store has applied this: a transfer that is under way doesn't know of which keys. */
  disturbed(news: readonly AppliedMark[]): void {
    if (news.some(({ replica }) => !this.#options.siblings.makes(replica))) this.#disturbed = true;
  }

  /** These frames are handed to the replica now. */
  handed(frames: readonly Frame[]): void {
    this.#touched.note(frames);
  }

  /**
   * Pulls a peer's state, unless a transfer is under way or this peer's last one has just failed. Never rejects. `complete`: all that the
   * peer has applied counts as applied here at the end, or else only what differs is merged (state-transfer.ts).
   */
  async pull(peer: PeerId, complete: boolean): Promise<void> {
    const { mesh, store, replica, clock, timers, logger, maxValueBytes, bigSetMembers, stopped, onMarks } =
      this.#options;
    const { siblings } = this.#options;
    if (this.#pulling !== null || stopped.aborted || this.#isPaused(peer) || siblings.has(peer)) return;
    if (complete && !siblings.leads) return;
    const counts: PullCounts = { keys: 0, keysTotal: 0, bytes: 0 };
    this.#pulling = { peer, startedAtMs: timers.now(), counts };
    const era = this.#era;
    this.#disturbed = false;
    // What was merged before the store lost it would be missing under the marks.
    const merge = (item: RemoteItem): void =>
      era === this.#era
        ? replica.merge(item)
        : item.done?.(new PeerError('the store has lost what was transferred before'));
    try {
      await this.#options.refresh();
      const { slots, keys, bytes } = await pullState({
        mesh,
        peer,
        store,
        counts,
        maxValueBytes,
        ...(bigSetMembers === undefined ? {} : { bigSetMembers }),
        touched: this.#touched,
        since: complete ? (marks) => missingSince(marks, replica.applied) : null,
        checkFloor: (head) => this.#checkFloor(peer, head, complete),
        isAhead: (stamp) => clock.isAhead(stamp),
        merge,
        raise: (item) => {
          if (this.#disturbed)
            throw new PeerError(
              'another node on the same store has applied frames meanwhile: compared again',
            );
          merge(item);
          // From here on, no frame may come in that the marks cover. Should the commit fail, all begins again from what is stored.
          if (era === this.#era) onMarks(item.marks);
        },
        signal: stopped,
      });
      this.completed += 1;
      this.#pauses.delete(peer);
      if (slots > 0) logger.info({ peer, slots, keys, bytes }, 'merged the state of a peer');
    } catch (error) {
      const failures = (this.#pauses.get(peer)?.failures ?? 0) + 1;
      const pauseMs = PULL_AGAIN_MS * 2 ** Math.min(failures - 1, MAX_DOUBLINGS);
      this.#pauses.set(peer, { untilMs: timers.now() + pauseMs, failures });
      if (error instanceof DecodeError) this.#options.onRefused(peer, error);
      else logger.debug({ peer, err: error as Error }, 'a state transfer broke off');
    } finally {
      this.#pulling = null;
    }
  }

  /**
   * What one side has forgotten, the other must have seen deleted; merged with a state from before that, it would come back to life.
   * Throws PeerError when it may not have.
   */
  #checkFloor(peer: PeerId, head: StateHead, complete: boolean): void {
    const { replica, floor, onOutdated } = this.#options;
    const theirs = new Map(head.marks.map((mark) => [mark.replica, mark]));
    if (!coversFloor(theirs, floor()))
      throw new PeerError(`${peer} is behind what was forgotten here: it must catch up first`);
    // What this node has from before it had applied anything came while the others counted it, so they have forgotten nothing since.
    const fresh = [...replica.applied.keys()].every((id) => id === replica.id);
    if (fresh || coversFloor(replica.applied, head.floor)) return;
    if (complete) onOutdated(peer);
    throw new PeerError(`this node is behind what ${peer} has forgotten: it must catch up first`);
  }

  #isPaused(peer: PeerId): boolean {
    return this.#options.timers.now() < (this.#pauses.get(peer)?.untilMs ?? 0);
  }

  /** Compares all digests with a random member, if it is time to. */
  tick(): void {
    const { timers, antiEntropyMs, random, present, siblings } = this.#options;
    if (timers.now() < this.#nextCompareMs || !siblings.leads) return;
    this.#nextCompareMs = timers.now() + antiEntropyMs * (0.75 + random() / 2);
    const members = present().filter(({ peerId }) => !this.#isPaused(peerId) && !siblings.has(peerId));
    const chosen = members[Math.floor(random() * members.length)];
    if (chosen !== undefined) void this.pull(chosen.peerId, false);
  }
}
