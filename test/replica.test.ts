/** The replica: group commit, and what becomes of operations and frames when the store fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { emptyKeyState, type KeyState } from '../crdts/key-state.js';
import { stampAt } from '../crdts/stamp.js';
import { stringType } from '../crdts/string-key.js';
import { StoreRefusedError, StoreResetError } from '../src/errors.js';
import { decodeFrame, encodeFrame, type Frame, keyOf, keysOf } from '../src/replica/frame.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import type { AppliedMark } from '../src/store/store.js';
import { add, get, increment, on, type ReplicaWorld, replicaWorld, set } from './support/replica-world.js';

const START = stampAt(Date.UTC(2025, 0, 1));

/** A frame of another replica that sets a key. */
function frameOf(replica: string, number: number, key: string, value: string): Frame {
  const stamp = START + number;
  const delta: KeyState = {
    ...emptyKeyState(),
    touched: stamp,
    string: stringType.mutate(stringType.empty(), { op: 'write', value: utf8(value) }, { replica, stamp }),
  };
  return encodeFrame({ replica, number, stamp, deps: new Map(), full: true, keys: [[utf8(key), delta]] });
}

/** A frame that can't be merged: the codec would never let it through. */
function poison(replica: string, number: number): Frame {
  const frame = frameOf(replica, number, 'poison', 'x');
  const broken = { ...keysOf(frame)[0]![1], string: {} } as unknown as KeyState;
  return { ...frame, deltas: [[utf8('poison'), broken]] };
}

function merge(world: ReplicaWorld, ...frames: Frame[]): Promise<Error | null> {
  return new Promise((done) => world.replica.merge({ frames, states: [], marks: [], done }));
}

function applied(world: ReplicaWorld, replica: string): number {
  return world.replica.applied.get(replica)?.number ?? 0;
}

async function stringsOf(world: ReplicaWorld, ...keys: string[]): Promise<unknown[]> {
  return world.store.strings(keys.map(utf8));
}

test('what arrives while commits are under way is one batch, one frame, one commit', async () => {
  const world = await replicaWorld({ maxInFlight: 1 });
  world.store.hold('commit');
  const first = world.submit(increment('n'));
  await world.settle();
  const others = Array.from({ length: 100 }, () => world.submit(increment('n')));
  await world.settle();
  assert.equal(world.store.commits.length, 1);
  world.store.release('commit');
  assert.equal((await first).frame, 1);
  const outcomes = await Promise.all(others);
  assert.deepEqual([...new Set(outcomes.map(({ frame }) => frame))], [2]);
  assert.deepEqual(
    outcomes.map(({ value }) => value),
    outcomes.map((_, i) => i + 2),
  );
  assert.equal(world.store.commits.length, 2);
  assert.deepEqual(await stringsOf(world, 'n'), ['101']);
});

test('overlapping commits build on each other, and are told in their order', async () => {
  const world = await replicaWorld();
  world.store.hold('commit');
  const a = world.submit(increment('n'), 'a');
  await world.settle();
  const b = world.submit(increment('n'), 'b');
  await world.settle();
  const c = world.submit(increment('n'), 'c');
  await world.settle();
  assert.equal(world.store.held('commit'), 2);
  assert.deepEqual(world.told, []);
  world.store.release('commit');
  assert.deepEqual(
    (await Promise.all([a, b, c])).map(({ value }) => value),
    [1, 2, 3],
  );
  assert.deepEqual(world.told, ['a', 'b', 'c']);
  assert.deepEqual(world.log, ['frame 1', 'frame 2', 'frame 3']);
});

test('a batch that only reads waits for the commits that it read from', async () => {
  const world = await replicaWorld();
  world.store.hold('commit');
  world.store.faults.push('refuse');
  const write = world.submit(set('k', 'new'), 'write');
  await world.settle();
  const read = world.submit(get('k'), 'read');
  await world.settle();
  assert.deepEqual(world.told, []);
  world.store.release('commit');
  assert.equal((await write).error?.code, 'STORE_REFUSED');
  await world.timers.advance(1000);
  assert.equal((await read).value, null);
  assert.equal((await read).frame, 0);
});

