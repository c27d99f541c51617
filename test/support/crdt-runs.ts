/**
 * How long the property tests of the data types run: short by default, LAWS_RUNS=100000 for a night. LAWS_SEED=… repeats the
 * run that a failure printed.
 */
import fc from 'fast-check';

const factor = Number(process.env.LAWS_RUNS ?? '0');
const seed = process.env.LAWS_SEED;

/** fast-check's parameters for a property that runs `usual` times in `npm test`. A failure prints seed, path and counterexample. */
export function runs(usual: number): fc.Parameters<unknown> {
  return {
    numRuns: factor > 0 ? factor : usual,
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    // Without this, a slow machine would let a long shrink look like a hang.
    includeErrorInReport: true,
    interruptAfterTimeLimit: factor > 0 ? 24 * 3_600_000 : 60_000,
    markInterruptAsFailure: false,
  };
}

/** Checks a property that runs `usual` times in `npm test`. */
export function check<T extends unknown[]>(usual: number, property: fc.IProperty<T>): void {
  fc.assert(property, runs(usual) as fc.Parameters<T>);
}

/** Numbers from 0 up to 2^32, reproducible: Mulberry32. */
export class Random {
  #state: number;

  constructor(state: number) {
    this.#state = state >>> 0;
  }

  /** An integer from 0 to `below` - 1. */
  below(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x100000000) * below);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** Up to `most` of the items, at least one. */
  some<T>(items: readonly T[], most: number): T[] {
    return Array.from({ length: 1 + this.below(most) }, () => this.pick(items));
  }

  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i -= 1) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }
}
