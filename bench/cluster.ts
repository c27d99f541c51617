/**
 * What does a write cost on a Valkey Cluster of three servers? One process drives an embedded node with `register.set` and
 * `counter.increment`, and ioredis's cluster client with auto-pipelining and SET and INCR, many under way at any time. Batches of the node touch all
 * three servers, so each is prepared and then written (src/store/cluster-commit.ts).
 */
import type { Cluster } from 'ioredis';
import { createNode } from '../src/index.js';
import { ValkeyCluster } from '../test/support/cluster.js';
import { type Bench, type BenchOptions, expect, median } from './harness.js';

const BENCH = 'cluster';
const WRITES = 50_000;
const IN_FLIGHT = 2_000;
const COUNTERS = 1_000;

interface Side {
  readonly name: string;
  readonly write: (turn: number, i: number) => Promise<unknown>;
  readonly check: (turn: number, writes: number) => Promise<void>;
}

/** Writes per second. */
async function rate(side: Side, turn: number, writes: number): Promise<number> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < writes) await side.write(turn, next++);
  };
  const begun = performance.now();
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, writes) }, worker));
  const seconds = (performance.now() - begun) / 1000;
  await side.check(turn, writes);
  return writes / seconds;
}

/** The first run of each side warms up; then they take turns. */
async function comparePair(what: string, sides: readonly [Side, Side], options: BenchOptions): Promise<void> {
  const { scale, rounds, wanted, done } = options;
  if (!wanted(what)) return;
  const writes = Math.max(2_000, Math.round(WRITES * scale));
  const rates: [number, number][] = [];
  for (let turn = 0; turn <= rounds; turn += 1) {
    const pair: [number, number] = [0, 0];
    for (const k of turn % 2 === 0 ? [0, 1] : [1, 0]) pair[k] = await rate(sides[k]!, turn, writes);
    if (turn > 0) rates.push(pair);
  }
  for (const k of [0, 1])
    done({
      bench: BENCH,
      case: `${what}, ${IN_FLIGHT} under way | ${sides[k]!.name}`,
      value: median(rates.map((pair) => pair[k]!)),
      unit: 'writes/s',
      baseline: k === 0 ? sides[1].name : null,
      ratio: k === 0 ? median(rates.map(([ours, theirs]) => ours / theirs)) : null,
    });
}

const value = (turn: number, i: number): string => `v${turn}:${i}`.padEnd(10, 'x');

const stringsIn =
  (plain: Cluster, prefix: string): Side['check'] =>
  async (turn, writes) => {
    for (const i of [0, writes >> 1, writes - 1])
      expect(await plain.get(`${prefix}${turn}:${i}`), value(turn, i), `${prefix} ${i}`);
  };

const countersIn =
  (plain: Cluster, prefix: string): Side['check'] =>
  async (turn, writes) =>
    expect(await plain.get(`${prefix}${turn}:7`), String(Math.ceil((writes - 7) / COUNTERS)), prefix);

export const clusterBench: Bench = {
  name: BENCH,
  about: `acknowledged writes of an embedded node on a Valkey Cluster of three servers against plain ones by ioredis's cluster client with
  auto-pipelining; one process, appendonly with fsync every second, keys and values of about 10 bytes.`,
  packages: ['ioredis'],

  async run(options: BenchOptions): Promise<void> {
    const cluster = await ValkeyCluster.start({ args: ['--appendfsync', 'everysec'] });
    const plain = cluster.client(true);
    const node = await createNode({ region: 'bench', listen: [], store: cluster.url });
    try {
      await comparePair(
        'strings, new keys',
        [
          {
            name: 'register.set',
            write: (turn, i) => node.register(`m${turn}:${i}`).set(value(turn, i)),
            check: stringsIn(plain, 'm'),
          },
          {
            name: 'SET',
            write: (turn, i) => plain.set(`p${turn}:${i}`, value(turn, i)),
            check: stringsIn(plain, 'p'),
          },
        ],
        options,
      );
      await comparePair(
        `${COUNTERS} counters`,
        [
          {
            name: 'counter.increment',
            write: (turn, i) => node.counter(`mc${turn}:${i % COUNTERS}`).increment(),
            check: countersIn(plain, 'mc'),
          },
          {
            name: 'INCR',
            write: (turn, i) => plain.incr(`pc${turn}:${i % COUNTERS}`),
            check: countersIn(plain, 'pc'),
          },
        ],
        options,
      );
    } finally {
      plain.disconnect();
      await node.stop();
      await cluster.stop();
    }
  },
};