test('a refused commit is told to its own batch; the later ones run again and count once', async () => {
  const world = await replicaWorld();
  world.store.hold('commit');
  world.store.faults.push(null, 'refuse');
  const before = world.submit(increment('n'), 'before');
  await world.settle();
  const refused = world.submit(increment('n'), 'refused');
  await world.settle();
  const after = world.submit(increment('n'), 'after');
  world.store.release('commit');
  await world.timers.advance(1000);
  assert.equal((await before).value, 1);
  assert.equal((await refused).error?.code, 'STORE_REFUSED');
  assert.equal((await after).value, 2);
  assert.deepEqual(world.told, ['before', 'refused', 'after']);
  assert.deepEqual(
    world.frames.map(({ number }) => number),
    [1, 2],
  );
  assert.deepEqual(await stringsOf(world, 'n'), ['2']);
});

test('frames of a refused commit are merged later, in their order', async () => {
  const world = await replicaWorld();
  world.store.hold('commit');
  world.store.faults.push('refuse');
  const first = merge(world, frameOf('you.1', 1, 'a', '1'));
  await world.settle();
  const second = merge(world, frameOf('you.1', 2, 'b', '2'));
  await world.settle();
  world.store.release('commit');
  await world.settle();
  assert.equal(applied(world, 'you.1'), 0);
  await world.timers.advance(1000);
  assert.deepEqual([await first, await second], [null, null]);
  assert.equal(applied(world, 'you.1'), 2);
  assert.deepEqual(await stringsOf(world, 'a', 'b'), ['1', '2']);
});

test('what another node on the same Valkey has written is loaded again, and built upon', async () => {
  const world = await replicaWorld();
  const other = await replicaWorld({ id: 'other.1', storeOptions: { dataset: world.store.dataset } });
  await world.submit(increment('n'));
  await other.submit(increment('n'));
  const outcome = await world.submit(increment('n'));
  assert.equal(outcome.error, null);
  assert.equal(outcome.value, 3);
  assert.deepEqual(await stringsOf(world, 'n'), ['3']);
});

test('a commit that is stale time and again is retried with pauses, not without end at full speed', async () => {
  const world = await replicaWorld();
  await world.submit(increment('n'));
  // Someone else uses this replica's frame numbers, which must never happen; it must not burn a processor either.
  world.store.dataset.applied.set('me.1', { replica: 'me.1', number: 7, stamp: START });
  void world.submit(increment('n'));
  const before = world.store.commits.length;
  await world.timers.advance(1000);
  assert.ok(world.store.commits.length - before < 100, `${world.store.commits.length - before} commits`);
});

test('an outcome that is unknown is an error, and what the store kept counts once', async () => {
  for (const fault of ['lose', 'unknown'] as const) {
    const world = await replicaWorld();
    await world.submit(increment('n'));
    world.store.faults.push(fault);
    const lost = await world.submit(increment('n'));
    assert.equal(lost.error?.code, 'STORE_UNAVAILABLE');
    await world.timers.advance(1000);
    assert.deepEqual(world.log.slice(1), ['lost STORE_UNAVAILABLE', 'back']);
    const next = await world.submit(increment('n'));
    assert.equal(next.value, fault === 'unknown' ? 3 : 2);
    assert.equal(next.frame, fault === 'unknown' ? 3 : 2);
  }
});

test('operations are refused while the store is away, and taken when it is back', async () => {
  const world = await replicaWorld();
  world.store.hold('open');
  world.store.faults.push('lose');
  const lost = world.submit(set('a', '1'));
  assert.equal((await lost).error?.code, 'STORE_UNAVAILABLE');
  assert.equal(world.replica.available, false);
  assert.equal((await world.submit(set('b', '1'))).error?.code, 'STORE_UNAVAILABLE');
  assert.ok((await merge(world, frameOf('you.1', 1, 'c', '1'))) instanceof Error);
  world.store.release('open');
  await world.settle();
  assert.equal(world.replica.available, true);
  assert.equal((await world.submit(set('b', '1'))).error, null);
});

