/** How many bytes does a state transfer take when little differs? Both directions counted, on both stores, against a transfer of everything. */
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import { MemoryStore } from '../src/store/memory.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { toPieces } from '../src/sync/pieces.js';
import { giveState } from '../src/sync/state-giver.js';
import { pullState, totalDigest } from '../src/sync/state-transfer.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import type { Bench, BenchOptions } from './harness.js';
import { Region } from './region.js';

const BIG_SET_MEMBERS = 1024;

/** Transfers what `to` lacks; gives bytes both ways and requests. Throws unless both hold the same then. */
async function transfer(from: Region, to: Region): Promise<{ bytes: number; requests: number }> {
  let [total, requests] = [0, 0];
  const giver = {
    store: from.store,
    marks: () => from.replica.applied.values(),
    token: 't',
    bigSetMembers: BIG_SET_MEMBERS,
  };
  const mesh = new LoopbackNetwork().mesh('to');
  mesh.request = async function* (_peer, _protocol, body) {
    requests += 1;
    total += body.length;
    for await (const piece of toPieces(giveState(giver, body))) {
      total += piece.length;
      yield piece;
    }
  };
  await pullState({
    mesh,
    peer: 'from',
    store: to.store,
    maxValueBytes: 1 << 20,
    isAhead: () => false,
    merge: (item) => to.replica.merge(item),
    signal: new AbortController().signal,
  });
  if (totalDigest(await from.store.digests()) !== totalDigest(await to.store.digests()))
    throw new Error('the two regions differ after the transfer');
  return { bytes: total, requests };
}

async function measure(
  name: string,
  [from, to, other]: readonly [Region, Region, Region],
  { scale, done }: BenchOptions,
): Promise<void> {
  const row = (what: string, value: number, unit: string, whole: number | null): void =>
    done({
      bench: 'transfer',
      case: `${name}: ${what}`,
      value,
      unit,
      baseline: whole === null ? null : 'everything',
      ratio: whole === null ? null : value / whole,
    });
  const keys = Math.round(100_000 * scale);
  for (let at = 0; at < keys; at += 1000)
    await Promise.all(
      Array.from({ length: Math.min(1000, keys - at) }, (_, i) =>
        from.set(`key:${at + i}`, `value ${at + i}`),
      ),
    );
  const began = performance.now();
  const full = await transfer(from, to);
  row(`all of ${keys} keys`, full.bytes, 'bytes', null);
  row(`all of ${keys} keys`, Math.round(performance.now() - began), 'ms', null);
  for (const share of [0.001, 0.01]) {
    for (let i = 0; i < keys * share; i += 1) await from.set(`key:${(i * 7919) % keys}`, `new ${share} ${i}`);
    const start = performance.now();
    const some = await transfer(from, to);
    row(`${share * 100} % of ${keys} keys, ${some.requests} requests`, some.bytes, 'bytes', full.bytes);
    row(`${share * 100} % of ${keys} keys`, Math.round(performance.now() - start), 'ms', null);
  }
  const members = Math.round(100_000 * scale);
  await transfer(from, other);
  for (let at = 0; at < members; at += 1000)
    await from.change(
      's',
      Array.from({ length: Math.min(1000, members - at) }, (_, i) => `member ${at + i}`),
      true,
    );
  const whole = await transfer(from, other);
  row(`a set of ${members} members, among the keys`, whole.bytes, 'bytes', null);
  const none = await transfer(from, other);
  row('nothing differs', none.bytes, 'bytes', full.bytes);
  for (let i = 0; i < 5; i += 1) {
    await from.change('s', [`new ${i}`], true);
    await from.change('s', [`member ${(i * 20_011) % members}`], false);
  }
  const start = performance.now();
  const some = await transfer(from, other);
  row(`10 of its members, ${some.requests} requests`, some.bytes, 'bytes', whole.bytes);
  row('10 of its members', Math.round(performance.now() - start), 'ms', null);
}

export const transferBench: Bench = {
  name: 'transfer',
  about:
    'bytes of a state transfer, requests and answers, when some keys or members differ; the ratio is to a transfer of everything',
  packages: ['msgpackr'],
  async run(options) {
    const ids = ['from.1', 'to.1', 'other.1'] as const;
    const memory = await Promise.all(ids.map((id) => Region.open(id, new MemoryStore())));
    await measure('memory', memory as [Region, Region, Region], options);
    const servers = await Promise.all(ids.map(() => launchValkey()));
    try {
      const stores = servers.map(({ url }) => new ValkeyStore(url));
      const regions = await Promise.all(ids.map((id, i) => Region.open(id, stores[i]!)));
      await measure('valkey', regions as [Region, Region, Region], options);
      for (const store of stores) await store.close();
    } finally {
      for (const server of servers) await server.stop();
    }
  },
};
