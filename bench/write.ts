/**
 * What does a write cost that merges, against a plain one? One process drives both sides on the same Valkey (appendonly, fsync every
 * second): an embedded node with `register.set`, `counter.increment` and `set.add`, and ioredis with auto-pipelining and SET, INCR and SADD.
 * Both are acknowledged writes: a side's next one begins when an earlier one of its is answered, so many are under way at any time.
 *
 * The wall clock decides; beside it stand the processor times of the node's process (the client included) and of Valkey, per
 * write: they say which of the two is the bottleneck, and they are steadier than the clock on a machine that does other things too.
 */
import { Redis } from 'ioredis';
import { createNode, type MeshNode } from '../src/index.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { type Cost, drive, timed } from './cost.js';
import { type Bench, type BenchOptions, expect, median } from './harness.js';

const BENCH = 'write';
const WRITES = 50_000;
const IN_FLIGHT = 2_000;
const ALONE = 2_000;
const COUNTERS = 1_000;
const SETS = 100;
const BIG_SET = 1_000_000;
const SMALL_SET = 1_000;

/** One way of writing; `turn` numbers the runs, so that each can have keys of its own. */
interface Side {
  readonly name: string;
  readonly write: (turn: number, i: number) => Promise<unknown>;
}

interface Case {
  readonly name: string;
  readonly ours: Side;
  readonly theirs: Side;
  /** Throws unless the server holds what that run of one of the sides must have left. */
  readonly check: (side: Side, turn: number, writes: number) => Promise<void>;
}

const value = (turn: number, i: number): string => `v${turn}:${i}`.padEnd(10, 'x');

function cases(node: MeshNode, plain: Redis): Case[] {
  const named = (name: string, write: Side['write']): Side => ({ name, write });
  const prefix = (side: Side): string => (side.name.includes('.') ? 'm' : 'p');
  const strings = (name: string, key: (turn: number, i: number) => string): Case => ({
    name,
    ours: named('register.set', (turn, i) => node.register(`m${key(turn, i)}`).set(value(turn, i))),
    theirs: named('SET', (turn, i) => plain.set(`p${key(turn, i)}`, value(turn, i))),
    async check(side, turn, writes) {
      for (const i of [0, writes >> 1, writes - 1])
        expect(await plain.get(prefix(side) + key(turn, i)), value(turn, i), `${side.name} ${i}`);
    },
  });
  return [
    strings('strings, new keys', (turn, i) => `n${turn}:${i}`),
    strings('strings, known keys', (_, i) => `k${i}`),
    {
      name: `${COUNTERS} counters`,
      ours: named('counter.increment', (turn, i) => node.counter(`mc${turn}:${i % COUNTERS}`).increment()),
      theirs: named('INCR', (turn, i) => plain.incr(`pc${turn}:${i % COUNTERS}`)),
      async check(side, turn, writes) {
        const each = Math.ceil((writes - 7) / COUNTERS);
        expect(await plain.get(`${prefix(side)}c${turn}:7`), String(each), side.name);
      },
    },
    {
      name: `${SETS} sets, new members`,
      ours: named('set.add', (turn, i) => node.set(`ms${turn}:${i % SETS}`).add(`member:${i}`)),
      theirs: named('SADD', (turn, i) => plain.sadd(`ps${turn}:${i % SETS}`, `member:${i}`)),
      async check(side, turn, writes) {
        const each = Math.ceil((writes - 7) / SETS);
        expect(await plain.scard(`${prefix(side)}s${turn}:7`), each, side.name);
      },
    },
  ];
}

/** Compares the two sides of a case: throughput with many under way, then latency of one at a time. */
async function compareCase(
  { name, ours, theirs, check }: Case,
  admin: Redis,
  { scale, rounds, done }: BenchOptions,
): Promise<void> {
  const writes = Math.max(2_000, Math.round(WRITES * scale));
  const sides = [ours, theirs];
  const costs: Cost[][] = [[], []];
  for (let turn = 0; turn <= rounds; turn += 1) {
    for (const k of turn % 2 === 0 ? [0, 1] : [1, 0]) {
      const side = sides[k]!;
      const cost = await timed(admin, writes, () => drive(writes, IN_FLIGHT, (i) => side.write(turn, i)));
      // The first run warms up, and is checked as the others are.
      await check(side, turn, writes);
      if (turn > 0) costs[k]!.push(cost);
    }
  }
  const ratio = (of: (cost: Cost) => number): number =>
    median(costs[0]!.map((cost, i) => of(cost) / of(costs[1]![i]!)));
  const figures: [string, string, (cost: Cost) => number][] = [
    ['', 'writes/s', ({ seconds }) => writes / seconds],
    [', CPU of the process', 'µs/write', (cost) => cost.process],
    [', CPU of Valkey', 'µs/write', (cost) => cost.server],
  ];
  for (const [what, unit, of] of figures) {
    const label = `${name}, ${IN_FLIGHT} under way`;
    done({
      bench: BENCH,
      case: `${label} | ${ours.name}${what}`,
      value: median(costs[0]!.map(of)),
      unit,
      baseline: theirs.name,
      ratio: ratio(of),
    });
    done({
      bench: BENCH,
      case: `${label} | ${theirs.name}${what}`,
      value: median(costs[1]!.map(of)),
      unit,
      baseline: null,
      ratio: null,
    });
  }
  await compareAlone(name, sides, { scale, rounds, done });
}

