/**
 * `npm run bench [-- NAME…] [--json FILE]`: runs benchmarks (all, or those named), prints a row per case, and writes the rows.
 * BENCH_SCALE=0.1 makes the work smaller, BENCH_ROUNDS=9 the medians steadier; BENCH_CASE=text takes only the cases with that text in their names.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { clusterBench } from './cluster.js';
import { footprintBench } from './footprint.js';
import { type Bench, line, machine, type Row, versionOf } from './harness.js';
import { joinBench } from './join.js';
import { mergeBench } from './merge.js';
import { remoteBench } from './remote.js';
import { sizesBench } from './sizes.js';
import { transferBench } from './transfer.js';
import { writeBench } from './write.js';

/** Every benchmark: a new one is one more file, and one more name here. */
const BENCHES: readonly Bench[] = [
  mergeBench,
  sizesBench,
  joinBench,
  transferBench,
  writeBench,
  remoteBench,
  footprintBench,
  clusterBench,
];

class UsageError extends Error {}

function chosen(names: readonly string[]): readonly Bench[] {
  for (const name of names) {
    if (!BENCHES.some((bench) => bench.name === name)) {
      throw new UsageError(
        `there is no benchmark ${name}: choose among ${BENCHES.map((bench) => bench.name).join(', ')}`,
      );
    }
  }
  return names.length === 0 ? BENCHES : BENCHES.filter((bench) => names.includes(bench.name));
}

function positive(name: string, usual: number): number {
  const value = Number(process.env[name] ?? usual);
  if (!(value > 0)) throw new UsageError(`${name} must be a number above 0`);
  return value;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { json: { type: 'string' } },
    allowPositionals: true,
  });
  const benches = chosen(positionals);
  const scale = positive('BENCH_SCALE', 1);
  const rounds = Math.ceil(positive('BENCH_ROUNDS', 5));
  const only = process.env.BENCH_CASE ?? '';
  const print = (text: string): void => void process.stdout.write(`${text}\n`);
  print(`${machine()}; scale ${scale}, median of ${rounds} rounds`);
  const rows: Row[] = [];
  for (const bench of benches) {
    print(`\n${bench.name}: ${bench.about}`);
    if (bench.packages.length > 0) print(`  ${bench.packages.map(versionOf).join(', ')}`);
    const done = (row: Row): void => {
      rows.push(row);
      print(line(row));
    };
    await bench.run({ scale, rounds, wanted: (name) => name.includes(only), done });
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
}

// So that a side doesn't pay for the rubbish of the one before.
setFlagsFromString('--expose-gc');
globalThis.gc = runInNewContext('gc') as NonNullable<typeof globalThis.gc>;

try {
  await main();
} catch (error) {
  const misused =
    error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
  process.stderr.write(`bench: ${misused ? (error as Error).message : (error as Error).stack}\n`);
  process.exitCode = misused ? 2 : 1;
}