test('frames that were being loaded when the store lost data are given up: what came before them is gone', async () => {
  const world = await replicaWorld({ onStoreBack: async () => 'me.2' });
  const early = new MemoryDataset();
  assert.equal(await merge(world, frameOf('you.1', 1, 'a', '1')), null);
  world.store.hold('commit');
  const own = world.submit(set('k', 'v'));
  await world.settle();
  world.store.hold('load');
  const late = merge(world, frameOf('you.1', 2, 'b', '2'));
  const operation = world.submit(set('x', 'y'));
  await world.settle();
  assert.equal(world.store.held('load'), 1);
  world.store.faults.push('lose');
  world.store.loseData(early);
  world.store.loadError = () => new StoreResetError('the store lost data');
  world.store.release('commit');
  await own;
  // The commit under way had taken effect before the data went; the load finds out.
  world.store.release('load');
  world.store.loadError = () => null;
  await world.settle();
  await world.timers.advance(1000);
  assert.ok((await late) instanceof Error);
  await operation;
  assert.equal(applied(world, 'you.1'), 0, 'frame 2 must not be applied without frame 1');
  assert.equal(early.applied.get('you.1'), undefined);
});

test('frames that were being loaded while a commit failed for good are given up too', async () => {
  const world = await replicaWorld({ onStoreBack: async () => 'me.2' });
  assert.equal(await merge(world, frameOf('you.1', 1, 'a', '1')), null);
  world.store.hold('commit');
  world.store.faults.push('lose');
  const own = world.submit(set('k', 'v'));
  await world.settle();
  world.store.hold('load');
  const late = merge(world, frameOf('you.1', 2, 'b', '2'));
  await world.settle();
  assert.equal(world.store.held('load'), 1);
  world.store.loseData();
  world.store.release('commit');
  assert.equal((await own).error?.code, 'STORE_UNAVAILABLE');
  await world.timers.advance(1000);
  world.store.release('load');
  await world.timers.advance(1000);
  assert.ok((await late) instanceof Error);
  assert.equal(applied(world, 'you.1'), 0, 'frame 2 must not be applied without frame 1');
});

test('the queue is bounded by operations and by bytes, but lets a single large operation in', async () => {
  const world = await replicaWorld({ maxInFlight: 1, maxQueuedOperations: 3, maxQueuedBytes: 100 });
  world.store.hold('commit');
  const first = world.submit(set('k', 'v'));
  await world.settle();
  const large = { ...set('k', 'v'), bytes: 1000 };
  const queued = world.submit(large);
  assert.equal((await world.submit({ ...large, bytes: 1 })).error?.code, 'LIMIT');
  const free = [world.submit({ ...large, bytes: 0 }), world.submit({ ...large, bytes: 0 })];
  assert.deepEqual(world.replica.queued, { operations: 3, bytes: 1000 });
  assert.equal((await world.submit({ ...large, bytes: 0 })).error?.code, 'LIMIT');
  world.store.release('commit');
  for (const outcome of await Promise.all([first, queued, ...free])) assert.equal(outcome.error, null);
  assert.deepEqual(world.replica.queued, { operations: 0, bytes: 0 });
});

test('an operation that throws after a change leaves no trace, and is told in its turn', async () => {
  const world = await replicaWorld({ maxInFlight: 1 });
  world.store.hold('commit');
  const gate = world.submit(set('gate', '1'), 'gate');
  await world.settle();
  const before = world.submit(increment('n'), 'before');
  const half = world.submit(
    on('half', (tx, key) => {
      tx.set(key, utf8('trace'), 'clear');
      throw new Error('half-way');
    }),
    'half',
  );
  const after = world.submit(increment('n'), 'after');
  world.store.release('commit');
  await gate;
  const spoiled = await half;
  assert.equal(spoiled.error?.code, 'INTERNAL');
  assert.equal(String(spoiled.error?.cause), 'Error: half-way');
  assert.deepEqual([(await before).value, (await after).value], [1, 2]);
  assert.deepEqual(world.told, ['gate', 'before', 'half', 'after']);
  assert.deepEqual(await stringsOf(world, 'half', 'n'), [null, '2']);
  assert.equal(world.frames.length, 2);
  assert.deepEqual(world.frames[1]!.deltas.map(keyOf), ['n']);
});