async function compareAlone(
  name: string,
  sides: readonly Side[],
  { scale, rounds, done }: Omit<BenchOptions, 'wanted'>,
): Promise<void> {
  const latencies: number[][] = [[], []];
  const writes = Math.max(100, Math.round((ALONE * scale) / rounds));
  for (let turn = 0; turn < rounds; turn += 1) {
    for (const k of [0, 1]) {
      for (let i = 0; i < writes; i += 1) {
        const begun = performance.now();
        await sides[k]!.write(1_000 + turn, i);
        latencies[k]!.push(performance.now() - begun);
      }
    }
  }
  const [ours, theirs] = latencies.map(median) as [number, number];
  const row = (side: Side, what: string, ms: number, ratio: number | null): void =>
    done({
      bench: BENCH,
      case: `${name}, one at a time | ${side.name}${what}`,
      value: ms,
      unit: 'ms',
      baseline: ratio === null ? null : sides[1]!.name,
      ratio,
    });
  row(sides[0]!, ', median latency', ours, ours / theirs);
  row(sides[1]!, ', median latency', theirs, null);
}

/** Adds single members to a big set and to a small one. */
async function compareSets(
  node: MeshNode,
  admin: Redis,
  { scale, rounds, done }: BenchOptions,
): Promise<void> {
  const big = Math.max(10_000, Math.round(BIG_SET * scale));
  const writes = Math.max(500, Math.round((WRITES * scale) / 5));
  const fill = async (key: string, members: number): Promise<void> => {
    for (let i = 0; i < members; i += 1_000)
      await node.set(key).add(...Array.from({ length: Math.min(1_000, members - i) }, (_, j) => `m${i + j}`));
  };
  const add = (key: string, turn: number): Promise<Cost> =>
    timed(admin, writes, () => drive(writes, IN_FLIGHT, (i) => node.set(key).add(`new:${turn}:${i}`)));
  await fill('big', big);
  const rates: [number, number][] = [];
  for (let turn = 0; turn < rounds; turn += 1) {
    await fill(`small${turn}`, SMALL_SET);
    const pair: [number, number] = [0, 0];
    for (const k of turn % 2 === 0 ? [0, 1] : [1, 0])
      pair[k] = writes / (await add(k === 0 ? 'big' : `small${turn}`, turn)).seconds;
    rates.push(pair);
    expect(await admin.scard('big'), big + (turn + 1) * writes, 'members of the big set');
    expect(await admin.scard(`small${turn}`), SMALL_SET + writes, 'members of the small set');
  }
  const small = `a set of ${SMALL_SET} members`;
  const row = (name: string, k: number, baseline: string | null): void =>
    done({
      bench: BENCH,
      case: `adding to ${name}, ${IN_FLIGHT} under way | set.add`,
      value: median(rates.map((pair) => pair[k]!)),
      unit: 'writes/s',
      baseline,
      ratio: baseline === null ? null : median(rates.map((pair) => pair[0] / pair[1])),
    });
  row(`a set of ${big} members`, 0, small);
  row(small, 1, null);
}

export const writeBench: Bench = {
  name: BENCH,
  about: `acknowledged writes of an embedded node against plain ones by ioredis with auto-pipelining; one process, one Valkey,
  appendonly with fsync every second, keys and values of about 10 bytes. The node, its client and its log of frames are in the figures.`,
  packages: ['ioredis'],

  async run(options: BenchOptions): Promise<void> {
    const server = await launchValkey({ appendonly: true, args: ['--appendfsync', 'everysec'] });
    const plain = new Redis(server.url, { enableAutoPipelining: true });
    const admin = new Redis(server.url);
    const node = await createNode({ region: 'bench', listen: [], store: server.url });
    try {
      for (const each of cases(node, plain))
        if (options.wanted(each.name)) await compareCase(each, admin, options);
      if (options.wanted('adding to a set')) await compareSets(node, admin, options);
    } finally {
      plain.disconnect();
      admin.disconnect();
      await node.stop();
      await server.stop();
    }
  },
};
