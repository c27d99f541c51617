/** One run of a simulation: a whole mesh on virtual time and a hostile network, with the troubles that are asked for. */
import { LoopbackNetwork } from '../../src/mesh/loopback.js';
import { type NodeOptions, silentLogger } from '../../src/options.js';
import { type CommitFault, MemoryStore } from '../../src/store/memory.js';
import { MemoryDataset } from '../../src/store/memory-dataset.js';
import type { Timers } from '../../src/timers.js';
import { VirtualTimers } from '../../src/virtual-timers.js';
import { Random } from './crdt-runs.js';
import { copyDataset } from './dataset-copy.js';
import { EraStore } from './era-store.js';
import { Simulation } from './simulation.js';

/** What goes wrong in a run, besides the network. */
export interface Troubles {
  /** Default: a, b, c. */
  readonly regions?: readonly string[];
  /** Nodes that use the store of another one. Default: each has its own. */
  readonly shares?: Readonly<Record<string, string>>;
  /** Dies in the middle, and never returns. */
  readonly dies?: string;
  /** Joins in the middle, with nothing. */
  readonly late?: string;
  readonly crashes?: boolean;
  readonly storeFaults?: boolean;
  /** Logs are trimmed before everyone has what is in them. */
  readonly trimmedLogs?: boolean;
  /** Stores fall back to what they were: while their node runs, or while it is down too, when memory can't help. */
  readonly lostData?: 'running' | 'ever';
  /** The regions whose stores lose data. Default: all. */
  readonly losers?: readonly string[];
  /** What is left of deleted keys must be forgotten at the end. */
  readonly forgets?: boolean;
  /** Members that are down are forgotten by the others now and then; they begin anew when they return, with what only they had lost. */
  readonly outcasts?: boolean;
  /** Default: 120. */
  readonly steps?: number;
  /** How far a region's clock is ahead, in milliseconds. */
  readonly aheadMs?: Readonly<Record<string, number>>;
  readonly node?: Partial<NodeOptions>;
}

