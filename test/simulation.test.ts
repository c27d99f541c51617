/**
 * Whole meshes on virtual time and a hostile network, one test per mode.
 *
 *     npm run simulate -- [--seeds N] [--seed N] [--mode NAME]     (or SIMULATE_SEEDS, SIMULATE_SEED, SIMULATE_MODE)
 *
 * `--seed` runs one alone; SIMULATE_LOG=1 shows the nodes' logs. What the modes share is in support/simulated-run.ts.
 */
import test from 'node:test';
import { simulate, type Troubles } from './support/simulated-run.js';

const SEEDS = Number(process.env.SIMULATE_SEEDS ?? 100);
const ONLY = process.env.SIMULATE_SEED;
const MODE = process.env.SIMULATE_MODE;

interface Mode {
  readonly title: string;
  readonly troubles: Troubles;
  /** Of the seeds that are asked for, how many. Default: all. */
  readonly share?: number;
}

const MODES: Readonly<Record<string, Mode>> = {
  network: {
    title: 'regions converge to the model’s answer through loss, duplication, reordering and partitions',
    troubles: {},
  },
  crashes: {
    title: 'nothing acknowledged is lost and nothing counts twice when members crash and stores fail',
    troubles: { crashes: true, storeFaults: true },
  },
  late: {
    title: 'four regions converge though one joins late, logs are trimmed and memory is short',
    troubles: {
      regions: ['a', 'b', 'c', 'd'],
      late: 'd',
      crashes: true,
      trimmedLogs: true,
      node: { recentFramesBytes: 2_000, heldBackBytes: 65_536, maxLogBytes: 65_536 },
    },
    share: 0.3,
  },
  'lost-running': {
    title: 'nothing is lost when stores fall back to older data under running nodes',
    troubles: { lostData: 'running' },
    share: 0.4,
  },
  'lost-ever': {
    title: 'regions agree on what is left when stores fall back to older data at any time',
    troubles: { crashes: true, storeFaults: true, lostData: 'ever' },
    share: 0.4,
  },
  'lost-one': {
    title: 'what another region had applied is back when one region’s store falls back at any time',
    troubles: { crashes: true, lostData: 'ever', losers: ['a'] },
    share: 0.3,
  },
  forget: {
    title:
      'what is left of deleted keys is forgotten, and nothing comes back, when members crash and stores fail',
    troubles: {
      crashes: true,
      storeFaults: true,
      forgets: true,
      steps: 240,
      node: { tombstoneGraceMs: 500, antiEntropyMs: 1_000 },
    },
    share: 0.2,
  },
  'forget-late': {
    title: 'what was deleted stays so though a region joins late, logs are trimmed and memory is short',
    troubles: {
      regions: ['a', 'b', 'c', 'd'],
      late: 'd',
      crashes: true,
      trimmedLogs: true,
      forgets: true,
      steps: 240,
      node: {
        tombstoneGraceMs: 500,
        antiEntropyMs: 1_000,
        recentFramesBytes: 2_000,
        heldBackBytes: 65_536,
        maxLogBytes: 65_536,
      },
    },
    share: 0.1,
  },
  outcasts: {
    title: 'regions agree when members are forgotten and return',
    troubles: { crashes: true, outcasts: true, forgets: true, steps: 240, node: { tombstoneGraceMs: 500 } },
    share: 0.1,
  },
  ahead: {
    title: 'regions converge though a clock is ahead within the allowed drift',
    troubles: { crashes: true, aheadMs: { a: 20_000 } },
    share: 0.2,
  },
  'too-far-ahead': {
    title: 'regions converge though a clock is ahead by more than the allowed drift',
    troubles: { crashes: true, aheadMs: { a: 7_000 }, node: { maxDriftMs: 1_000 } },
    share: 0.2,
  },
};

for (const [name, { title, troubles, share = 1 }] of Object.entries(MODES)) {
  if (MODE !== undefined && MODE !== name) continue;
  test(title, async () => {
    const count = Math.ceil(SEEDS * share);
    const seeds = ONLY === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(ONLY)];
    for (const seed of seeds) {
      try {
        await simulate(seed, troubles);
      } catch (error) {
        const again = `npm run simulate -- --mode ${name} --seed ${seed}`;
        throw new Error(`seed ${seed} fails; again: ${again}\n${(error as Error).message}`, { cause: error });
      }
    }
  });
}
