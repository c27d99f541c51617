/**
 * Causal delivery: which of the frames that have come may be applied now?
 *
 * Invariant: a frame is delivered only after its predecessor from the same replica, and after every dot that it
 * supersedes (its `deps`). That is why a plain version vector per set is enough. What comes early is held back, in a
 * bounded queue; what doesn't fit is dropped, and is repaired later. Pure: no IO, no clock of its own.
 *
 * Invariant: a frame from further in the future than the allowed drift is neither delivered nor dropped: it waits.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { AppliedMark } from '../store/store.js';
import type { Frame } from './frame.js';

/** What became of an offered frame. */
export type Offered = 'held' | 'known' | 'dropped';

/** Frames that are missing: `from` to `to`, both included. */
export interface Gap {
  readonly replica: ReplicaId;
  readonly from: number;
  readonly to: number;
}

export class CausalDelivery {
  readonly #marks = new Map<ReplicaId, AppliedMark>();
  readonly #held = new Map<ReplicaId, Map<number, Frame>>();
  readonly #maxBytes: number;
  readonly #isAhead: (stamp: Stamp) => boolean;
  #heldBytes = 0;

  /** @param maxBytes bound of the held-back frames; @param isAhead says whether a stamp is too far in the future */
  constructor(maxBytes: number, isAhead: (stamp: Stamp) => boolean) {
    this.#maxBytes = maxBytes;
    this.#isAhead = isAhead;
  }

  /** How far each replica has been delivered. */
  get marks(): ReadonlyMap<ReplicaId, AppliedMark> {
    return this.#marks;
  }

  /** Frames that are held back. */
  get heldCount(): number {
    let count = 0;
    for (const frames of this.#held.values()) count += frames.size;
    return count;
  }

  /** The first frame number of a replica that has neither been delivered nor is held back. */
  nextMissing(replica: ReplicaId): number {
    const frames = this.#held.get(replica);
    let number = this.#nextNumber(replica);
    while (frames?.has(number)) number += 1;
    return number;
  }

  /** The greatest frame number of a replica that has been delivered or is held back. */
  lastKnown(replica: ReplicaId): number {
    let last = this.#nextNumber(replica) - 1;
    for (const number of this.#held.get(replica)?.keys() ?? []) last = Math.max(last, number);
    return last;
  }

  /** What is held back, by replica: the least and the greatest number. */
  held(): { replica: ReplicaId; first: number; last: number }[] {
    return [...this.#held].map(([replica, frames]) => {
      let [first, last] = [Number.POSITIVE_INFINITY, 0];
      for (const number of frames.keys()) {
        first = Math.min(first, number);
        last = Math.max(last, number);
      }
      return { replica, first, last };
    });
  }

  /** Replicas whose next frame waits because it is from the future. */
  skewed(): ReplicaId[] {
    const skewed: ReplicaId[] = [];
    for (const [replica, frames] of this.#held) {
      const next = frames.get(this.#nextNumber(replica));
      if (next !== undefined && this.#isAhead(next.stamp)) skewed.push(replica);
    }
    return skewed;
  }

  /** Takes a frame in. */
  offer(frame: Frame): Offered {
    const next = this.#nextNumber(frame.replica);
    if (frame.number < next) return 'known';
    let frames = this.#held.get(frame.replica);
    if (frames?.has(frame.number)) return 'known';
    // The next frame of a replica is always let in, or a full queue could never drain.
    if (this.#heldBytes + frame.bytes.length > this.#maxBytes && frame.number !== next) return 'dropped';
    if (frames === undefined) {
      frames = new Map();
      this.#held.set(frame.replica, frames);
    }
    frames.set(frame.number, frame);
    this.#heldBytes += frame.bytes.length;
    return 'held';
  }

  /** Takes out what can be delivered now, in an order that keeps the invariant, up to about `maxBytes`. */
  take(maxBytes: number): Frame[] {
    const ready: Frame[] = [];
    let bytes = 0;
    for (let progress = true; progress; ) {
      progress = false;
      for (const [replica, frames] of this.#held) {
        for (;;) {
          const frame = frames.get(this.#nextNumber(replica));
          if (frame === undefined || this.#isAhead(frame.stamp) || !this.#depsMet(frame)) break;
          if (bytes > 0 && bytes + frame.bytes.length > maxBytes) return ready;
          this.#remove(frame);
          this.#marks.set(replica, { replica, number: frame.number, stamp: frame.stamp });
          ready.push(frame);
          bytes += frame.bytes.length;
          progress = true;
        }
      }
    }
    return ready;
  }

  /** Raises marks, after a state transfer; frames that they cover are forgotten. */
  raise(marks: Iterable<AppliedMark>): void {
    for (const mark of marks) {
      if ((this.#marks.get(mark.replica)?.number ?? 0) >= mark.number) continue;
      this.#marks.set(mark.replica, mark);
      for (const frame of this.#held.get(mark.replica)?.values() ?? []) {
        if (frame.number <= mark.number) this.#remove(frame);
      }
    }
  }

  /** Starts again from what a store says is applied. */
  reset(marks: Iterable<AppliedMark>): void {
    this.#marks.clear();
    this.#held.clear();
    this.#heldBytes = 0;
    this.raise(marks);
  }

  /** The ranges that are missing before held-back frames. */
  gaps(): Gap[] {
    const gaps: Gap[] = [];
    for (const [replica, frames] of this.#held) {
      const from = this.#nextNumber(replica);
      let first = Number.POSITIVE_INFINITY;
      for (const number of frames.keys()) first = Math.min(first, number);
      if (first > from) gaps.push({ replica, from, to: first - 1 });
    }
    return gaps;
  }

  #nextNumber(replica: ReplicaId): number {
    return (this.#marks.get(replica)?.number ?? 0) + 1;
  }

  #depsMet(frame: Frame): boolean {
    for (const [replica, stamp] of frame.deps) {
      if (replica !== frame.replica && (this.#marks.get(replica)?.stamp ?? 0) < stamp) return false;
    }
    return true;
  }

  #remove(frame: Frame): void {
    const frames = this.#held.get(frame.replica);
    if (frames?.delete(frame.number)) this.#heldBytes -= frame.bytes.length;
    if (frames?.size === 0) this.#held.delete(frame.replica);
  }
}