/** Runs one seed to its end. Throws when the regions do not converge, or not to what they must. */
export async function simulate(seed: number, troubles: Troubles): Promise<void> {
  const {
    regions = ['a', 'b', 'c'],
    aheadMs = {},
    shares = {},
    late,
    losers = regions,
    steps = 120,
  } = troubles;
  const homeOf = (region: string): string => shares[region] ?? region;
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
  /** What each store held a moment ago. */
  const tails = new Map<string, MemoryDataset>();
  /** Regions that had to begin anew. */
  const dropped: string[] = [];
  /** Headers that a store which doesn't compare them would have overwritten. */
  const overwritten: string[] = [];
  let faulty = troubles.storeFaults === true;
  const fault = (): CommitFault | null => {
    if (!faulty || !random.chance(3)) return null;
    return random.pick<CommitFault>(['refuse', 'lose', 'unknown']);
  };
  const simulation = new Simulation({
    node: {
      logger: {
        ...(process.env.SIMULATE_LOG === undefined ? silentLogger : console),
        error(fields, message) {
          if (process.env.SIMULATE_LOG !== undefined) console.error(fields, message);
          if (message.includes('data is dropped')) dropped.push(JSON.stringify(fields));
        },
      },
      // A region that refuses while it loads has fewer stories to tell.
      whileLoading: seed % 4 === 0 ? 'refuse' : 'serve',
      ...troubles.node,
    },
    regions,
    network,
    timers,
    timersOf,
    random,
    lossy: troubles.lostData === 'ever' || troubles.outcasts === true,
    openStore: (region) => {
      // What was committed before a start is in no node's memory: falling back behind it would lose it for good.
      if (troubles.lostData !== 'ever')
        for (const other of regions) if (homeOf(other) === homeOf(region)) backups.delete(other);
      const options = {
        timers: timersOf(region),
        latencyMs: 1,
        dataset: datasets.get(homeOf(region))!,
        fault,
        random: () => random.below(1000) / 1000,
      };
      const store = new EraStore(options, (message) => overwritten.push(message));
      stores.set(region, store);
      return store;
    },
    regionOf: homeOf,
    readStore: (region) =>
      new MemoryStore({ timers: timersOf(region), dataset: datasets.get(homeOf(region))! }),
  });
  const reviveAll = async (): Promise<void> => {
    for (const region of regions) {
      if (simulation.alive.includes(region) || simulation.isGone(region)) continue;
      await timers.runToEnd(simulation.revive(region));
    }
  };
  const copyOf = (region: string): MemoryDataset => {
    const copy = copyDataset(datasets.get(homeOf(region))!, timersOf(region).now());
    // As every store promises: an older copy that comes back doesn't say that it is clean.
    for (const node of copy.nodes.values()) node.identity = { ...node.identity, clean: false };
    return copy;
  };
  /** A store falls back to an older copy, under a running node or a stopped one. */
  const loseData = async (region: string, copy: MemoryDataset | undefined): Promise<void> => {
    if (copy === undefined || !losers.includes(region)) return;
    const older = copyDataset(copy, timersOf(region).now());
    await timers.runToEnd(simulation.remember(region));
    for (const { identity } of datasets.get(homeOf(region))!.nodes.values()) {
      const others = regions.filter((other) => !losers.includes(other));
      simulation.expectKept(
        identity.replica,
        others.map((other) => datasets.get(other)!.applied.values()),
      );
    }
    datasets.set(homeOf(region), older);
    for (const other of simulation.alive) {
      // One whose own commits are all there isn't told by its connection.
      if (homeOf(other) !== homeOf(region)) continue;
      if (other === region || random.chance(50)) stores.get(other)!.loseData(older);
      else stores.get(other)!.swapData(older);
    }
  };
  for (const region of regions) if (region !== late) await timers.runToEnd(simulation.revive(region));
  const losesPower = troubles.lostData === 'ever';
  for (let step = 0; step < steps; step += 1) {
    if (losesPower) for (const region of losers) tails.set(region, copyOf(region));
    for (let i = random.below(6); i > 0; i -= 1) simulation.operate();
    const event = random.below(40);
    const region = random.pick(regions);
    if (event === 0) network.partition([[region], regions]);
    else if (event === 1) network.cut(region, random.pick(regions), { oneWay: random.chance(50) });
    else if (event <= 3) network.heal();
    else if (event === 4 && troubles.crashes) await timers.runToEnd(simulation.crash(region));
    else if (event === 5 && troubles.crashes) await timers.runToEnd(simulation.shutDown(region));
    else if (event <= 8 && (late === undefined || step > steps * 0.6)) await reviveAll();
    else if (event <= 11 && troubles.trimmedLogs) await timers.runToEnd(simulation.trimLog(region));
    else if (event <= 14 && troubles.lostData !== undefined && simulation.alive.includes(region))
      backups.set(region, copyOf(region));
    else if (event === 15 && troubles.lostData !== undefined) await loseData(region, backups.get(region));
    else if (event === 16 && losesPower) {
      // The machine dies, and what its store had not yet written to disk is gone.
      await timers.runToEnd(simulation.crash(region));
      await loseData(region, tails.get(region));
    } else if (event === 17 && troubles.outcasts) await timers.runToEnd(simulation.castOut(region));
    if (troubles.dies !== undefined && step === Math.floor(steps * 0.6))
      await timers.runToEnd(simulation.end(troubles.dies));
    await timers.advance(random.below(100));
  }
  network.heal();
  faulty = false;
  await reviveAll();
  const converge = async (): Promise<void> => {
    const deadlineMs = timers.now() + 120_000;
    while (!(await timers.runToEnd(simulation.converged()))) {
      if (timers.now() > deadlineMs) {
        const states = simulation.alive.map((region) => JSON.stringify(simulation.node(region).status()));
        const differing = await timers.runToEnd(simulation.differences());
        throw new Error(`not converged 120 s after healing:\n${[...differing, ...states].join('\n')}`);
      }
      await timers.advance(200);
    }
  };
  await converge();
  // Every expiry has come, by all clocks.
  await timers.advance(5_000 + Math.max(0, ...Object.values(aheadMs)));
  // What has expired may just have been swept, by a frame that is on its way; or is while it is checked, which takes time.
  for (;;) {
    await converge();
    const { telling } = simulation;
    try {
      await timers.runToEnd(simulation.check());
      break;
    } catch (error) {
      if (simulation.telling === telling) throw error;
    }
  }
  if (troubles.outcasts !== true && troubles.lostData === undefined && dropped.length > 0)
    throw new Error(`data was dropped without need: ${dropped.join(' ')}`);
  if (troubles.forgets === true) {
    const forgottenMs = timers.now() + 120_000;
    for (let left = 1; left > 0; ) {
      left = await timers.runToEnd(simulation.remains());
      if (left > 0 && timers.now() > forgottenMs) throw new Error(`${left} dead keys are kept for ever`);
      await timers.advance(200);
    }
    await timers.runToEnd(simulation.check());
  }
  await timers.runToEnd(simulation.stop());
  if (overwritten.length > 0) throw new Error(overwritten.join('\n'));
}
