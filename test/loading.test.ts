/** Empty and lost regions are brought up to the others: whole nodes on virtual time. With real peers: joining.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshNode } from '../src/index.js';
import { GREETING_MS } from '../src/sync/bootstrap.js';
import { MeshWorld } from './support/mesh-world.js';

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: { code: string }) => error.code,
  );

/** Gives a node `count` keys, and drops the log they stand in, so that only states can bring them to others. */
async function fill(world: MeshWorld, region: string, count: number, size = 1_000): Promise<void> {
  const node = world.nodes.get(region)!;
  for (let i = 0; i < count; i += 1) await world.run(node.register(`key ${i}`).set('x'.repeat(size)));
  await world.run(world.stores.get(region)!.trimLog(node.status().replica, count - 1));
}

const isReady = (node: MeshNode): boolean => node.status().state === 'ready';

/** A peer that there is no way to. */
const NOWHERE = ['/dns4/nowhere/tcp/1'];

test('the first node of a mesh is ready at once, and all of a new mesh when they have met', async () => {
  const world = new MeshWorld();
  const first = await world.start('first');
  assert.ok(isReady(first));
  await world.run(first.whenReady());
  await world.stop();

  const mesh = new MeshWorld();
  const peers = ['a', 'b', 'c'].map((region) => `/dns4/${region}/tcp/1/p2p/${region}`);
  const began = mesh.timers.now();
  const nodes = [];
  for (const region of ['a', 'b', 'c']) nodes.push(await mesh.start(region, { peers }));
  assert.equal(nodes[0]!.status().state, 'loading', 'the others may have something');
  for (const node of nodes) await mesh.run(node.whenReady());
  assert.ok(mesh.timers.now() - began < 1_500, 'within a heartbeat');
  await mesh.run(nodes[0]!.register('k').set('v'));
  await mesh.equal();
  await mesh.stop();
});

test('a region that joins refuses operations with LOADING, tells how far it is, and has everything when it is ready', async () => {
  const world = new MeshWorld({ latencyMs: 50 });
  const a = await world.start('a', { recentFramesBytes: 0 });
  await fill(world, 'a', 60, 100_000);
  const b = await world.start('b');
  // It knew of nobody; it begins when it meets a.
  await world.until('b is loading', () => b.status().state === 'loading');
  assert.equal(await codeOf(b.register('key 1').get()), 'LOADING');
  assert.equal(await codeOf(b.set('s').values()), 'LOADING');
  assert.equal(await codeOf(world.run(b.counter('n').increment())), 'LOADING');
  const ready = b.whenReady();
  await world.until('a part has come', () => (b.status().loading?.keys ?? 0) > 0);
  await world.run(a.counter('n').increment(7));
  const { loading } = b.status();
  assert.deepEqual([loading?.peer, loading?.region, loading!.bytes > 100_000], ['a', 'a', true]);
  assert.ok(loading!.keysPerSecond > 0);
  await world.run(ready);
  assert.deepEqual([b.status().state, b.status().loading], ['ready', null]);
  assert.equal((await b.register('key 59').get())?.length, 100_000);
  await world.equal();
  assert.equal(await b.counter('n').value(), 7n);
  await world.stop();
});

test('who serves while it loads takes writes and gives stale reads, and nothing of it is lost', async () => {
  const world = new MeshWorld({ latencyMs: 50 });
  await world.start('a', { recentFramesBytes: 0 });
  await fill(world, 'a', 60, 100_000);
  await world.run(world.nodes.get('a')!.counter('n').increment(2));
  const b = await world.start('b', { whileLoading: 'serve', peers: NOWHERE });
  assert.equal(b.status().state, 'loading');
  await world.run(b.counter('n').increment(3));
  assert.deepEqual([await b.counter('n').value(), await b.register('key 59').get()], [3n, null]);
  assert.equal(b.status().state, 'loading');
  await world.run(b.whenReady());
  assert.equal(await b.counter('n').value(), 5n);
  await world.equal();
  await world.stop();
});