test('an operation that throws before any change is told its own error, beside its batch', async () => {
  const world = await replicaWorld();
  const [good, bad] = await Promise.all([world.submit(set('k', 'v')), world.submit(add('k', 'm'))]);
  assert.equal(good.error, null);
  assert.equal(bad.error?.code, 'WRONGTYPE');
});

test('an operation may touch only what it asked for', async () => {
  const world = await replicaWorld();
  const outcome = await world.submit({ needs: [], run: (tx) => tx.get(utf8('k')) });
  assert.equal(outcome.error?.code, 'INVARIANT');
});

test('a caller that throws when it is told keeps nobody from their answer', async () => {
  const world = await replicaWorld();
  world.replica.submit(set('a', '1'), {
    settled() {
      throw new Error('a broken caller');
    },
  });
  assert.equal((await world.submit(set('b', '2'))).error, null);
  assert.equal((await world.submit(set('c', '3'))).error, null);
});

test('a key whose stored bytes are damaged fails its own operation only', async () => {
  const world = await replicaWorld();
  await world.submit(set('bad', 'x'));
  const again = await replicaWorld({ id: 'me.2', storeOptions: { dataset: world.store.dataset } });
  for (const slot of again.store.dataset.slots.values()) {
    if (slot.headers.has(utf8('bad'))) slot.headers.set(utf8('bad'), 'junk' as ByteString);
  }
  const outcomes = await Promise.all([
    again.submit(increment('n')),
    again.submit(increment('bad')),
    again.submit(increment('n')),
  ]);
  assert.deepEqual(
    outcomes.map(({ error }) => error?.code ?? null),
    [null, 'DECODE', null],
  );
  assert.equal(outcomes[2]!.value, 2);
});

test('a read that the store refuses fails its own operations; frames wait until it answers', async () => {
  const world = await replicaWorld();
  world.store.loadError = (keys) =>
    keys.includes(utf8('bad')) ? new StoreRefusedError('the store was told to refuse this read') : null;
  const frame = merge(world, frameOf('you.1', 1, 'bad', 'x'));
  const operation = world.submit(set('bad', 'y'));
  const good = world.submit(set('good', 'z'));
  await world.timers.advance(1000);
  assert.equal((await operation).error?.code, 'STORE_REFUSED');
  assert.equal((await good).error, null);
  assert.equal(applied(world, 'you.1'), 0);
  world.store.loadError = () => null;
  await world.timers.advance(1000);
  assert.equal(await frame, null);
});

test('a frame that can not be merged is given up with all behind it, and nothing of it stays', async () => {
  const world = await replicaWorld();
  await merge(world, frameOf('you.1', 1, 'a', '1'));
  const bad = merge(world, poison('you.1', 2));
  const behind = merge(world, frameOf('you.1', 3, 'c', '3'));
  assert.ok((await bad) instanceof Error);
  assert.ok((await behind) instanceof Error);
  assert.deepEqual(world.log, ['applied 1', 'merge failed']);
  assert.equal(applied(world, 'you.1'), 1);
  assert.equal((await world.submit(set('k', 'v'))).error, null);
  assert.equal(await merge(world, frameOf('you.1', 2, 'b', '2'), frameOf('you.1', 3, 'c', '3')), null);
  assert.deepEqual(await stringsOf(world, 'a', 'b', 'c', 'poison'), ['1', '2', '3', null]);
});

