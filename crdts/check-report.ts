/**
 * What the checkers tell (check-data-type.ts, check-resolver.ts), and what both need: reproducible chance, and shrinking of a
 * counterexample to one from which nothing can be left out.
 */
import { MeshError } from './errors.js';

/** What went wrong, in the smallest case that was found. */
export interface CheckFailure {
  /** Which law is broken: stable, for tests. */
  readonly law: string;
  /** How, in words. */
  readonly message: string;
  /** What to do to see it, a line for each step or input. */
  readonly counterexample: readonly string[];
}

/** What a checker found. Plain data. */
export interface CheckReport {
  readonly ok: boolean;
  /** Give it to the checker again to repeat the run. */
  readonly seed: number;
  /** Random cases that were run, the failing one included. */
  readonly cases: number;
  /** Absent when all is well. */
  readonly failure?: CheckFailure;
}

/** Thrown by {@link assertPassed}: the message is the whole report, in lines. */
export class CheckError extends MeshError {
  constructor(message: string) {
    super('CHECK', message);
  }
}

/** Throws CheckError with a readable message unless a check passed. */
export function assertPassed(report: CheckReport): void {
  const { failure } = report;
  if (failure === undefined) return;
  throw new CheckError(
    [
      `${failure.law}: ${failure.message}`,
      ...failure.counterexample.map((line, i) => `  ${i + 1}. ${line}`),
      `case ${report.cases} of seed ${report.seed}`,
    ].join('\n'),
  );
}

/** Chance that repeats itself: numbers drawn from a seed (Mulberry32). */
export class Chance {
  #state: number;

  /** @param seed any integer; the lower 32 bits count */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x100000000) * limit);
  }

  /** One of the items; there must be one. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** The items in another order. */
  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i -= 1) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }
}

/** How often {@link shrink} tries at most: something that fails by chance would shrink for ever. */
const MOST_TRIES = 5000;

/**
 * Leaves out what a failing list doesn't need, runs of items first, and puts simpler items in the place of others, until
 * nothing more can go (after Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
 */
export function shrink<T>(
  failing: readonly T[],
  fails: (items: readonly T[]) => boolean,
  simpler: (item: T) => readonly T[] = () => [],
): readonly T[] {
  let best = failing;
  let tries = 0;
  const stillFails = (items: readonly T[]) => {
    tries += 1;
    return tries <= MOST_TRIES && fails(items);
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (let size = Math.max(1, best.length >> 1); size >= 1; size >>= 1) {
      for (let at = 0; at + size <= best.length; ) {
        const next = [...best.slice(0, at), ...best.slice(at + size)];
        if (stillFails(next)) {
          best = next;
          changed = true;
        } else at += size;
      }
    }
    for (let at = 0; at < best.length; at += 1) {
      for (const item of simpler(best[at]!)) {
        const next = [...best.slice(0, at), item, ...best.slice(at + 1)];
        if (!stillFails(next)) continue;
        best = next;
        changed = true;
        break;
      }
    }
  }
  return best;
}

/** A value on one line, for people: maps, sets, bigints and bytes included. */
export function show(value: unknown): string {
  const text = JSON.stringify(value, (_key, item: unknown) => {
    if (item instanceof Map) return { map: [...item] };
    if (item instanceof Set) return { set: [...item] };
    if (item instanceof Uint8Array) return { bytes: [...item] };
    if (Object.is(item, -0)) return '-0';
    return typeof item === 'bigint' ? `${item}n` : item;
  });
  return (text ?? String(value)).slice(0, 500);
}

/** Says whether two plain values hold the same, whatever the order in maps and sets. */
export function sameContent(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, item]) => b.has(key) && sameContent(item, b.get(key)));
  }
  if (a instanceof Set && b instanceof Set) return a.size === b.size && [...a].every((item) => b.has(item));
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))];
  return (
    left.length === right.size &&
    left.every(([key, item]) => right.has(key) && sameContent(item, right.get(key)))
  );
}