test('a region whose store loses everything while it runs is loading again, and is filled', async () => {
  const world = new MeshWorld({ latencyMs: 20 });
  const [a, b] = await world.startAll(['a', 'b'], { recentFramesBytes: 0 });
  await fill(world, 'a', 40, 50_000);
  await world.equal();
  world.network.cut('a', 'b');
  await world.timers.advance(3_000);
  world.stores.get('b')!.loseData();
  await world.until('b has noticed', () => b!.status().state === 'loading');
  assert.equal(await codeOf(b!.register('key 1').get()), 'LOADING');
  await world.run(a!.register('key 0').set('new'));
  world.network.heal();
  await world.run(b!.whenReady());
  assert.equal((await b!.register('key 39').get())?.length, 50_000);
  await world.equal();
  assert.equal(await b!.register('key 0').get(), 'new');
  await world.stop();
});

test('two regions that lose everything at once do not wait for what nobody has', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b'], { recentFramesBytes: 0 });
  await fill(world, 'a', 5);
  await world.equal();
  for (const region of ['a', 'b']) world.stores.get(region)!.loseData();
  await world.until('both have noticed', () => !isReady(a!) && !isReady(b!));
  await world.until('both are ready', () => isReady(a!) && isReady(b!), 10_000);
  await world.run(b!.register('k').set('v'));
  await world.equal();
  await world.stop();
});

test('when the giver goes in the middle, another one gives the rest', async () => {
  const world = new MeshWorld({ latencyMs: 50 });
  const options = { recentFramesBytes: 0, antiEntropyMs: 86_400_000 };
  await world.startAll(['a', 'b'], options);
  await fill(world, 'a', 60, 100_000);
  await world.equal();
  const c = await world.start('c', options);
  await world.until('a third has come', () => (c.status().loading?.keys ?? 0) > 20);
  const giver = c.status().loading!.peer!;
  const held = await world.stores.get('c')!.count();
  world.network.cut('c', giver);
  await world.until('another gives', () => {
    const peer = c.status().loading?.peer;
    return peer !== giver && peer !== null;
  });
  let most = 0;
  await world.until('c is ready', () => {
    most = Math.max(most, c.status().loading?.keys ?? 0);
    return isReady(c);
  });
  assert.ok(most <= 60 - held, `${held} had come, and ${most} of 60 came then`);
  assert.equal(await world.stores.get('c')!.count(), 60);
  world.network.heal();
  await world.equal();
  await world.stop();
});

test('who reaches nobody serves what it has after its patience, and catches up when somebody comes', async () => {
  const world = new MeshWorld();
  const b = await world.start('b', { peers: NOWHERE, loadingPatienceMs: 5_000 });
  assert.equal(await codeOf(world.run(b.register('k').set('v'))), 'LOADING');
  await world.timers.advance(4_000);
  assert.equal(b.status().state, 'loading');
  await world.timers.advance(1_500);
  assert.equal(b.status().state, 'ready');
  await world.run(b.register('k').set('v'));
  const a = await world.start('a');
  await world.run(a.whenReady());
  await world.equal();
  assert.equal(await a.register('k').get(), 'v');
  await world.stop();
});

test('a configured peer that never comes holds nobody up for long', async () => {
  const world = new MeshWorld();
  await world.start('a');
  await fill(world, 'a', 3);
  const began = world.timers.now();
  const b = await world.start('b', { peers: ['/dns4/a/tcp/1/p2p/a', ...NOWHERE] });
  await world.run(b.whenReady());
  assert.ok(world.timers.now() - began < GREETING_MS + 500);
  assert.equal(await world.stores.get('b')!.count(), 3);
  await world.stop();
});

test('a node that is stopped while it loads lets those go who wait for it', async () => {
  const world = new MeshWorld();
  const b = await world.start('b', { peers: NOWHERE });
  const ready = codeOf(b.whenReady());
  await world.stop();
  assert.equal(await ready, 'STOPPED');
  assert.equal(await codeOf(b.whenReady()), 'STOPPED');
});