test('stopping commits what is queued or being loaded, and refuses what comes later', async () => {
  for (const latencyMs of [0, 1, 7, 50]) {
    const world = await replicaWorld({ storeOptions: { latencyMs } });
    const early = world.submit(set('a', '1'));
    if (latencyMs > 0) await world.timers.advance(latencyMs - 1);
    const queued = world.submit(set('b', '2'));
    const stopped = world.replica.stop(5000);
    const late = world.submit(set('c', '3'));
    assert.equal(await world.timers.runToEnd(stopped), true, 'stopped cleanly');
    assert.equal((await world.timers.runToEnd(early)).error, null);
    assert.equal((await world.timers.runToEnd(queued)).error, null);
    assert.equal((await late).error?.code, 'STOPPED');
    assert.ok((await merge(world, frameOf('you.1', 1, 'a', '1'))) instanceof Error);
  }
});

test('stopping gives up after its deadline: everyone is told, and it says that it was not clean', async () => {
  for (const held of ['load', 'commit'] as const) {
    const world = await replicaWorld();
    world.store.hold(held);
    const stuck = world.submit(set('a', '1'));
    await world.settle();
    const queued = world.submit(set('b', '2'));
    const stopped = world.replica.stop(100);
    assert.equal(await world.timers.runToEnd(stopped), false);
    world.store.release(held);
    await world.timers.advance(1000);
    await stuck;
    assert.ok((await queued).error === null || (await queued).error?.code === 'STOPPED');
  }
});

test('stopping does not wait for a stream of frames to end', async () => {
  const world = await replicaWorld({ storeOptions: { latencyMs: 3 } });
  for (let number = 1; number <= 500; number += 1)
    world.replica.merge({
      frames: [frameOf('you.1', number, `k${number}`, 'x'.repeat(100))],
      states: [],
      marks: [],
    });
  let stopping = true;
  const more = (number: number): void => {
    world.replica.merge({ frames: [frameOf('you.1', number, 'k', 'x')], states: [], marks: [] });
    if (stopping) world.timers.after(1, () => more(number + 1));
  };
  more(501);
  await world.timers.advance(4);
  const before = world.timers.now();
  assert.equal(await world.timers.runToEnd(world.replica.stop(5000)), true);
  stopping = false;
  assert.ok(world.timers.now() - before < 100, `it took ${world.timers.now() - before} ms`);
});

test('stopping while the store is lost, or fails meanwhile, is not clean', async () => {
  const world = await replicaWorld();
  world.store.hold('open');
  world.store.faults.push('unknown');
  await world.submit(set('a', '1'));
  assert.equal(await world.timers.runToEnd(world.replica.stop(100)), false);

  const failing = await replicaWorld();
  failing.store.hold('commit');
  failing.store.hold('open');
  failing.store.faults.push('lose');
  const lost = failing.submit(set('a', '1'));
  await failing.settle();
  const stopped = failing.replica.stop(1000);
  failing.store.release('commit');
  assert.equal(await failing.timers.runToEnd(stopped), false);
  assert.equal((await lost).error?.code, 'STORE_UNAVAILABLE');
});

test('tickets go on counting when a new epoch begins, and still name the frame of the old one', async () => {
  let id = 'me.1';
  const world = await replicaWorld({
    onStoreBack: async () => {
      id = 'me.2';
      return id;
    },
  });
  await world.submit(set('a', '1'));
  const old = await world.submit(set('a', '2'));
  assert.equal(old.frame, 2);
  world.store.loseData();
  await world.submit(set('a', '3'));
  await world.timers.advance(1000);
  assert.equal(world.replica.id, 'me.2');
  assert.equal(world.replica.lastTicket, 2);
  assert.deepEqual(world.replica.frameOf(2), { replica: 'me.1', number: 2 });
  const fresh = await world.submit(set('a', '4'));
  assert.equal(fresh.frame, 3);
  assert.deepEqual(world.replica.frameOf(3), { replica: 'me.2', number: 1 });
  assert.deepEqual(world.replica.frameOf(1), { replica: 'me.1', number: 1 });
});

