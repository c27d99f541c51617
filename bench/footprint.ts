/**
 * What does a key cost in memory, with all that makes it mergeable? The same data in two Valkeys, written plainly and through a node:
 * strings, counters, and sets of many sizes. Beside the bytes in Valkey (`used_memory`, without the log of frames, which is bounded and has
 * a row of its own) stands what the node's own process keeps for a key in its cache.
 */
import { Redis } from 'ioredis';
import { createNode, type MeshNode } from '../src/index.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { drive } from './cost.js';
import { type Bench, type BenchOptions, expect } from './harness.js';

const BENCH = 'footprint';
const KEYS = 1_000_000;
const MEMBERS = 1_000_000;
const CARDINALITIES = [10, 100, 1_000, 10_000, 100_000] as const;
const IN_FLIGHT = 2_000;
/** Members that one SADD adds. */
const AT_ONCE = 1_000;
/** What a node keeps in memory at most, in keys (replica.ts). */
const CACHED_KEYS = 100_000;
/** A larger set isn't kept (key-cache.ts). */
const CACHED_MEMBERS = 4_096;

const padded = (prefix: string, i: number, length: number): string =>
  prefix + String(i).padStart(length - prefix.length, '0');
const keyOf = (i: number): string => padded('k', i, 10);
const memberOf = (i: number): string => padded('m', i, 16);

interface Case {
  readonly name: string;
  /** What bytes are told for: `writes` of them, of which a write makes `each`. */
  readonly per: 'key' | 'member';
  readonly writes: number;
  readonly each: number;
  readonly keys: number;
  /** Says whether the node keeps such keys in memory. */
  readonly cached: boolean;
  readonly plain: (redis: Redis, i: number) => Promise<unknown>;
  readonly ours: (node: MeshNode, i: number) => Promise<unknown>;
}

function cases(scale: number): Case[] {
  const keys = Math.max(1_000, Math.round(KEYS * scale));
  const strings = {
    per: 'key',
    writes: keys,
    each: 1,
    keys,
    cached: true,
  } as const;
  const sets = (cardinality: number, total: number): Case => {
    const count = Math.max(1, Math.round(total / cardinality));
    const each = Math.min(AT_ONCE, cardinality);
    const steps = Math.ceil(cardinality / each);
    const named = (i: number): [string, string[]] => {
      const first = (i % steps) * each;
      const length = Math.min(each, cardinality - first);
      return [keyOf(Math.floor(i / steps)), Array.from({ length }, (_, j) => memberOf(first + j))];
    };
    return {
      name: `${count} set${count === 1 ? '' : 's'} of ${cardinality} members of 16 bytes`,
      per: 'member',
      writes: count * steps,
      each: cardinality / steps,
      keys: count,
      cached: cardinality <= CACHED_MEMBERS,
      plain(redis, i) {
        const [key, members] = named(i);
        return redis.sadd(key, ...members);
      },
      ours(node, i) {
        const [key, members] = named(i);
        return node.set(key).add(...members);
      },
    };
  };
  const members = Math.max(1_000, Math.round(MEMBERS * scale));
  return [
    {
      ...strings,
      name: `${keys} strings, keys and values of 10 bytes`,
      plain: (redis, i) => redis.set(keyOf(i), keyOf(i)),
      ours: (node, i) => node.register(keyOf(i)).set(keyOf(i)),
    },
    {
      ...strings,
      name: `${keys} counters, keys of 10 bytes`,
      plain: (redis, i) => redis.incr(keyOf(i)),
      ours: (node, i) => node.counter(keyOf(i)).increment(),
    },
    ...CARDINALITIES.filter((cardinality) => cardinality * 5 <= members).map((cardinality) =>
      sets(cardinality, members / 5),
    ),
    sets(members, members),
  ];
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}

/** Bytes of the frames that nodes have logged. */
async function logBytes(redis: Redis): Promise<number> {
  let sum = 0;
  for (const name of await redis.keys('__mesh:*log*'))
    sum += Number(await redis.call('MEMORY', 'USAGE', name, 'SAMPLES', '0'));
  return sum;
}

async function heapBytes(): Promise<number> {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

async function measure(each: Case, { done }: BenchOptions): Promise<void> {
  const servers = await Promise.all([launchValkey(), launchValkey()]);
  const clients = servers.map(({ url }) => new Redis(url, { enableAutoPipelining: true })) as [Redis, Redis];
  const [plain, beside] = clients;
  const units = each.writes * each.each;
  try {
    const empty = [await usedMemory(plain), await usedMemory(beside)] as const;
    await drive(each.writes, IN_FLIGHT, (i) => each.plain(plain, i));
    const theirs = (await usedMemory(plain)) - empty[0];
    const node = await createNode({ region: 'bench', listen: [], store: servers[1].url });
    try {
      const heap = await heapBytes();
      await drive(each.writes, Math.min(IN_FLIGHT, Math.max(2, IN_FLIGHT / each.each)), (i) =>
        each.ours(node, i),
      );
      const cached = (await heapBytes()) - heap;
      const log = await logBytes(beside);
      const ours = (await usedMemory(beside)) - empty[1] - log;
      expect(await plain.dbsize(), each.keys, `${each.name}: keys`);
      const last = keyOf(each.keys - 1);
      const dump = async (redis: Redis): Promise<number | string | null> =>
        each.per === 'member' ? redis.scard(last) : redis.get(last);
      expect(await dump(beside), await dump(plain), `${each.name}: the last key`);
      const row = (what: string, value: number, ratio: number | null, per: string = each.per): void =>
        done({
          bench: BENCH,
          case: `${each.name} | ${what}`,
          value,
          unit: `bytes/${per}`,
          baseline: ratio === null ? null : 'Valkey alone',
          ratio,
        });
      row('valkey-mesh', ours / units, ours / theirs);
      row('Valkey alone', theirs / units, null);
      row('log of frames', log / units, null);
      if (each.cached) {
        const kept = Math.min(each.keys, CACHED_KEYS);
        row('heap of the node, of a cached key', Math.max(0, cached) / kept, null, 'key');
      }
    } finally {
      await node.stop();
    }
  } finally {
    for (const client of clients) client.disconnect();
    await Promise.all(servers.map((server) => server.stop()));
  }
}

export const footprintBench: Bench = {
  name: BENCH,
  about: `bytes in Valkey for data that a node has written, against the same data written plainly; each case on servers of its own, without
  persistence. The log of frames is left out: it ends at 64 MiB by default, and is dropped once all members have it. Sets of more than 4,096
  members are not kept in the node.`,
  packages: ['ioredis'],

  async run(options: BenchOptions): Promise<void> {
    for (const each of cases(options.scale)) if (options.wanted(each.name)) await measure(each, options);
  },
};
