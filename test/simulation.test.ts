/** Whole meshes on virtual time and a hostile network. SIMULATE_SEEDS=n runs more, SIMULATE_SEED=n one alone. */
import test from 'node:test';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import { type CommitFault, MemoryStore } from '../src/store/memory.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { Random } from './support/crdt-runs.js';
import { Simulation } from './support/simulation.js';

const REGIONS = ['a', 'b', 'c'];
const SEEDS = Number(process.env.SIMULATE_SEEDS ?? 100);
const ONLY = process.env.SIMULATE_SEED;

interface Troubles {
  readonly crashes: boolean;
  readonly storeFaults: boolean;
}

async function simulate(seed: number, troubles: Troubles): Promise<void> {
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
  const datasets = new Map(REGIONS.map((region) => [region, new MemoryDataset()]));
  let faulty = troubles.storeFaults;
  const fault = (): CommitFault | null => {
    if (!faulty || !random.chance(3)) return null;
    return random.pick<CommitFault>(['refuse', 'lose', 'unknown']);
  };
  const simulation = new Simulation({
    node: process.env.SIMULATE_LOG === undefined ? {} : { logger: console },
    regions: REGIONS,
    network,
    timers,
    random,
    openStore: (region) =>
      new MemoryStore({ timers, latencyMs: 1, dataset: datasets.get(region)!, fault, random: () => random.below(1000) / 1000 }),
  });
  await timers.runToEnd(simulation.start());
  for (let step = 0; step < 120; step += 1) {
    for (let i = random.below(6); i > 0; i -= 1) simulation.operate();
    const event = random.below(40);
    if (event === 0) network.partition([[random.pick(REGIONS)], REGIONS]);
    else if (event === 1) network.cut(random.pick(REGIONS), random.pick(REGIONS), { oneWay: random.chance(50) });
    else if (event <= 3) network.heal();
    else if (event === 4 && troubles.crashes) await timers.runToEnd(simulation.crash(random.pick(REGIONS)));
    else if (event === 5 && troubles.crashes) await timers.runToEnd(simulation.shutDown(random.pick(REGIONS)));
    else if (event <= 8) await reviveAll(simulation, timers);
    await timers.advance(random.below(100));
  }
  network.heal();
  faulty = false;
  await reviveAll(simulation, timers);
  const deadlineMs = timers.now() + 120_000;
  while (!(await timers.runToEnd(simulation.converged()))) {
    if (timers.now() > deadlineMs) {
      const states = simulation.alive.map((region) => JSON.stringify(simulation.node(region).status()));
      const differing = await timers.runToEnd(simulation.differences());
      throw new Error(`not converged 120 s after healing:\n${[...differing, ...states].join('\n')}`);
    }
    await timers.advance(200);
  }
  await timers.advance(5_000);
  await timers.runToEnd(simulation.check());
  await timers.runToEnd(simulation.stop());
}

async function reviveAll(simulation: Simulation, timers: VirtualTimers): Promise<void> {
  for (const region of REGIONS) {
    if (!simulation.alive.includes(region)) await timers.runToEnd(simulation.revive(region));
  }
}

async function everySeed(troubles: Troubles): Promise<void> {
  const seeds = ONLY === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(ONLY)];
  for (const seed of seeds) {
    try {
      await simulate(seed, troubles);
    } catch (error) {
      throw new Error(`seed ${seed} (run it alone with SIMULATE_SEED=${seed}): ${(error as Error).message}`, { cause: error });
    }
  }
}

test('regions converge to the model’s answer through loss, duplication, reordering and partitions', () =>
  everySeed({ crashes: false, storeFaults: false }));

test('nothing acknowledged is lost and nothing counts twice when members crash and stores fail', () =>
  everySeed({ crashes: true, storeFaults: true }));
