/**
 * `npm run simulate -- [--seeds N] [--from N] [--seed N] [--mode NAME]`: the simulation for as long as one likes.
 *
 * - `--seeds`: how many seeds of each mode, default 2,000; some modes run a share of them (simulation-modes.ts).
 * - `--from`: the first seed, default 1, so that processes can share the work.
 * - `--seed`: that one alone, as the message of a failure says. SIMULATE_LOG=1 shows the nodes' logs.
 * - `--mode`: only that one.
 *
 * Prints a line for each mode, and each seed that fails; it goes on after a failure. Exit code 1 when a seed has failed. Outside of node:test,
 * whose hooks on promises would take a third of the time.
 */
import { parseArgs } from 'node:util';
import { simulate } from './simulated-run.js';
import { again, MODES, seedsOf } from './simulation-modes.js';

const string = { type: 'string' } as const;
const { values } = parseArgs({ options: { seeds: string, from: string, seed: string, mode: string } });

function refuse(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}

function count(flag: 'seeds' | 'from' | 'seed', otherwise: number): number {
  const value = values[flag];
  if (value === undefined) return otherwise;
  if (!/^[1-9]\d{0,8}$/.test(value)) refuse(`--${flag} wants a number from 1 on, not ${value}`);
  return Number(value);
}

const alone = count('seed', 0);
const seeds = count('seeds', 2_000);
const first = alone === 0 ? count('from', 1) : alone;
if (values.mode !== undefined && MODES[values.mode] === undefined)
  refuse(`--mode wants one of ${Object.keys(MODES).join(', ')}, not ${values.mode}`);

let failed = 0;
let run = 0;
for (const [name, mode] of Object.entries(MODES)) {
  if (values.mode !== undefined && values.mode !== name) continue;
  const begun = performance.now();
  const number = alone === 0 ? seedsOf(mode, seeds) : 1;
  let failures = 0;
  for (let seed = first; seed < first + number; seed += 1) {
    try {
      await simulate(seed, mode.troubles);
    } catch (error) {
      failures += 1;
      process.stdout.write(
        `${name}: seed ${seed} fails; again: ${again(name, seed)}\n${(error as Error).stack}\n`,
      );
    }
  }
  failed += failures;
  run += number;
  const seconds = Math.round((performance.now() - begun) / 1000);
  process.stdout.write(`${name}: ${number} seeds from ${first} on, ${failures} failed, ${seconds} s\n`);
}
process.stdout.write(`${run} seeds, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
