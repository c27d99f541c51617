/**
 * Causal delivery: which of the frames that have come may be applied now?
 *
 * Invariant: a frame is delivered only after its predecessor from the same replica, and after every dot that it
 * supersedes (its `deps`). That is why a plain version vector per set is enough. What comes early is held back, in a
 * bounded queue; what doesn't fit is dropped, and is repaired later. Pure: no IO, no clock of its own.
 *
 * Invariant: a frame from further in the future than the allowed drift is neither delivered nor dropped: it waits.
 *
 * Frames that nobody has any more are told with {@link CausalDelivery.lost} and {@link CausalDelivery.skip}; whether that is so is
 * found out in sync/holes.ts.
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
  /** Replica → stamp: dots of that replica that aren't delivered, and are older than that, will never come. */
  readonly #lost = new Map<ReplicaId, Stamp>();
  /** Replica → number of the last frame before the one behind a skipped hole, until that is delivered. */
  readonly #skipped = new Map<ReplicaId, number>();
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

  /**
   * What is here and not committed yet, by replica: the least and the greatest number of what is held back, or delivered and
   * still under way. `committed`: the marks of the store. Default: all that is delivered.
   */
  held(
    committed: ReadonlyMap<ReplicaId, AppliedMark> = this.#marks,
  ): { replica: ReplicaId; first: number; last: number }[] {
    const ranges = new Map<ReplicaId, { replica: ReplicaId; first: number; last: number }>();
    for (const [replica, frames] of this.#held) {
      let [first, last] = [Number.POSITIVE_INFINITY, 0];
      for (const number of frames.keys()) {
        first = Math.min(first, number);
        last = Math.max(last, number);
      }
      ranges.set(replica, { replica, first, last });
    }
    for (const [replica, { number }] of this.#marks) {
      const done = committed.get(replica)?.number ?? 0;
      if (number <= done || number === this.#skipped.get(replica)) continue;
      ranges.set(replica, { replica, first: done + 1, last: ranges.get(replica)?.last ?? number });
    }
    return [...ranges.values()];
  }

  /** The first frame that is held back of each replica. */
  firstHeld(): Map<ReplicaId, Frame> {
    const first = new Map<ReplicaId, Frame>();
    for (const [replica, frames] of this.#held)
      first.set(
        replica,
        [...frames.values()].reduce((a, b) => (b.number < a.number ? b : a)),
      );
    return first;
  }

  /** Replicas whose dots some replica's next frame waits for. */
  awaited(): Set<ReplicaId> {
    const awaited = new Set<ReplicaId>();
    for (const [replica, frames] of this.#held) {
      const next = frames.get(this.#nextNumber(replica));
      for (const [other, stamp] of next?.deps ?? [])
        if (other !== replica && !this.#isMet(other, stamp)) awaited.add(other);
    }
    return awaited;
  }

  /** Frames that are held back, from one number to another, in order. */
  heldFrames(replica: ReplicaId, from: number, to: number): Frame[] {
    const frames = [...(this.#held.get(replica)?.values() ?? [])];
    return frames.filter(({ number }) => number >= from && number <= to).sort((a, b) => a.number - b.number);
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
    // It isn't lost after all, or there is more than was thought.
    if (frame.stamp < (this.#lost.get(frame.replica) ?? 0)) this.#lost.delete(frame.replica);
    return 'held';
  }

  /** Nobody has those frames of a replica that are not delivered here, and older than `before`: what depends on them needn't wait. */
  lost(replica: ReplicaId, before: Stamp): void {
    this.#lost.set(replica, before);
  }

  /** Goes on with a frame that is held back, though those between it and the delivered ones are missing: nobody has them. */
  skip(replica: ReplicaId, next: number): void {
    const frame = this.#held.get(replica)?.get(next);
    if (frame === undefined || next <= this.#nextNumber(replica)) return;
    const stamp = Math.max(this.#marks.get(replica)?.stamp ?? 0, frame.stamp - 1);
    this.#marks.set(replica, { replica, number: next - 1, stamp });
    this.#skipped.set(replica, next - 1);
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
          this.#skipped.delete(replica);
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
      this.#skipped.delete(mark.replica);
      for (const frame of this.#held.get(mark.replica)?.values() ?? []) {
        if (frame.number <= mark.number) this.#remove(frame);
      }
    }
  }

  /** Starts again from what a store says is applied. */
  reset(marks: Iterable<AppliedMark>): void {
    this.#marks.clear();
    this.#held.clear();
    this.#lost.clear();
    this.#skipped.clear();
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
    for (const [replica, stamp] of frame.deps)
      if (replica !== frame.replica && !this.#isMet(replica, stamp)) return false;
    return true;
  }

  #isMet(replica: ReplicaId, stamp: Stamp): boolean {
    return (this.#marks.get(replica)?.stamp ?? 0) >= stamp || stamp < (this.#lost.get(replica) ?? 0);
  }

  #remove(frame: Frame): void {
    const frames = this.#held.get(frame.replica);
    if (frames?.delete(frame.number)) this.#heldBytes -= frame.bytes.length;
    if (frames?.size === 0) this.#held.delete(frame.replica);
  }
}
