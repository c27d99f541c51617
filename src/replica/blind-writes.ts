/**
 * Blind writes: a SET of a key that isn't in memory needs to know of it only whether it is there. Where new keys are written, and
 * it never is, loading nothing is half the work. So it is guessed that there is none; the commit compares, as ever, and fails as
 * stale where the guess was wrong. Then the whole batch runs again, on loaded keys.
 *
 * A wrong guess costs more than a load, so there is no guessing before enough loads in a row have found nothing; after a wrong
 * guess that takes longer and longer.
 */

/** Keys that must have been loaded in vain, in a row, before the first guess. */
const LEAST_MISSES = 64;
const MOST_MISSES = 1 << 22;

export class BlindWrites {
  #misses = 0;
  #needed = LEAST_MISSES;

  /** Says whether to guess now. */
  get allowed(): boolean {
    return this.#misses >= this.#needed;
  }

  /** Keys were loaded that could have been guessed; so many of them were there. */
  loaded(keys: number, found: number): void {
    this.#misses = found > 0 ? 0 : this.#misses + keys;
  }

  /** A commit that was built on guesses was stale. */
  wrong(): void {
    this.#misses = 0;
    this.#needed = Math.min(this.#needed * 16, MOST_MISSES);
  }
}
