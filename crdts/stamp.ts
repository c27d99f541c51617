/**
 * Hybrid logical clock: timestamps that follow physical time, never repeat on one replica, and never run behind
 * anything the replica has seen (Kulkarni, Demirbas et al., "Logical Physical Clocks", 2014).
 *
 * A stamp is one JavaScript number below 2^53: 41 bits of milliseconds since 2020-01-01T00:00Z and 12 bits of
 * logical counter. A counter that overflows carries into the milliseconds, so 4,096 stamps a millisecond is no
 * limit: the clock runs ahead for a moment. 41 bits last until the year 2089.
 */
import { ArgumentError, StampRangeError } from './errors.js';

/** A hybrid-logical-clock time. Zero is before every stamp that a clock gives. */
export type Stamp = number;

/** Unix time of stamp zero, in milliseconds. */
export const STAMP_EPOCH_MS = Date.UTC(2020, 0, 1);

/** Logical steps within a millisecond. */
export const STAMPS_PER_MS = 4096;

/** The greatest stamp. */
export const MAX_STAMP: Stamp = Number.MAX_SAFE_INTEGER;

/** Says whether a value has the form of a stamp. */
export function isStamp(value: unknown): value is Stamp {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** The first stamp of a Unix millisecond. Throws {@link StampRangeError} outside the years 2020 to 2089. */
export function stampAt(unixMs: number): Stamp {
  const stamp = (Math.floor(unixMs) - STAMP_EPOCH_MS) * STAMPS_PER_MS;
  if (!isStamp(stamp)) {
    throw new StampRangeError(`time ${unixMs} ms is outside the years 2020 to 2089: set the machine's clock`);
  }
  return stamp;
}

/** The Unix time of a stamp, in whole milliseconds. */
export function stampMs(stamp: Stamp): number {
  return Math.floor(stamp / STAMPS_PER_MS) + STAMP_EPOCH_MS;
}

/** Gives stamps that are greater than every stamp given or observed before. Holds no timer and reads no clock itself. */
export class HybridClock {
  readonly #now: () => number;
  readonly #maxDriftMs: number;
  #last: Stamp;

  /**
   * @param now gives the Unix time in milliseconds; may stand still or jump back
   * @param options.maxDriftMs how far ahead of `now` an observed stamp may be. Default: 60,000
   * @param options.last a stamp that every given one must exceed, such as the greatest one stored. Default: 0
   */
  constructor(now: () => number, options: { maxDriftMs?: number; last?: Stamp } = {}) {
    this.#now = now;
    this.#maxDriftMs = options.maxDriftMs ?? 60_000;
    this.#last = options.last ?? 0;
    if (!(this.#maxDriftMs >= 0)) throw new ArgumentError('maxDriftMs must be 0 or more');
    if (!isStamp(this.#last)) throw new StampRangeError(`last ${this.#last} is not a stamp`);
  }

  /** The greatest stamp given or observed so far. */
  get last(): Stamp {
    return this.#last;
  }

  /**
   * Gives the next stamp. Throws {@link StampRangeError} after the year 2089.
   * @param unixMs what `now` gave a moment ago, for those who need many. Default: it is asked
   */
  next(unixMs = this.#now()): Stamp {
    const next = Math.max(stampAt(unixMs), this.#last + 1);
    if (next > MAX_STAMP) throw new StampRangeError('the clock has run past its last stamp');
    this.#last = next;
    return next;
  }

  /** Says whether a stamp is further ahead than the allowed drift: then it must be held back, not observed. */
  isAhead(stamp: Stamp): boolean {
    return stampMs(stamp) > this.#now() + this.#maxDriftMs;
  }

  /** Makes every later stamp greater than this one. Throws {@link StampRangeError} when it {@link isAhead} or malformed. */
  observe(stamp: Stamp): void {
    if (!isStamp(stamp))
      throw new StampRangeError(`${stamp} is not a stamp: it must be an integer from 0 to 2^53-1`);
    if (this.isAhead(stamp)) {
      throw new StampRangeError(`stamp ${stamp} is more than ${this.#maxDriftMs} ms ahead of this clock`);
    }
    if (stamp > this.#last) this.#last = stamp;
  }
}