test('a frame waits for what it supersedes even where another node of the region has applied more', async () => {
  // The other node merged a frame of you.1 that this one hasn't seen; what is stored holds its dots.
  const ruleOptions = [{ pattern: 'max:*', type: 'string', policy: 'max' }] as const;
  const there = await replicaWorld({ id: 'you.1', ruleOptions });
  await there.submit(set('max:k', '9'));
  await there.submit(add('s', 'm'));
  const node = await replicaWorld({ id: 'me.1', ruleOptions });
  const beside = await replicaWorld({
    id: 'beside.1',
    ruleOptions,
    storeOptions: { dataset: node.store.dataset },
  });
  assert.equal(await merge(beside, ...there.frames.map(({ bytes }) => decodeFrame(bytes, 1 << 20))), null);
  await node.submit(set('max:k', '3'));
  await node.submit(on('s', (tx, key) => tx.remove(key, [utf8('m')]), ['m']));
  assert.equal(node.frames[0]!.deps.get('you.1'), there.frames[0]!.stamp);
  assert.equal(node.frames[1]!.deps.get('you.1'), there.frames[1]!.stamp);
});

test('a write comes after what another node with a faster clock has stored', async () => {
  const node = await replicaWorld({ id: 'me.1' });
  const beside = await replicaWorld({ id: 'zz.1', storeOptions: { dataset: node.store.dataset } });
  await beside.timers.advance(20_000);
  await beside.submit(set('k', 'theirs'));
  const outcome = await node.submit(set('k', 'mine'));
  assert.equal(outcome.error, null);
  assert.deepEqual(await stringsOf(node, 'k'), ['mine']);
});

test('conflicts name winner, loser, values and reason', async () => {
  const world = await replicaWorld();
  await merge(world, frameOf('you.1', 1, 'other', 'x'));
  for (const value of ['first', 'mine']) await world.submit(set('k', value));
  await merge(world, frameOf('you.1', 2, 'k', 'theirs'));
  const [conflict] = world.conflicts;
  assert.equal(world.conflicts.length, 1);
  assert.equal(conflict!.winner.value, 'mine');
  assert.equal(conflict!.loser.value, 'theirs');
  assert.equal(conflict!.loser.replica, 'you.1');
  assert.equal(conflict!.reason, 'later');
});

test('whole states and their marks are committed together with what they say', async () => {
  const world = await replicaWorld();
  const stamp = START + 5;
  const state: KeyState = {
    ...emptyKeyState(),
    touched: stamp,
    set: {
      context: new Map([['you.1', stamp]]),
      entries: new Map([[utf8('m'), [{ replica: 'you.1', stamp }]]]),
      whole: true,
      size: 1,
    },
  };
  const mark: AppliedMark = { replica: 'you.1', number: 9, stamp };
  const outcome = await new Promise<Error | null>((done) =>
    world.replica.merge({ frames: [], states: [[utf8('s'), state]], marks: [mark], done }),
  );
  assert.equal(outcome, null);
  assert.equal(applied(world, 'you.1'), 9);
  assert.deepEqual(world.store.dataset.applied.get('you.1'), mark);
  assert.deepEqual(await world.store.members(utf8('s')), ['m']);
});

test('writes go on after the store was away and another node with a faster clock wrote meanwhile', async () => {
  const node = await replicaWorld({ id: 'me.1' });
  const stamp = START + 20_000 * 4096;
  node.store.hold('open');
  node.store.faults.push('lose');
  await node.submit(set('k', 'lost'));
  node.store.dataset.applied.set('you.1', { replica: 'you.1', number: 3, stamp });
  node.store.release('open');
  await node.settle();
  const outcome = await node.submit(set('k', 'mine'));
  assert.equal(outcome.error, null);
  assert.equal(node.frames[0]!.deps.get('you.1'), stamp);
});

test('frames that were being loaded when a commit was refused stay behind those of the commit', async () => {
  const world = await replicaWorld();
  world.store.hold('commit');
  world.store.faults.push('refuse');
  const first = merge(world, frameOf('you.1', 1, 'k', '1'));
  await world.settle();
  world.store.hold('load');
  const second = merge(world, frameOf('you.1', 2, 'other', '2'));
  await world.settle();
  assert.equal(world.store.held('load'), 1, 'the second is being loaded');
  world.store.release('commit');
  await world.settle();
  world.store.release('load');
  await world.timers.advance(1000);
  assert.deepEqual([await first, await second], [null, null]);
  const last = world.store.commits.at(-1)!;
  assert.deepEqual(
    last.writes.map(({ key }) => key),
    ['k', 'other'],
    'in their order: a set would take what comes late for removed',
  );
});

