/**
 * Transfers: when whole states are pulled, and whether they may be given. What travels, and how, is told in state-transfer.ts.
 *
 * A transfer is begun by whoever is behind by more than frames can bring (repairs.ts), and at intervals with a random member, to find
 * what no frame told of.
 */
import type { HybridClock } from '../../crdts/stamp.js';
import { DecodeError, PeerError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Member } from './members.js';
import { giveState, type PullCounts, pullState } from './state-transfer.js';

/** How far a transfer is that is under way. */
export interface TransferProgress extends Readonly<PullCounts> {
  /** Who gives. */
  readonly peer: PeerId;
  /** When it began, by this node's clock. */
  readonly startedAtMs: number;
}

export interface TransfersOptions {
  readonly mesh: Mesh;
  readonly store: Store;
  readonly replica: Replica;
  readonly clock: HybridClock;
  readonly timers: Timers;
  readonly random: () => number;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  /** Time between comparisons of all digests with a random member. */
  readonly antiEntropyMs: number;
  readonly stopped: AbortSignal;
  /** Members that can be asked. */
  readonly present: () => readonly Member[];
  /** A transfer is complete and merged: this much is applied now. */
  readonly onMarks: (marks: readonly AppliedMark[]) => void;
  /** A peer sent something that can't be read. */
  readonly onRefused: (peer: PeerId, error: DecodeError) => void;
}

/** Pause after a state transfer that broke off. */
const PULL_AGAIN_MS = 1_000;

export class Transfers {
  readonly #options: TransfersOptions;
  /** Counts the restarts: what was asked for before one must not be taken in after it. */
  #era = 0;
  #pulling: { readonly peer: PeerId; readonly startedAtMs: number; readonly counts: PullCounts } | null =
    null;
  #nextPullMs = 0;
  #nextCompareMs = 0;
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
    const { replica, store } = this.#options;
    const era = this.#era;
    const check = (): void => {
      if (era === this.#era && replica.available) return;
      throw new PeerError("this node's store is unavailable, or has lost data meanwhile: ask again later");
    };
    check();
    for await (const chunk of giveState(store, () => replica.applied.values(), body)) {
      check();
      yield chunk;
    }
    check();
  }

  /** Pulls a peer's state, unless a transfer is under way or one has just failed. Never rejects. */
  async pull(peer: PeerId): Promise<void> {
    const { mesh, store, replica, clock, timers, logger, maxValueBytes, stopped } = this.#options;
    if (this.#pulling !== null || stopped.aborted || timers.now() < this.#nextPullMs) return;
    const counts: PullCounts = { keys: 0, keysTotal: 0, bytes: 0 };
    this.#pulling = { peer, startedAtMs: timers.now(), counts };
    const era = this.#era;
    try {
      const outcome = await pullState({
        mesh,
        peer,
        store,
        counts,
        maxValueBytes,
        isAhead: (stamp) => clock.isAhead(stamp),
        // What was merged before the store lost it would be missing under the marks.
        merge: (item) =>
          era === this.#era
            ? replica.merge(item)
            : item.done?.(new PeerError('the store has lost what was transferred before')),
        signal: stopped,
      });
      this.completed += 1;
      this.#options.onMarks(outcome.marks);
      const { slots, keys, bytes } = outcome;
      if (slots > 0) logger.info({ peer, slots, keys, bytes }, 'merged the state of a peer');
    } catch (error) {
      this.#nextPullMs = timers.now() + PULL_AGAIN_MS;
      if (error instanceof DecodeError) this.#options.onRefused(peer, error);
      else logger.debug({ peer, err: error as Error }, 'a state transfer broke off');
    } finally {
      this.#pulling = null;
    }
  }

  /** Compares all digests with a random member, if it is time to. */
  tick(): void {
    const { timers, antiEntropyMs, random, present } = this.#options;
    if (timers.now() < this.#nextCompareMs) return;
    this.#nextCompareMs = timers.now() + antiEntropyMs * (0.75 + random() / 2);
    const members = present();
    const chosen = members[Math.floor(random() * members.length)];
    if (chosen !== undefined) void this.pull(chosen.peerId);
  }
}
