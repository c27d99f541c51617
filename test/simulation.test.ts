/**
 * Whole meshes on virtual time and a hostile network. SIMULATE_SEEDS=n runs more (npm run simulate), SIMULATE_SEED=n one alone,
 * SIMULATE_LOG=1 with the nodes' logs.
 */
import test from 'node:test';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import type { NodeOptions } from '../src/options.js';
import { type CommitFault, MemoryStore } from '../src/store/memory.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import type { Timers } from '../src/timers.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { Random } from './support/crdt-runs.js';
import { copyDataset } from './support/dataset-copy.js';
import { Simulation } from './support/simulation.js';

const SEEDS = Number(process.env.SIMULATE_SEEDS ?? 100);
const ONLY = process.env.SIMULATE_SEED;

interface Troubles {
  /** Default: a, b, c. */
  readonly regions?: readonly string[];
  /** Joins in the middle, with nothing. */
  readonly late?: string;
  readonly crashes?: boolean;
  readonly storeFaults?: boolean;
  /** Logs are trimmed before everyone has what is in them. */
  readonly trimmedLogs?: boolean;
  /** Stores fall back to what they were: while their node runs, or while it is down too, when memory can't help. */
  readonly lostData?: 'running' | 'ever';
  /** How far a region's clock is ahead, in milliseconds. */
  readonly aheadMs?: Readonly<Record<string, number>>;
  readonly node?: Partial<NodeOptions>;
}

async function simulate(seed: number, troubles: Troubles): Promise<void> {
  const { regions = ['a', 'b', 'c'], aheadMs = {}, late } = troubles;
  const random = new Random(seed);
  const timers = new VirtualTimers();
  const network = new LoopbackNetwork({
    timers,
    random: () => random.below(1_000_000) / 1_000_000,
    latencyMs: [1, 40],
    loss: 0.3,
    duplication: 0.15,
    reordering: 0.3,
    reorderingMs: 200,
  });
  const timersOf = (region: string): Timers => ({
    now: () => timers.now() + (aheadMs[region] ?? 0),
    after: (delayMs, fn) => timers.after(delayMs, fn),
  });
  const datasets = new Map(regions.map((region) => [region, new MemoryDataset()]));
  const stores = new Map<string, MemoryStore>();
  const backups = new Map<string, MemoryDataset>();
  let faulty = troubles.storeFaults === true;
  const fault = (): CommitFault | null => {
    if (!faulty || !random.chance(3)) return null;
    return random.pick<CommitFault>(['refuse', 'lose', 'unknown']);
  };
  const simulation = new Simulation({
    node: {
      ...(process.env.SIMULATE_LOG === undefined ? {} : { logger: console }),
      // A region that refuses while it loads has fewer stories to tell.
      whileLoading: seed % 4 === 0 ? 'refuse' : 'serve',
      ...troubles.node,
    },
    regions,
    network,
    timers,
    timersOf,
    random,
    lossy: troubles.lostData === 'ever',
    openStore: (region) => {
      // What was committed before a start is in no node's memory: falling back behind it would lose it for good.
      if (troubles.lostData !== 'ever') backups.delete(region);
      const store = new MemoryStore({
        timers: timersOf(region),
        latencyMs: 1,
        dataset: datasets.get(region)!,
        fault,
        random: () => random.below(1000) / 1000,
      });
      stores.set(region, store);
      return store;
    },
    readStore: (region) => new MemoryStore({ timers: timersOf(region), dataset: datasets.get(region)! }),
  });
  const reviveAll = async (): Promise<void> => {
    for (const region of regions) {
      if (simulation.alive.includes(region)) continue;
      await timers.runToEnd(simulation.revive(region));
    }
  };
  /** A store falls back to a backup, under a running node or a stopped one. */
  const loseData = async (region: string): Promise<void> => {
    const backup = backups.get(region);
    if (backup === undefined) return;
    const older = copyDataset(backup, timersOf(region).now());
    await timers.runToEnd(simulation.remember(region));
    datasets.set(region, older);
    if (simulation.alive.includes(region)) stores.get(region)!.loseData(older);
  };
  for (const region of regions) if (region !== late) await timers.runToEnd(simulation.revive(region));
  for (let step = 0; step < 120; step += 1) {
    for (let i = random.below(6); i > 0; i -= 1) simulation.operate();
    const event = random.below(40);
    const region = random.pick(regions);
    if (event === 0) network.partition([[region], regions]);
    else if (event === 1) network.cut(region, random.pick(regions), { oneWay: random.chance(50) });
    else if (event <= 3) network.heal();
    else if (event === 4 && troubles.crashes) await timers.runToEnd(simulation.crash(region));
    else if (event === 5 && troubles.crashes) await timers.runToEnd(simulation.shutDown(region));
    else if (event <= 8 && (late === undefined || step > 70)) await reviveAll();
    else if (event <= 11 && troubles.trimmedLogs) await timers.runToEnd(simulation.trimLog(region));
    else if (event <= 14 && troubles.lostData !== undefined && simulation.alive.includes(region))
      backups.set(region, copyDataset(datasets.get(region)!, timersOf(region).now()));
    else if (event === 15 && troubles.lostData !== undefined) await loseData(region);
    await timers.advance(random.below(100));
  }
  network.heal();
  faulty = false;
  await reviveAll();
  const deadlineMs = timers.now() + 120_000;
  while (!(await timers.runToEnd(simulation.converged()))) {
    if (timers.now() > deadlineMs) {
      const states = simulation.alive.map((region) => JSON.stringify(simulation.node(region).status()));
      const differing = await timers.runToEnd(simulation.differences());
      throw new Error(`not converged 120 s after healing:\n${[...differing, ...states].join('\n')}`);
    }
    await timers.advance(200);
  }
  // Every expiry has come, by all clocks.
  await timers.advance(5_000 + Math.max(0, ...Object.values(aheadMs)));
  await timers.runToEnd(simulation.check());
  await timers.runToEnd(simulation.stop());
}

async function everySeed(troubles: Troubles, share = 1): Promise<void> {
  const count = Math.ceil(SEEDS * share);
  const seeds = ONLY === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(ONLY)];
  for (const seed of seeds) {
    try {
      await simulate(seed, troubles);
    } catch (error) {
      throw new Error(`seed ${seed} (run it alone with SIMULATE_SEED=${seed}): ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

test('regions converge to the model’s answer through loss, duplication, reordering and partitions', () =>
  everySeed({}));

test('nothing acknowledged is lost and nothing counts twice when members crash and stores fail', () =>
  everySeed({ crashes: true, storeFaults: true }));

test('four regions converge though one joins late, logs are trimmed and memory is short', () =>
  everySeed(
    {
      regions: ['a', 'b', 'c', 'd'],
      late: 'd',
      crashes: true,
      trimmedLogs: true,
      node: { recentFramesBytes: 2_000, heldBackBytes: 65_536, maxLogBytes: 65_536 },
    },
    0.3,
  ));

test('nothing is lost when stores fall back to older data under running nodes', () =>
  everySeed({ lostData: 'running' }, 0.4));

test('regions agree on what is left when stores fall back to older data at any time', () =>
  everySeed({ crashes: true, storeFaults: true, lostData: 'ever' }, 0.4));

test('regions converge though a clock is ahead within the allowed drift', () =>
  everySeed({ crashes: true, aheadMs: { a: 20_000 } }, 0.2));

test('regions converge though a clock is ahead by more than the allowed drift', () =>
  everySeed({ crashes: true, aheadMs: { a: 7_000 }, node: { maxDriftMs: 1_000 } }, 0.2));
