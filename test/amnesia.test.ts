/**
 * Real Valkeys that forget what they had acknowledged, while all regions write: the end of an append-only file is cut off after
 * kill -9, an older data folder is put back, an older copy is loaded into the running server; under a running node and
 * under one that is down. The network is simulated, so that every frame is seen: no number, and no dot, may be used twice.
 */
import assert from 'node:assert/strict';
import { cp, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
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
const DEADLINE = { deadlineMs: 60_000 };

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

/** Three regions that write all the time. */
class World {
  readonly random: Random;
  readonly network: LoopbackNetwork;
  readonly simulation: Simulation;
  readonly servers: ReadonlyMap<string, LaunchedValkey>;
  #writing: NodeJS.Timeout | null = null;

  private constructor(seed: number, servers: ReadonlyMap<string, LaunchedValkey>, lossy: boolean) {
    this.random = new Random(seed);
    this.servers = servers;
    const draw = (): number => this.random.below(1_000_000) / 1_000_000;
    this.network = new LoopbackNetwork({ random: draw, latencyMs: [0, 4], loss: 0.1, reordering: 0.2 });
    const store = (region: string): Store =>
      openStore(servers.get(region)!.url, { timers: systemTimers, random: draw, logger: silentLogger });
    this.simulation = new Simulation({
      regions: REGIONS,
      network: this.network,
      timers: systemTimers,
      random: this.random,
      lossy,
      openStore: store,
      readStore: store,
      drawTtlMs: (from) => 600_000 + from.below(1_000),
      node: { heartbeatMs: 50, antiEntropyMs: 1_000 },
    });
  }

  /** @param lossy frames that only the damaged region had may be gone: its node is down when it happens */
  static async start(seed: number, lossy: boolean): Promise<World> {
    const launched = await Promise.all(
      REGIONS.map(() => launchValkey({ appendonly: true, args: ['--appendfsync', 'everysec'] })),
    );
    const world = new World(seed, new Map(REGIONS.map((region, at) => [region, launched[at]!])), lossy);
    cleanups.push(async () => {
      world.rest();
      await world.simulation.stop();
      await Promise.all(launched.map((server) => server.stop()));
    });
    await world.simulation.start();
    world.write();
    return world;
  }

  write(): void {
    this.#writing ??= setInterval(() => this.simulation.operate(), 3);
  }

  rest(): void {
    if (this.#writing !== null) clearInterval(this.#writing);
    this.#writing = null;
  }

  get a(): LaunchedValkey {
    return this.servers.get('a')!;
  }

  replica(): string {
    return this.simulation.node('a').status().replica;
  }

  /** Waits until region a has made some frames more. */
  async frames(count: number): Promise<void> {
    const status = () => this.simulation.node('a').status();
    const [{ replica }, wanted] = [status(), status().frames.own + count];
    await waitFor(() => status().replica !== replica || status().frames.own >= wanted, DEADLINE);
  }

  /** Waits until region a's node serves under another id. */
  async newEpoch(before: string): Promise<void> {
    await waitFor(() => this.replica() !== before && this.simulation.node('a').status().state === 'ready', {
      ...DEADLINE,
      what: 'a new epoch begins',
    });
  }

  /** What b and c have applied of a's frames must stay. */
  async expectKept(replica: string): Promise<void> {
    for (const region of ['b', 'c']) {
      const store = openStore(this.servers.get(region)!.url, {
        timers: systemTimers,
        random: Math.random,
        logger: silentLogger,
      });
      this.simulation.expectKept(replica, [(await store.open()).applied]);
      await store.close();
    }
  }

  /** Ends the writing, and checks that all regions end alike, with what they must have. */
  async finish(): Promise<void> {
    await this.frames(20);
    this.rest();
    await waitFor(() => this.simulation.converged(), { ...DEADLINE, what: 'the regions are equal' });
    await this.simulation.check();
  }
}

async function aofOf({ dir }: LaunchedValkey): Promise<string> {
  const folder = join(dir, 'appendonlydir');
  const name = (await readdir(folder)).filter((file) => file.endsWith('.incr.aof')).sort();
  return join(folder, name.at(-1)!);
}

async function sizeOf(path: string): Promise<number> {
  const file = await open(path, 'r+');
  const { size } = await file.stat();
  await file.close();
  return size;
}

/** Cuts off a part of what was appended since the file had a size, in the middle of a command. */
async function cutTail(path: string, since: number): Promise<void> {
  const file = await open(path, 'r+');
  const { size } = await file.stat();
  assert.ok(size > since + 300, 'there is something to lose');
  await file.truncate(since + Math.floor((size - since) / 3));
  await file.close();
}

/** Copies a server's data folder; it must not run. */
async function backUp({ dir }: LaunchedValkey): Promise<string> {
  const backup = await mkdtemp(join(tmpdir(), 'valkey-mesh-amnesia-'));
  cleanups.push(() => rm(backup, { recursive: true, force: true }));
  await cp(dir, backup, { recursive: true });
  return backup;
}

async function putBack({ dir }: LaunchedValkey, backup: string): Promise<void> {
  for (const name of await readdir(dir)) await rm(join(dir, name), { recursive: true });
  await cp(backup, dir, { recursive: true });
}

/** Makes a server take over what another one has, as a replica does, and go on by itself. */
async function takeOver(server: LaunchedValkey, from: LaunchedValkey): Promise<void> {
  const client = new Redis(server.url);
  await client.call('REPLICAOF', '127.0.0.1', String(from.port));
  await waitFor(async () => /master_link_status:up/.test(await client.info('replication')), DEADLINE);
  await client.call('REPLICAOF', 'NO', 'ONE');
  client.disconnect();
}

test('under a running node, an append-only file that lost its end costs nothing that was acknowledged', async () => {
  const world = await World.start(1, false);
  await world.frames(30);
  const before = world.replica();
  const size = await sizeOf(await aofOf(world.a));
  await world.frames(60);
  await world.simulation.remember('a');
  await world.a.kill('SIGKILL');
  await cutTail(await aofOf(world.a), size);
  await world.a.restart();
  await world.newEpoch(before);
  await world.finish();
});

test('under a node that is down, what any other region had of the lost end is back, and no number comes twice', async () => {
  const world = await World.start(2, true);
  await world.frames(30);
  const before = world.replica();
  const size = await sizeOf(await aofOf(world.a));
  await world.frames(60);
  await world.simulation.crash('a');
  await world.a.kill('SIGKILL');
  await cutTail(await aofOf(world.a), size);
  await world.expectKept(before);
  await world.a.restart();
  await world.simulation.revive('a');
  assert.notEqual(world.replica(), before);
  await world.finish();
});

test('under a running node, an older data folder costs nothing that was acknowledged', async () => {
  const world = await World.start(3, false);
  await world.frames(30);
  await world.simulation.remember('a');
  await world.a.kill('SIGKILL');
  const backup = await backUp(world.a);
  await world.a.restart();
  await waitFor(() => world.simulation.node('a').status().state === 'ready', DEADLINE);
  const before = world.replica();
  await world.frames(60);
  await world.simulation.remember('a');
  await world.a.kill('SIGKILL');
  await putBack(world.a, backup);
  await world.a.restart();
  await world.newEpoch(before);
  await world.finish();
});

test('under a node that is down, an older folder that says it was shut down cleanly is not believed', async () => {
  const world = await World.start(4, true);
  await world.frames(30);
  await world.simulation.shutDown('a');
  await world.a.kill('SIGTERM');
  const backup = await backUp(world.a);
  await world.a.restart();
  await world.simulation.revive('a');
  const before = world.replica();
  await world.frames(60);
  await world.simulation.shutDown('a');
  await world.a.kill('SIGTERM');
  await world.expectKept(before);
  await putBack(world.a, backup);
  await world.a.restart();
  await world.simulation.revive('a');
  assert.notEqual(world.replica(), before);
  await world.finish();
});

test('an older copy in the same running server is found out: under a node that is down by the others, under a running one by itself', async () => {
  const world = await World.start(5, false);
  const copy = await launchValkey();
  cleanups.push(() => copy.stop());
  await world.frames(30);
  await world.simulation.shutDown('a');
  await takeOver(copy, world.a);
  // The mark in the copy names this very server.
  await world.simulation.revive('a');
  const first = world.replica();
  await world.frames(60);
  world.rest();
  await waitFor(() => world.simulation.converged(), { ...DEADLINE, what: 'nothing is known to a alone' });
  await world.simulation.shutDown('a');
  await takeOver(world.a, copy);
  await world.simulation.revive('a');
  const second = world.replica();
  assert.notEqual(second, first);
  world.write();
  await world.frames(20);
  await world.simulation.remember('a');
  // Nothing is written there meanwhile: the node has to look by itself.
  world.rest();
  await takeOver(world.a, copy);
  await world.newEpoch(second);
  world.write();
  await world.finish();
});
