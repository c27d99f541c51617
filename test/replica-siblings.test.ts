/** Replicas of two nodes that commit to one store. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { utf8 } from '../crdts/bytes.js';
import { decodeFrame, type Frame } from '../src/replica/frame.js';
import { decodeEntry } from '../src/replica/key-record.js';
import { add, get, increment, on, type ReplicaWorld, replicaWorld, set } from './support/replica-world.js';

/** Two on the same data and the same clock, which know of each other. */
async function pair(): Promise<[ReplicaWorld, ReplicaWorld]> {
  const first = await replicaWorld({ id: 'one.1' });
  const second = await replicaWorld({ id: 'two.1', storeOptions: { dataset: first.store.dataset } });
  for (const { replica } of [first, second]) replica.shared = true;
  return [first, second];
}

/** Runs both worlds' clocks until a promise is settled. */
async function run<T>([first, second]: readonly ReplicaWorld[], promise: Promise<T>): Promise<T> {
  let done = false;
  const end = (): void => {
    done = true;
  };
  promise.then(end, end);
  for (let i = 0; i < 10_000 && !done; i += 1) {
    await first!.timers.advance(1);
    await second!.timers.advance(1);
  }
  assert.ok(done, 'nothing came of it within 10 s');
  return promise;
}

test('what one has committed is what the other answers, though it knew something else', async () => {
  const worlds = await pair();
  const [one, two] = worlds;
  assert.equal((await run(worlds, one.submit(get('k')))).value, null);
  assert.equal((await run(worlds, two.submit(set('k', 'v')))).error, null);
  assert.equal((await run(worlds, one.submit(get('k')))).value, 'v');
  await run(worlds, one.submit(on('k', (tx, key) => tx.delete(key))));
  assert.equal((await run(worlds, two.submit(on('k', (tx, key) => tx.delete(key))))).value, false);
  assert.equal((await run(worlds, two.submit(get('k')))).value, null);
});

test('a look at a key that the other doesn’t change changes nothing', async () => {
  const worlds = await pair();
  await run(worlds, worlds[0].submit(set('k', 'v')));
  const before = await worlds[0].store.digests();
  for (const world of worlds) assert.equal((await run(worlds, world.submit(get('none')))).value, null);
  for (const world of worlds) assert.equal((await run(worlds, world.submit(get('k')))).value, 'v');
  assert.deepEqual(await worlds[0].store.digests(), before);
  assert.equal(worlds[1].replica.lastFrame, 0);
});

test('both count on one key at once: every increment counts, and neither waits for long', async () => {
  const worlds = await pair();
  for (const { store } of worlds) assert.equal(store.commits.length, 0);
  const told = [0, 0];
  const all = worlds.flatMap((world, at) =>
    Array.from({ length: 300 }, async () => {
      const { error } = await world.submit(increment('n'));
      assert.equal(error, null);
      told[at]! += 1;
    }),
  );
  await run(worlds, Promise.all(all));
  assert.deepEqual(told, [300, 300]);
  assert.equal((await run(worlds, worlds[0].submit(increment('n', 0)))).value, 600);
});

/** Frames of a third replica, as its own store has logged them. */
async function foreignFrames(count: number): Promise<Frame[]> {
  const world = await replicaWorld({ id: 'far.1' });
  for (let i = 0; i < count; i += 1) await world.timers.runToEnd(world.submit(increment('far', 1)));
  return world.frames;
}

test('frames that the other has applied are not applied again, and those that are new still are', async () => {
  const worlds = await pair();
  const [one, two] = worlds;
  const frames = await foreignFrames(4);
  const merge = (world: ReplicaWorld, some: readonly Frame[]): Promise<Error | null> =>
    new Promise((done) => {
      // Each decodes its own: what is merged becomes part of a record.
      const own = some.map(({ bytes }) => decodeFrame(bytes, 1 << 20));
      world.replica.merge({ frames: own, states: [], marks: [], done });
    });
  assert.equal(await run(worlds, merge(one, frames.slice(0, 3))), null);
  const merged = two.store.commits.length;
  assert.equal(await run(worlds, merge(two, frames)), null);
  assert.equal(two.replica.applied.get('far.1')?.number, 4);
  const [stale, fresh] = two.store.commits.slice(merged);
  assert.equal(stale?.applied?.[0]?.after, 0);
  assert.equal(fresh?.applied?.[0]?.after, 3);
  assert.equal((await run(worlds, one.submit(get('far')))).value, '4');
});

test('a key that the other changes between the two loads of a frame is loaded anew, with all that the frame needs', async () => {
  const worlds = await pair();
  const [one, two] = worlds;
  // A long value isn't kept in memory, so a set beside it takes a second load.
  await run(worlds, one.submit(set('k', 'x'.repeat(400))));
  const adding = async (id: string, ...members: string[]): Promise<readonly Frame[]> => {
    const world = await replicaWorld({ id });
    await world.timers.runToEnd(world.submit(add('k', ...members)));
    return world.frames;
  };
  const merge = (world: ReplicaWorld, frames: readonly Frame[]): Promise<Error | null> =>
    new Promise((done) => world.replica.merge({ frames, states: [], marks: [], done }));
  two.store.hold('load');
  const merged = merge(two, await adding('far.1', 'm', 'n'));
  await two.timers.advance(1);
  assert.equal(two.store.held('load'), 1);
  assert.equal(await run(worlds, merge(one, await adding('other.1', 'm'))), null);
  two.store.release('load');
  assert.equal(await run(worlds, merged), null);
  for (const world of worlds)
    assert.equal((await run(worlds, world.submit(on('k', (tx, key) => tx.cardinality(key))))).value, 2);
  const entry = two.store.dataset.entries.get(utf8('k'))!.get(utf8('m'))!;
  assert.deepEqual(
    decodeEntry(entry).map(({ replica }) => replica),
    ['far.1', 'other.1'],
  );
});

test('a store that misses what was there is told from one that has more', async () => {
  const [one] = await pair();
  const mark = (number: number) => ({ replica: 'far.1', number, stamp: number });
  const before = new Map([['far.1', mark(3)]]);
  assert.equal(one.replica.learn([mark(2)], before), null);
  assert.equal(one.replica.learn([], before), null);
  assert.deepEqual(one.replica.learn([mark(5)], before), [mark(5)]);
  assert.deepEqual(one.replica.learn([mark(4)], before), [], 'it was read before the last');
  assert.equal(one.replica.applied.get('far.1')?.number, 5);
});
