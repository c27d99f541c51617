/**
 * The same simulation on real Valkey servers, one per region, in real time: the network is simulated, the stores are not.
 * SIMULATE_SEEDS=n runs more, SIMULATE_SEED=n one alone.
 */
import { after, before, test } from 'node:test';
import { Redis } from 'ioredis';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import { silentLogger } from '../src/options.js';
import { openStore } from '../src/store/open.js';
import type { Store } from '../src/store/store.js';
import { systemTimers } from '../src/timers.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { Random } from './support/crdt-runs.js';
import { Simulation } from './support/simulation.js';
import { waitFor } from './support/wait.js';

const REGIONS = ['a', 'b', 'c'];
const SEEDS = Number(process.env.SIMULATE_SEEDS ?? 50);
const ONLY = process.env.SIMULATE_SEED;
const servers = new Map<string, LaunchedValkey>();

before(async () => {
  await Promise.all(REGIONS.map(async (region) => servers.set(region, await launchValkey())));
});

after(async () => {
  await Promise.all([...servers.values()].map((server) => server.stop()));
});

async function simulate(seed: number): Promise<void> {
  const random = new Random(seed);
  const draw = (): number => random.below(1_000_000) / 1_000_000;
  const network = new LoopbackNetwork({
    random: draw,
    latencyMs: [0, 4],
    loss: 0.3,
    duplication: 0.15,
    reordering: 0.3,
    reorderingMs: 10,
  });
  for (const server of servers.values()) {
    const client = new Redis(server.url);
    await client.flushall();
    await client.quit();
  }
  const open = (region: string): Store =>
    openStore(servers.get(region)!.url, { timers: systemTimers, random: draw, logger: silentLogger });
  const simulation = new Simulation({
    regions: REGIONS,
    network,
    timers: systemTimers,
    random,
    openStore: open,
    readStore: open,
    // Over before the end, or long after it: nothing expires while the regions are compared.
    drawTtlMs: (from) => (from.chance(50) ? 1 + from.below(20) : 600_000 + from.below(1_000)),
    node: { heartbeatMs: 25, antiEntropyMs: 500 },
  });
  await simulation.start();
  for (let step = 0; step < 40; step += 1) {
    for (let i = random.below(6); i > 0; i -= 1) simulation.operate();
    const event = random.below(20);
    if (event === 0) network.partition([[random.pick(REGIONS)], REGIONS]);
    else if (event === 1)
      network.cut(random.pick(REGIONS), random.pick(REGIONS), { oneWay: random.chance(50) });
    else if (event <= 3) network.heal();
    else if (event === 4) await simulation.crash(random.pick(REGIONS));
    else if (event <= 6) await reviveAll(simulation);
    await new Promise<void>((resolve) => systemTimersAlive(random.below(4), resolve));
  }
  network.heal();
  await reviveAll(simulation);
  await waitFor(() => simulation.converged(), { deadlineMs: 30_000, what: `seed ${seed} converges` });
  await simulation.check();
  await simulation.stop();
}

/** Spreads the operations over real time, so that commits, frames and cuts overlap. */
function systemTimersAlive(ms: number, fn: () => void): void {
  setTimeout(fn, ms);
}

async function reviveAll(simulation: Simulation): Promise<void> {
  for (const region of REGIONS) if (!simulation.alive.includes(region)) await simulation.revive(region);
}

test('regions on real Valkey servers converge to the model’s answer through loss, partitions and crashes', async () => {
  const seeds = ONLY === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(ONLY)];
  for (const seed of seeds) {
    try {
      await simulate(seed);
    } catch (error) {
      throw new Error(`seed ${seed} (run it alone with SIMULATE_SEED=${seed}): ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
});