test('a plain write and then more to the same key, in one batch, is one frame that says both', async () => {
  const world = await replicaWorld();
  const set = (value: string, expiry: 'clear' | number) =>
    world.submit({
      needs: [{ key: utf8('k'), blind: true }],
      run: (tx) => tx.set(utf8('k'), utf8(value), expiry),
    });
  const deadline = world.timers.now() + 60_000;
  const told = [set('a', 'clear'), set('b', deadline), set('c', 'clear'), set('d', 'clear')];
  await world.settle();
  assert.deepEqual(
    (await Promise.all(told)).map(({ error }) => error),
    [null, null, null, null],
  );
  assert.equal(world.frames.length, 1);
  assert.deepEqual(world.frames[0]!.deltas.map(keyOf), ['k']);
  assert.deepEqual(await stringsOf(world, 'k'), ['d']);
  const again = [set('e', 'clear'), set('f', deadline)];
  await world.settle();
  assert.deepEqual(
    (await Promise.all(again)).map(({ error }) => error),
    [null, null],
  );
  assert.deepEqual(await stringsOf(world, 'k'), ['f']);
  assert.deepEqual(await world.timers.runToEnd(world.store.deadlines([utf8('k')])), [deadline]);
});

test('keys that surely are new are written without being loaded; a wrong guess is found out, and harms nothing', async () => {
  const world = await replicaWorld();
  const blindly = (key: string, value: string) => ({
    ...set(key, value),
    needs: [{ key: utf8(key), blind: true }],
  });
  await Promise.all(Array.from({ length: 64 }, (_, i) => world.submit(blindly(`new:${i}`, 'v'))));
  assert.equal(world.store.loads.length, 1);
  await Promise.all(Array.from({ length: 64 }, (_, i) => world.submit(blindly(`newer:${i}`, 'v'))));
  assert.equal(world.store.loads.length, 1, 'guessed');
  // Another node on the same store has written one of the keys meanwhile.
  const other = await replicaWorld({ id: 'b.1', storeOptions: { dataset: world.store.dataset } });
  await other.submit(increment('theirs'));
  const commits = world.store.commits.length;
  const [, deleted] = await Promise.all([
    world.submit(blindly('theirs', 'mine')),
    world.submit(on('newer:1', (tx, key) => tx.delete(key))),
  ]);
  assert.equal(deleted.value, true);
  assert.equal(world.store.commits.length, commits + 2, 'stale, then again');
  assert.deepEqual(await stringsOf(world, 'theirs', 'newer:1', 'newer:2'), ['mine', null, 'v']);
  await world.submit(blindly('another', 'v'));
  assert.deepEqual(world.store.loads.at(-1), [utf8('another')], 'no more guesses for a while');
});

test('a guess that a key is not there is no knowledge of it for whoever reads it in the same batch', async () => {
  const world = await replicaWorld();
  const blindSet = (key: string, value: string) => ({
    ...set(key, value),
    needs: [{ key: utf8(key), blind: true }],
  });
  await world.submit(set('there', '41'));
  // Known to the store, and to no one here; and enough new keys to make the replica guess.
  world.replica.invalidate([utf8('there')]);
  for (let i = 0; i < 100; i += 1) await world.submit(blindSet(`new ${i}`, 'v'));
  const outcomes = await Promise.all([
    world.submit(blindSet('there', '42')),
    world.submit(increment('there')),
    world.submit(blindSet('another', '1')),
  ]);
  assert.deepEqual(
    outcomes.map(({ error, value }) => [error, value]),
    [
      [null, true],
      [null, 43],
      [null, true],
    ],
  );
  // Alone it is a guess, and a wrong one: the batch runs again.
  world.replica.invalidate([utf8('there')]);
  assert.equal((await world.submit(blindSet('there', '7'))).error, null);
  assert.equal((await world.submit(increment('there'))).value, 8);
});
