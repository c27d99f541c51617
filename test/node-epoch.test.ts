/** When a node continues its epoch, and when it begins a new one: whole nodes on virtual time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PROTOCOLS } from '../src/sync/messages.js';
import { copyDataset } from './support/dataset-copy.js';
import { GatedStore } from './support/gated-store.js';
import { MeshWorld } from './support/mesh-world.js';

/** Nodes that have met, of which `a` has written something. */
async function world(regions = ['a', 'b', 'c']): Promise<MeshWorld> {
  const made = new MeshWorld();
  await made.startAll(regions, { heartbeatMs: 100 });
  await made.run(made.nodes.get('a')!.counter('n').increment(1));
  await made.equal();
  return made;
}

/** The store of a region as it is now: an older copy, later. */
function copyOf(from: MeshWorld, region: string): GatedStore {
  const dataset = copyDataset(from.stores.get(region)!.dataset, from.timers.now());
  return new GatedStore({ timers: from.timers, dataset });
}

const replicaOf = (from: MeshWorld, region: string): string => from.nodes.get(region)!.status().replica;

test('after a clean shutdown the epoch goes on when every other member agrees', async () => {
  const mesh = await world();
  const before = replicaOf(mesh, 'a');
  await mesh.run(mesh.nodes.get('a')!.stop());
  const startedMs = mesh.timers.now();
  await mesh.start('a', { heartbeatMs: 100 });
  assert.equal(replicaOf(mesh, 'a'), before);
  assert.ok(mesh.timers.now() - startedMs < 200, 'it waits for greetings, not for the deadline');
  await mesh.run(mesh.nodes.get('a')!.counter('n').increment(10));
  await mesh.equal();
  assert.equal(await mesh.run(mesh.nodes.get('b')!.counter('n').value()), 11n);
  await mesh.stop();
});

test('with a member away a new epoch begins after a clean shutdown', async () => {
  const mesh = await world();
  const before = replicaOf(mesh, 'a');
  await mesh.run(mesh.nodes.get('a')!.stop());
  mesh.network.cut('a', 'b');
  await mesh.start('a', { heartbeatMs: 100 });
  assert.notEqual(replicaOf(mesh, 'a'), before);
  assert.equal(await mesh.run(mesh.nodes.get('a')!.counter('n').increment(10)), 11n);
  mesh.network.heal();
  await mesh.equal();
  await mesh.stop();
});

test('older data that says it is clean, under a stopped node, is found out by the others before anything is written', async () => {
  const mesh = await world();
  const before = replicaOf(mesh, 'a');
  await mesh.run(mesh.nodes.get('a')!.stop());
  const backup = copyOf(mesh, 'a');
  await mesh.start('a', { heartbeatMs: 100 });
  await mesh.run(mesh.nodes.get('a')!.counter('n').increment(10));
  await mesh.equal();
  await mesh.run(mesh.nodes.get('a')!.stop());
  await mesh.start('a', { store: backup, heartbeatMs: 100 });
  assert.notEqual(replicaOf(mesh, 'a'), before);
  await mesh.run(mesh.nodes.get('a')!.counter('n').increment(100));
  await mesh.equal();
  for (const node of mesh.nodes.values()) assert.equal(await mesh.run(node.counter('n').value()), 111n);
  await mesh.stop();
});

test('a member that claims more frames than were made makes a running node begin a new epoch, and not again and again', async () => {
  const mesh = await world();
  const [a, b] = [mesh.nodes.get('a')!, mesh.nodes.get('b')!];
  const dataset = mesh.stores.get('a')!.dataset;
  const before = replicaOf(mesh, 'a');
  // Nothing at a's store shows that b has applied this one.
  const claim = (replica: string): void => {
    mesh.stores.get('b')!.dataset.applied.set(replica, { replica, number: 50, stamp: 1 });
  };
  claim(before);
  await mesh.run(b.stop());
  await mesh.start('b', { heartbeatMs: 100 });
  await mesh.until('a new epoch', () => replicaOf(mesh, 'a') !== before && a.status().state === 'ready');
  assert.equal(dataset.nodes.get('a')?.identity.replica, replicaOf(mesh, 'a'));
  assert.equal(await mesh.run(a.counter('n').increment(10)), 11n);
  assert.equal(dataset.applied.get(replicaOf(mesh, 'a'))?.number, 1, 'its first frame');
  const second = replicaOf(mesh, 'a');
  claim(second);
  await mesh.run(mesh.nodes.get('b')!.stop());
  await mesh.start('b', { heartbeatMs: 100 });
  await mesh.timers.advance(1_000);
  assert.equal(replicaOf(mesh, 'a'), second, 'one that is broken does not make epochs without end');
  assert.ok(mesh.asked('a', PROTOCOLS.hello) > 0);
  await mesh.stop();
});

test('operations that are under way when a new epoch begins are told, and what was acknowledged stays', async () => {
  const mesh = await world();
  const a = mesh.nodes.get('a')!;
  const store = mesh.stores.get('a')!;
  const before = replicaOf(mesh, 'a');
  mesh.stores.get('b')!.dataset.applied.set(before, { replica: before, number: 50, stamp: 1 });
  store.hold('commit');
  const under = a.counter('n').increment(10);
  under.catch(() => {});
  await mesh.run(mesh.nodes.get('b')!.stop());
  const starting = mesh.start('b', { heartbeatMs: 100 });
  await starting;
  await mesh.timers.advance(500);
  assert.equal(replicaOf(mesh, 'a'), before, 'it waits for what is under way');
  const late = a.counter('n').increment(100);
  late.catch(() => {});
  store.release('commit');
  await mesh.until('a new epoch', () => replicaOf(mesh, 'a') !== before && a.status().state === 'ready');
  assert.equal(await mesh.run(under), 11n);
  const outcome = await mesh.run(
    late.then(
      () => 'done',
      (error: { code: string }) => error.code,
    ),
  );
  assert.ok(['done', 'STORE_UNAVAILABLE', 'STORE_RESET'].includes(outcome), outcome);
  await mesh.stop();
});

test('what another member claims while the store is being opened again is heeded after that', async () => {
  const mesh = await world();
  const a = mesh.nodes.get('a')!;
  const store = mesh.stores.get('a')!;
  const before = replicaOf(mesh, 'a');
  mesh.stores.get('b')!.dataset.applied.set(before, { replica: before, number: 50, stamp: 1 });
  store.hold('open');
  // The same data: by itself, nothing speaks against going on.
  store.loseData(store.dataset);
  await mesh.until('a opens its store', () => store.held('open') > 0);
  await mesh.run(mesh.nodes.get('b')!.stop());
  await mesh.start('b', { heartbeatMs: 100 });
  await mesh.timers.advance(500);
  store.release('open');
  await mesh.until('a new epoch', () => replicaOf(mesh, 'a') !== before && a.status().state === 'ready');
  assert.equal(await mesh.run(a.counter('n').increment(10)), 11n);
  await mesh.stop();
});
