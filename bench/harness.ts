/**
 * The harness that benchmarks share: it compares *sides* that do the same work, in one run on one machine.
 *
 * Each side is run and its result checked before anything is timed; that run is the warm-up too. Then the sides take turns
 * for at least five rounds, so that what else the machine does hits all of them, and the figure is the median. A ratio is the median
 * of the rounds' own ratios. A side that is hopelessly slow isn't waited for five times more: its figure is the checked run's, and marked.
 */
import { readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';

/** One line of the result, as `--json` writes it. */
export interface Row {
  readonly bench: string;
  readonly case: string;
  readonly value: number;
  readonly unit: string;
  /** The side that `ratio` compares with; null where there is nothing to compare. */
  readonly baseline: string | null;
  /** How many times the baseline: above 1 is more of `unit`. */
  readonly ratio: number | null;
}

/** One way of doing a case's work. */
export interface Side {
  readonly name: string;
  /** How many things `run` does: its figure is these per second. */
  readonly work: number;
  /** Does the work from the beginning. What it gives goes to `check`. */
  readonly run: () => unknown;
  /** Throws unless the work was done, and right. */
  readonly check: (result: unknown) => void;
}

/** Settings of a run. */
export interface BenchOptions {
  /** Factor for the sizes: 1 is the size that is published. */
  readonly scale: number;
  /** Interleaved rounds; at least five, or the median means little. */
  readonly rounds: number;
  /** Says whether a case is asked for. */
  readonly wanted: (name: string) => boolean;
  /** Called with each row, as soon as it is known. */
  readonly done: (row: Row) => void;
}

/** A benchmark: one file, one question. */
export interface Bench {
  readonly name: string;
  /** What it measures, and what to know before comparing; printed above the rows. */
  readonly about: string;
  /** Packages whose versions matter. */
  readonly packages: readonly string[];
  run(options: BenchOptions): Promise<void>;
}

/** The longest that a side may take, in milliseconds and as a multiple of the fastest one, before it is run only once. */
const SLOW_MS = 1_000;
const SLOW_FACTOR = 5;

/** Measures sides against each other. The first is ours; its row is compared with the best of the others. */
export function compare(
  bench: string,
  name: string,
  unit: string,
  sides: readonly Side[],
  options: Pick<BenchOptions, 'rounds' | 'done'>,
): void {
  const first = sides.map((side) => timed(side, true));
  const fastest = Math.max(...first);
  const slow = sides.map(
    (side, i) => (side.work / first[i]!) * 1000 > SLOW_MS && first[i]! * SLOW_FACTOR < fastest,
  );
  const rates: number[][] = sides.map((_, i) => (slow[i] ? [first[i]!] : []));
  for (let round = 0; round < options.rounds; round += 1) {
    for (let turn = 0; turn < sides.length; turn += 1) {
      const i = (turn + round) % sides.length;
      if (!slow[i]) rates[i]!.push(timed(sides[i]!, false));
    }
  }
  const figures = rates.map(median);
  let best = -1;
  for (let i = 1; i < sides.length; i += 1) if (best < 0 || figures[i]! > figures[best]!) best = i;
  const ratio =
    best < 0 ? null : median(rates[0]!.map((rate, round) => rate / (rates[best]![round] ?? figures[best]!)));
  for (const [i, side] of sides.entries()) {
    options.done({
      bench,
      case: `${name} | ${side.name}${slow[i] ? ' (one run)' : ''}`,
      value: figures[i]!,
      unit,
      baseline: i === 0 && best > 0 ? sides[best]!.name : null,
      ratio: i === 0 ? ratio : null,
    });
  }
}

/** Runs a side from clean memory, where `gc` is exposed; gives its work per second. */
function timed(side: Side, check: boolean): number {
  globalThis.gc?.();
  const start = performance.now();
  const result = side.run();
  const ms = performance.now() - start;
  if (check) side.check(result);
  return (side.work / ms) * 1000;
}

/** The middle one of the values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Throws unless a result is what the work must give. */
export function expect(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what}: ${String(actual)} instead of ${String(expected)}`);
}

/** The machine, in a line. */
export function machine(): string {
  const all = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${all[0]?.model.trim() ?? 'unknown CPU'}, ${all.length} cores, ${memory} GiB; Node ${process.version}, ${process.platform} ${process.arch}`;
}

/** A package and its installed version. */
export function versionOf(name: string): string {
  const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
  return `${name} ${(JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version}`;
}

const format = (value: number): string =>
  value >= 1e6
    ? `${(value / 1e6).toFixed(2)} M`
    : value >= 1e3
      ? `${(value / 1e3).toFixed(1)} k`
      : value.toFixed(value < 10 ? 2 : 0);

/** A row for people. */
export function line({ case: name, value, unit, baseline, ratio }: Row): string {
  const compared = baseline === null || ratio === null ? '' : `   ${ratio.toFixed(2)} × ${baseline}`;
  return `  ${name.padEnd(64)} ${`${format(value)} ${unit}`.padStart(18)}${compared}`;
}
