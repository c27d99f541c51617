/**
 * How far another member's clock is from this one's, judged by the time that each of its heartbeats names.
 *
 * Word can be late, never early: an offset taken from one heartbeat is too small by as long as it was under way, queues of a busy machine
 * included. So the greatest of the last few is the nearest. What it still lacks is the shortest way between the two; half the round
 * trip of their greeting stands for that.
 */

/** Heartbeats that are remembered. A clock that was set back is noticed when all of them are newer than that. */
const REMEMBERED = 8;
/** Heartbeats until anything is said: the first ones come while both sides are busy with each other. */
const ENOUGH = 3;
/** No way is longer, even by satellite: what takes longer is a machine that is busy. */
const MAX_WAY_MS = 300;

export class ClockOffset {
  #late: number[] = [];
  #wayMs = 0;

  /** Takes in a heartbeat: the time that it names, and this node's when it came; Unix milliseconds. */
  heard(theirMs: number, ownMs: number): void {
    this.#late.push(theirMs - ownMs);
    if (this.#late.length > REMEMBERED) this.#late.shift();
  }

  /** Takes in how long a greeting and its answer took together. */
  greeted(roundTripMs: number): void {
    this.#wayMs = Math.min(Math.max(0, roundTripMs / 2), MAX_WAY_MS);
  }

  /** Their clock minus this node's, in whole milliseconds; null = not known yet. */
  get ms(): number | null {
    return this.#late.length < ENOUGH ? null : Math.round(Math.max(...this.#late) + this.#wayMs);
  }
}
