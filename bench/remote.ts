/**
 * How fast does a region apply what another one wrote? The same writes twice, each on a Valkey of its own (appendonly, fsync every
 * second): acknowledged by an embedded node, as in write.ts; then the frames that this made, read from its log, decoded and merged by a replica
 * that has not seen them. Beside the rates stand the processor times per write. What isn't in the figures is libp2p, with its signatures.
 */
import { Redis } from 'ioredis';
import { createNode, type MeshNode } from '../src/index.js';
import { decodeFrame } from '../src/replica/frame.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { type Cost, drive, timed } from './cost.js';
import { type Bench, type BenchOptions, expect, median } from './harness.js';
import { Region } from './region.js';

const BENCH = 'remote';
const WRITES = 100_000;
const IN_FLIGHT = 2_000;
const MAX_VALUE_BYTES = 1 << 20;
/** Frames that are merged at once: what a broadcast in time, or a gap that was filled, brings. */
const FRAMES_AT_ONCE = 4;

interface Case {
  readonly name: string;
  readonly write: (node: MeshNode, turn: number, i: number) => Promise<unknown>;
}

const CASES: readonly Case[] = [
  {
    name: 'strings, new keys',
    write: (node, turn, i) => node.register(`n${turn}:${i}`).set(`v${i}`.padEnd(10, 'x')),
  },
  {
    name: 'strings, known keys',
    write: (node, turn, i) => node.register(`k${i % 10_000}`).set(`${turn}${i}`.padEnd(10, 'x')),
  },
  { name: '1000 counters', write: (node, _, i) => node.counter(`c${i % 1_000}`).increment() },
  {
    name: '100 sets, new members',
    write: (node, turn, i) => node.set(`s${turn}:${i % 100}`).add(`member:${i}`),
  },
];

/** Frames that a node has logged since the last call. */
async function framesSince(log: ValkeyStore, replica: string, from: number): Promise<Uint8Array[]> {
  const frames: Uint8Array[] = [];
  for (;;) {
    const some = await log.readFrames(replica, from + frames.length, 1 << 20);
    if (some.length === 0) return frames;
    for (const { bytes } of some) frames.push(bytes);
  }
}

async function apply(region: Region, frames: readonly Uint8Array[]): Promise<void> {
  const merged: Promise<void>[] = [];
  for (let i = 0; i < frames.length; i += FRAMES_AT_ONCE) {
    const some = frames.slice(i, i + FRAMES_AT_ONCE).map((bytes) => decodeFrame(bytes, MAX_VALUE_BYTES));
    const done = new Promise<void>((resolve, reject) => {
      region.replica.merge({
        frames: some,
        states: [],
        marks: [],
        done: (error) => (error === null ? resolve() : reject(error)),
      });
    });
    merged.push(done);
    // As causal delivery would: not all at once, and never nothing to do.
    if (merged.length >= 4) await merged[merged.length - 4];
  }
  await Promise.all(merged);
}

async function compareCase(
  { name, write }: Case,
  servers: readonly [LaunchedValkey, LaunchedValkey],
  { scale, rounds, done }: BenchOptions,
): Promise<void> {
  const writes = Math.max(2_000, Math.round(WRITES * scale));
  const [near, far] = servers.map(({ url }) => new Redis(url)) as [Redis, Redis];
  await Promise.all([near.flushall('SYNC'), far.flushall('SYNC')]);
  const node = await createNode({ region: 'near', listen: [], store: servers[0].url });
  const log = new ValkeyStore(servers[0].url);
  await log.open();
  const region = await Region.open('far.1', new ValkeyStore(servers[1].url));
  const local: Cost[] = [];
  const remote: Cost[] = [];
  try {
    let read = 1;
    for (let turn = 0; turn <= rounds; turn += 1) {
      const wrote = await timed(near, writes, () => drive(writes, IN_FLIGHT, (i) => write(node, turn, i)));
      const frames = await framesSince(log, node.status().replica, read);
      read += frames.length;
      const applied = await timed(far, writes, () => apply(region, frames));
      expect(await region.store.count(), await log.count(), 'keys');
      // The first turn warms up.
      if (turn === 0) continue;
      local.push(wrote);
      remote.push(applied);
    }
  } finally {
    near.disconnect();
    far.disconnect();
    await Promise.all([node.stop(), log.close(), region.store.close()]);
  }
  const ratio = (of: (cost: Cost) => number): number =>
    median(remote.map((cost, i) => of(cost) / of(local[i]!)));
  const figures: [string, string, (cost: Cost) => number][] = [
    ['', 'writes/s', ({ seconds }) => writes / seconds],
    [', CPU of the process', 'µs/write', (cost) => cost.process],
    [', CPU of Valkey', 'µs/write', (cost) => cost.server],
  ];
  for (const [what, unit, of] of figures) {
    done({
      bench: BENCH,
      case: `${name} | applied from frames${what}`,
      value: median(remote.map(of)),
      unit,
      baseline: 'acknowledged here',
      ratio: ratio(of),
    });
    done({
      bench: BENCH,
      case: `${name} | acknowledged here${what}`,
      value: median(local.map(of)),
      unit,
      baseline: null,
      ratio: null,
    });
  }
  // With all regions alike, each of three accepts w writes a second and applies 2 w.
  const seconds = local.map((cost, i) => cost.seconds + 2 * remote[i]!.seconds);
  done({
    bench: BENCH,
    case: `${name} | sustained in each of three such regions`,
    value: median(seconds.map((sum) => writes / sum)),
    unit: 'writes/s',
    baseline: null,
    ratio: null,
  });
}

export const remoteBench: Bench = {
  name: BENCH,
  about: `how fast a region applies another one's frames, against how fast a node acknowledges the same writes; one process at a time, a Valkey
  for each, appendonly with fsync every second, ${IN_FLIGHT} writes under way. Without libp2p. The last row of a case says what three regions that all take
  writes can keep up with, each on a core of its own.`,
  packages: ['ioredis'],

  async run(options: BenchOptions): Promise<void> {
    const settings = { appendonly: true, args: ['--appendfsync', 'everysec'] };
    const servers = await Promise.all([launchValkey(settings), launchValkey(settings)]);
    try {
      for (const each of CASES) if (options.wanted(each.name)) await compareCase(each, servers, options);
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  },
};
