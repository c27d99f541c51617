/**
 * A link that is cut for longer than the others remember frames: then the log serves, and where that is trimmed too, whole
 * states do. Real libp2p between real Valkeys; in one process, because only the embed API can make the caches this small.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { LatencyProxy } from '../src/demo/latency-proxy.js';
import { createIdentity } from '../src/mesh/identity.js';
import { createNode, type MeshNode } from '../src/node.js';
import { type Logger, type NodeOptions, silentLogger } from '../src/options.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 30_000;

const valkeys: LaunchedValkey[] = [];
before(async () => {
  valkeys.push(...(await Promise.all([launchValkey(), launchValkey()])));
});
after(() => Promise.all(valkeys.map((valkey) => valkey.stop())));

const running: { stop(): unknown }[] = [];
afterEach(async () => {
  for (const each of running.splice(0).reverse()) await each.stop();
});

interface Pair {
  readonly a: MeshNode;
  readonly b: MeshNode;
  readonly link: LatencyProxy;
  /** State transfers that b has merged. */
  readonly transfers: () => number;
}

/** Two nodes on empty Valkeys, of which only b dials, through a link that can be cut. */
async function pair(caches: Partial<NodeOptions>): Promise<Pair> {
  let transfers = 0;
  const logger: Logger = {
    ...silentLogger,
    info: (_, message) => {
      if (message === 'merged the state of a peer') transfers += 1;
    },
  };
  for (const { url } of valkeys) {
    const client = new Redis(url);
    await client.flushall();
    client.disconnect();
  }
  const link = await LatencyProxy.listen(1);
  running.push(link);
  const options = { heartbeatMs: 100, antiEntropyMs: 3_600_000, ...caches };
  const identity = createIdentity();
  const a = await createNode({ ...options, region: 'a', store: valkeys[0]!.url, identity: identity.bytes });
  running.push(a);
  const port = Number(/tcp\/(\d+)/.exec(a.addresses()[0]!)![1]);
  link.forwardTo({ host: '127.0.0.1', port });
  const peers = [`/ip4/127.0.0.1/tcp/${link.port}/p2p/${identity.peerId}`];
  const b = await createNode({ ...options, region: 'b', store: valkeys[1]!.url, listen: [], peers, logger });
  running.push(b);
  await waitFor(() => [a, b].every((node) => node.status().peers.some(({ connected }) => connected)), {
    what: 'they are connected',
  });
  await b.whenReady();
  return { a, b, link, transfers: () => transfers };
}

/** Writes on both sides of the cut; about 4 KiB to a frame. */
async function writeApart({ a, b, link }: Pair, frames: number): Promise<void> {
  await a.counter('count').increment(1);
  assert.equal(await a.waitFor(1), 1);
  link.cut();
  for (let i = 0; i < frames; i += 1) {
    await a.register(`text ${i % 50}`).set(`${i} `.padEnd(4096, 'x'));
    await a.counter('count').increment(1);
    if (i % 10 === 0) await b.counter('count').increment(1000);
    if (i % 10 === 5) await a.del(`text ${i % 50}`);
  }
  await a.set('set').add('a');
  await b.set('set').add('b');
  link.heal();
}

async function assertEqual({ a, b }: Pair, frames: number): Promise<void> {
  await waitFor(async () => (await a.digest()) === (await b.digest()), {
    deadlineMs: DEADLINE_MS,
    what: 'equal digests',
  });
  for (const node of [a, b]) {
    assert.equal(await node.counter('count').value(), BigInt(1 + frames + (frames / 10) * 1000));
    const members: string[] = [];
    for await (const member of node.set('set')) members.push(member);
    assert.deepEqual(members.sort(), ['a', 'b']);
    assert.equal(await node.register('text 5').get(), null);
    assert.match((await node.register('text 49').get())!, new RegExp(`^${frames - 1} x+$`));
  }
  // Frames that come after a repair go through as before.
  await a.register('after').set('a');
  await waitFor(async () => (await b.register('after').get()) === 'a', { deadlineMs: DEADLINE_MS });
}

describe('A link that is cut', () => {
  it('for longer than the memory of recent frames is repaired from the log', async () => {
    const two = await pair({ recentFramesBytes: 0 });
    await writeApart(two, 100);
    await assertEqual(two, 100);
    assert.equal(two.transfers(), 0);
    assert(two.b.status().frames.repaired > 100, JSON.stringify(two.b.status().frames));
  });

  it('for longer than the log too is repaired with whole states', async () => {
    const two = await pair({ recentFramesBytes: 0, maxLogBytes: 65_536 });
    await writeApart(two, 100);
    await assertEqual(two, 100);
    assert(two.transfers() > 0);
  });

  it('while frames come faster than can be held back loses none of them', async () => {
    const two = await pair({ heldBackBytes: 65_536 });
    await writeApart(two, 100);
    await assertEqual(two, 100);
  });

  it('again and again while both write ends equal', async () => {
    const { a, b, link } = await pair({ recentFramesBytes: 65_536, maxLogBytes: 65_536 });
    let written = 0;
    for (let round = 0; round < 10; round += 1) {
      if (round % 2 === 0) link.cut();
      else link.heal();
      for (let i = 0; i < 30; i += 1) {
        await Promise.all([
          a.register(`text ${i}`).set(`a ${round}`.padEnd(2048, 'x')),
          a.counter('count').increment(1),
          b.counter('count').increment(1),
          b.set('set').add(`${round} ${i}`),
        ]);
        written += 2;
      }
    }
    link.heal();
    await waitFor(async () => (await b.counter('count').value()) === BigInt(written), {
      deadlineMs: DEADLINE_MS,
      what: 'all increments',
    });
    await waitFor(async () => (await a.digest()) === (await b.digest()), {
      deadlineMs: DEADLINE_MS,
      what: 'equal digests',
    });
    assert.equal(await a.counter('count').value(), BigInt(written));
    assert.equal(await a.set('set').size(), 300);
  });
});
