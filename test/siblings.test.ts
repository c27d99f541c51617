/** Two nodes on one real Valkey, with another region: what clients of either see, and what is left when one of them, or the Valkey, dies. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import { createNode, type MeshNode } from '../src/node.js';
import { systemTimers } from '../src/timers.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;
/** Of a peer. */
const HEARTBEAT_MS = 1000;

describe('Two peers on one Valkey', () => {
  let regions: Regions;
  let one: Region;
  let two: Region;
  let far: Region;

  before(async () => {
    regions = await Regions.start({ shares: { 1: 0 }, valkeyArgs: ['--appendfsync', 'always'] });
    [one, two, far] = regions.all as [Region, Region, Region];
  });
  after(() => regions?.stop());

  it('know each other, and are one region to others that wait', async () => {
    for (const [node, count] of [
      [one, 1],
      [two, 1],
      [far, 0],
    ] as const) {
      const { peers } = await node.status();
      assert.equal(peers.filter(({ sharesStore }) => sharesStore === true).length, count, node.name);
    }
    await one.door.set('waited', 'v');
    assert.equal(await one.door.wait(1, 10_000), 1);
    assert.equal(await one.door.wait(2, 300), 1, 'the other node on the same Valkey is no region');
    await far.door.set('waited', 'w');
    assert.equal(await far.door.wait(2, 300), 1);
  });

  it('answer through one what was acknowledged through the other, refusals and transactions too', async () => {
    for (let i = 0; i < 28; i += 1) {
      const [first, second] = i % 2 === 0 ? [one.door, two.door] : [two.door, one.door];
      const key = `k${i % 7}`;
      await first.set(key, String(i));
      assert.equal(await second.get(key), String(i));
      assert.equal(await second.set(key, 'x', 'NX'), null, 'it is there');
      assert.deepEqual(await second.multi().get(key).exec(), [[null, String(i)]]);
      assert.equal(await first.del(key), 1);
      assert.equal(await second.del(key), 0, 'it is gone');
      assert.deepEqual(await second.multi().get(key).exec(), [[null, null]]);
    }
  });

  it('lose nothing and count once when one is killed and the other goes on, and when it returns', async () => {
    const ledger = new Ledger('killed');
    for (const [victim, other] of [
      [one, two],
      [two, one],
    ] as const) {
      let over = false;
      const writers = [victim.connect(), other.connect(), far.connect()].map((client) =>
        ledger.writeUntil(() => over, client),
      );
      await ledger.grows(150);
      await victim.kill('SIGKILL');
      await ledger.grows(150);
      await victim.start();
      await ledger.grows(150);
      over = true;
      await Promise.all(writers);
      ledger.checkErrors();
    }
    await regions.connected();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('lose nothing and count once when the one that applies stands still, the other takes over, and the first goes on', async (t) => {
    const [first, second] = [(await one.status()).peerId, (await two.status()).peerId];
    const [leader, other] = first < second ? [one, two] : [two, one];
    const ledger = new Ledger('stood still');
    await leader.door.set('old', '1');
    let over = false;
    const writers = [leader.connect(), other.connect(), far.connect()].map((client) =>
      ledger.writeUntil(() => over, client),
    );
    await ledger.grows(150);
    const { applied } = (await other.status()).frames;
    const stillSince = performance.now();
    const stillFor = () => performance.now() - stillSince;
    process.kill(leader.pid, 'SIGSTOP');
    try {
      await ledger.grows(150);
      await far.door.set('from far', 'v');
      await waitFor(async () => (await other.reader.get('from far')) === 'v', {
        deadlineMs: DEADLINE_MS,
        what: 'the other one applies what the far region sends',
      });
      t.diagnostic(`taken over after ${Math.round(stillFor())} ms`);
      assert.ok(stillFor() < 10 * HEARTBEAT_MS, 'not only when the connection is taken for dead');
      await waitFor(() => stillFor() > 6 * HEARTBEAT_MS, { what: 'more than five heartbeats are over' });
      assert.ok((await other.status()).frames.applied > applied);
      assert.equal(await other.door.del('old'), 1);
    } finally {
      process.kill(leader.pid, 'SIGCONT');
    }
    assert.equal(await leader.door.set('old', '2', 'NX'), 'OK', 'it has seen that the key is gone');
    const before = (await leader.status()).frames.applied;
    await waitFor(async () => (await leader.status()).frames.applied > before, {
      deadlineMs: DEADLINE_MS,
      what: 'the first one applies again',
    });
    await ledger.grows(150);
    over = true;
    await Promise.all(writers);
    ledger.checkErrors();
    await regions.connected();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('lose nothing when their Valkey is killed under both and restarted', async () => {
    const ledger = new Ledger('restarted');
    let over = false;
    const writers = [one.connect(), two.connect(), far.connect()].map((client) =>
      ledger.writeUntil(() => over, client),
    );
    await ledger.grows(150);
    await one.valkey.kill('SIGKILL');
    await one.valkey.restart();
    await ledger.grows(300);
    over = true;
    await Promise.all(writers);
    ledger.checkErrors();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('agree in MESH VERIFY with the other region, and with each other', async () => {
    const reply = (await two.door.call('MESH', 'VERIFY')) as unknown[];
    assert.match(JSON.stringify(reply), /^\["outcome","identical"/);
  });
});

describe('Two nodes on one Valkey', () => {
  const endings: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const end of endings.splice(0).reverse()) await end();
  });

  /** Nodes a and b on one Valkey, and c with a memory store. */
  async function world(appendonly: boolean) {
    const valkey = await launchValkey({ appendonly });
    endings.push(() => valkey.stop());
    const client = new Redis(valkey.port, '127.0.0.1', { retryStrategy: () => 20 });
    client.on('error', () => {});
    endings.push(async () => client.disconnect());
    const network = new LoopbackNetwork({ timers: systemTimers, random: Math.random, latencyMs: [1, 5] });
    const start = async (name: string, region: string, store: string): Promise<MeshNode> => {
      const mesh = network.mesh(name);
      const node = await createNode({ region, store, mesh, heartbeatMs: 100 });
      endings.push(() => node.stop());
      return node;
    };
    const a = await start('a', 'eu', valkey.url);
    const b = await start('b', 'eu', valkey.url);
    const c = await start('c', 'us', 'memory');
    const nodes = [a, b, c];
    const met = () => nodes.every((node) => node.status().peers.filter((p) => p.connected).length === 2);
    await waitFor(met, { what: 'all have met' });
    await waitFor(() => nodes.every((node) => node.status().state === 'ready'), { what: 'all are ready' });
    const equal = () =>
      waitFor(
        async () => {
          const digests = await Promise.all(nodes.map((node) => node.digest()));
          const behind = nodes.some((node) => node.status().peers.some((peer) => peer.behindFrames > 0));
          return !behind && new Set(digests).size === 1;
        },
        { deadlineMs: DEADLINE_MS, what: 'all are equal' },
      );
    return { valkey, client, a, b, c, nodes, equal };
  }

  it('count exactly and keep every member when both write the same keys at once', async () => {
    const { client, a, b, c, nodes, equal } = await world(true);
    const told: string[] = [];
    b.on('change', ({ key }) => told.push(key));
    await Promise.all(
      nodes.map(async (node, at) => {
        for (let i = 0; i < 40; i += 1) {
          await Promise.all([
            ...Array.from({ length: 10 }, () => node.counter('n').increment(1)),
            node.set('s').add(`${at}-${i}`, `all-${i}`),
            node.register(`r${i % 3}`).set(`${at}-${i}`),
            node.set('s').delete(`all-${i - 1}`),
          ]);
        }
      }),
    );
    await equal();
    assert.equal(await client.get('n'), '1200');
    assert.equal(await c.counter('n').value(), 1200n);
    const own = (await client.smembers('s')).filter((member) => !member.startsWith('all-'));
    assert.equal(own.length, 120);
    await a.register('told').set('x');
    await waitFor(() => told.includes('told'), { what: 'b tells of what a has written' });
    // One of them applies what c sends, so few commits are in vain.
    assert.ok(Math.min(a.status().frames.applied, b.status().frames.applied) < 40);
  });

  it('begin new epochs and bring everything back when their Valkey falls back to an older snapshot', async () => {
    const { valkey, client, a, b, c, nodes, equal } = await world(false);
    for (const node of nodes) await node.counter('n').increment(1);
    await equal();
    await client.save();
    const before = [a, b].map((node) => node.status().replica);
    for (const node of nodes) {
      await node.counter('n').increment(10);
      await node.set('s').add(node.peerId);
    }
    await equal();
    await valkey.kill('SIGKILL');
    await valkey.restart();
    await waitFor(() => [a, b].every((node, at) => node.status().replica !== before[at]), {
      deadlineMs: DEADLINE_MS,
      what: 'both begin a new epoch',
    });
    await waitFor(() => nodes.every((node) => node.status().state === 'ready'), {
      deadlineMs: DEADLINE_MS,
      what: 'all serve again',
    });
    for (const node of nodes) await node.counter('n').increment(100);
    await equal();
    assert.equal(await client.get('n'), '333');
    assert.deepEqual((await client.smembers('s')).sort(), ['a', 'b', 'c']);
    assert.equal(await c.counter('n').value(), 333n);
  });

  it('go on for each other: who is gone for good is waited for no longer, and returns as a new member', async () => {
    const { b, c, nodes, equal } = await world(true);
    await b.counter('n').increment(5);
    await equal();
    await b.stop();
    nodes.splice(1, 1);
    await waitFor(() => !c.status().forgetting.members.includes('b'), {
      deadlineMs: DEADLINE_MS,
      what: 'a has retired b, and c has heard of it',
    });
    assert.equal(await c.counter('n').value(), 5n);
  });
});
