/** Frames that nobody has any more: when that is certain, and how delivery goes on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ReplicaId } from '../crdts/dot.js';
import { CausalDelivery } from '../src/replica/causal-delivery.js';
import type { Frame } from '../src/replica/frame.js';
import { type Evidence, findHoles, HoleWatch, isNext, type Witness } from '../src/sync/holes.js';

/** Replica → number of the last applied frame; stamps are ten times that. */
type Marks = Record<ReplicaId, number>;
/** Replica → numbers of frames that are held back: first and last. */
type Held = Record<ReplicaId, readonly [first: number, last: number]>;

function marks(numbers: Marks) {
  return new Map(
    Object.entries(numbers).map(([replica, number]) => [replica, { replica, number, stamp: 10 * number }]),
  );
}

function own(applied: Marks, held: Held, more: Partial<Evidence> = {}): Evidence {
  return {
    replica: 'me.1',
    applied: marks(applied),
    delivered: marks(applied),
    held: new Map(
      Object.entries(held).map(([replica, [first]]) => [replica, { number: first, stamp: 10 * first }]),
    ),
    awaited: new Set(),
    forgotten: new Set(),
    ...more,
  };
}

function witness(replica: ReplicaId, applied: Marks, held: Held = {}, heardAtMs = 0): Witness {
  return {
    peerId: replica.slice(0, replica.indexOf('.')),
    replica,
    applied: new Map(Object.entries(applied)),
    held: Object.entries(held).map(([id, [first, last]]) => ({ replica: id, first, last })),
    heardAtMs,
  };
}

const HOLE = { replica: 'a.1', after: 3, next: 6, before: 60 };
const all = own({ 'a.1': 3 }, { 'a.1': [6, 9] });

test('a hole is what a retired replica lacks everywhere, between what all have applied and what is held', () => {
  const agreed = [witness('a.2', { 'a.1': 3 }), witness('c.1', { 'a.1': 3 }, { 'a.1': [6, 9] })];
  assert.deepEqual(findHoles(all, agreed), [HOLE]);
  assert.deepEqual(findHoles(own({}, { 'a.1': [2, 2] }), [witness('a.2', {})]), [
    { replica: 'a.1', after: 0, next: 2, before: 20 },
  ]);
});

test('it is none while anything speaks against it', () => {
  const owner = witness('a.2', { 'a.1': 3 });
  const cases: Record<string, [Evidence, Witness[]]> = {
    'its owner still runs that epoch': [all, [witness('a.1', { 'a.1': 3 })]],
    'nobody knows its owner': [all, [witness('c.1', { 'a.1': 3 })]],
    'someone has applied more': [all, [owner, witness('c.1', { 'a.1': 4 })]],
    'someone has applied less, and will be repaired': [all, [owner, witness('c.1', { 'a.1': 2 })]],
    'someone holds the missing frame': [all, [owner, witness('c.1', { 'a.1': 3 }, { 'a.1': [4, 4] })]],
    'someone holds one before the first that is here': [
      all,
      [owner, witness('c.1', { 'a.1': 3 }, { 'a.1': [5, 9] })],
    ],
    'the next frame is here, and waits for something else': [own({ 'a.1': 3 }, { 'a.1': [4, 9] }), [owner]],
    'frames are being committed': [
      own({ 'a.1': 3 }, { 'a.1': [6, 9] }, { delivered: marks({ 'a.1': 4 }) }),
      [owner],
    ],
    'it is this very replica': [own({ 'me.1': 3 }, { 'me.1': [6, 9] }), [witness('c.1', { 'me.1': 3 })]],
  };
  for (const [what, [evidence, witnesses]] of Object.entries(cases))
    assert.deepEqual(findHoles(evidence, witnesses), [], what);
});

test('the replicas of a forgotten member are retired, and so are this node’s own earlier ones', () => {
  const forgotten = own({ 'a.1': 3 }, { 'a.1': [6, 9] }, { forgotten: new Set(['a']) });
  assert.deepEqual(findHoles(forgotten, [witness('c.1', { 'a.1': 3 })]), [HOLE]);
  const mine = own({ 'me.0': 3 }, { 'me.0': [6, 9] });
  assert.deepEqual(findHoles(mine, [witness('c.1', { 'me.0': 3 })]), [{ ...HOLE, replica: 'me.0' }]);
  assert.deepEqual(findHoles(mine, []), [{ ...HOLE, replica: 'me.0' }], 'alone');
});

test('a lost tail that held frames depend on is a hole without an end', () => {
  const waiting = own({ 'a.1': 3, 'c.1': 1 }, { 'c.1': [2, 2] }, { awaited: new Set(['a.1']) });
  const found = findHoles(waiting, [witness('a.2', { 'a.1': 3 })]);
  assert.deepEqual(found, [{ replica: 'a.1', after: 3, next: null, before: Number.POSITIVE_INFINITY }]);
  assert.deepEqual(findHoles(waiting, [witness('a.2', { 'a.1': 3 }, { 'a.1': [7, 7] })]), []);
});

test('the frame behind a hole comes after everything that it may depend on', () => {
  const owner = witness('a.2', { 'a.1': 3, 'c.1': 5 });
  const evidence = (applied: Marks, held: Held = {}) =>
    own({ 'a.1': 3, ...applied }, { 'a.1': [6, 9], ...held });
  assert.equal(isNext(HOLE, evidence({ 'c.1': 5 }), [owner]), true);
  assert.equal(isNext(HOLE, evidence({ 'c.1': 4 }), [owner]), false, 'someone has applied more');
  assert.equal(
    isNext(HOLE, evidence({ 'c.1': 5 }, { 'd.1': [5, 5] }), [owner]),
    false,
    'a lesser stamp is held',
  );
  assert.equal(
    isNext(HOLE, evidence({ 'c.1': 5 }, { 'd.1': [7, 7] }), [owner]),
    true,
    'a greater one is held',
  );
  const holder = witness('e.1', { 'a.1': 3 }, { 'd.1': [5, 8] });
  assert.equal(isNext(HOLE, evidence({}), [holder]), false, 'someone holds what is not here');
  assert.equal(isNext(HOLE, evidence({}, { 'd.1': [7, 7] }), [holder]), false, 'and its first is not here');
  assert.equal(isNext(HOLE, evidence({ 'd.1': 8 }), [holder]), true, 'applied here since then');
});

test('a hole is certain when it has stayed, all have said so again, and each was asked in vain', () => {
  const watch = new HoleWatch(300);
  const at = (heardAtMs: number) => [
    witness('a.2', { 'a.1': 3 }, {}, heardAtMs),
    witness('c.1', { 'a.1': 3 }, {}, heardAtMs),
  ];
  const nothing = { ask: [], certain: [], skip: [] };
  assert.deepEqual(watch.look(all, at(1000), 1000), nothing);
  assert.deepEqual(watch.look(all, at(1250), 1299), nothing, 'too early');
  assert.deepEqual(watch.look(all, [...at(1250).slice(1), ...at(1000)], 1400), nothing, 'one was silent');
  assert.deepEqual(watch.look(all, at(1250), 1400).ask, [{ hole: HOLE, peer: 'a' }]);
  watch.answered(HOLE, 'a');
  assert.deepEqual(watch.look(all, at(1250), 1401), { ...nothing, ask: [{ hole: HOLE, peer: 'c' }] });
  watch.answered(HOLE, 'c');
  assert.deepEqual(watch.look(all, at(1250), 1402), { ask: [], certain: [HOLE], skip: [HOLE] });
});

test('whatever changes begins the watch anew, and so does a member that goes away', () => {
  const changes: Record<string, [Evidence, Witness[] | null]> = {
    'a frame was found': [own({ 'a.1': 3 }, { 'a.1': [5, 9] }), [witness('a.2', { 'a.1': 3 }, {}, 1100)]],
    'a frame was applied': [own({ 'a.1': 4 }, { 'a.1': [6, 9] }), [witness('a.2', { 'a.1': 4 }, {}, 1100)]],
    'a member is away': [all, null],
    'someone claims more': [all, [witness('a.2', { 'a.1': 5 }, {}, 1100)]],
  };
  for (const [what, [evidence, witnesses]] of Object.entries(changes)) {
    const watch = new HoleWatch(300);
    const agreed = [witness('a.2', { 'a.1': 3 }, {}, 1250)];
    watch.look(all, agreed, 1000);
    watch.look(evidence, witnesses, 1100);
    assert.deepEqual(watch.look(all, agreed, 1300).ask, [], what);
  }
  const watch = new HoleWatch(0);
  watch.look(all, [witness('a.2', { 'a.1': 3 }, {}, 1000)], 1000);
  watch.answered({ ...HOLE, next: 5 }, 'a');
  watch.restart();
  watch.answered(HOLE, 'a');
  assert.equal(watch.open, 0, 'what was asked for before says nothing');
});

// ---- delivery

function frame(replica: ReplicaId, number: number, deps: Record<ReplicaId, number> = {}): Frame {
  const bytes = new Uint8Array(10);
  return {
    replica,
    number,
    stamp: 10 * number,
    deps: new Map(Object.entries(deps)),
    full: false,
    deltas: [],
    bytes,
  };
}

const names = (frames: readonly Frame[]): string[] =>
  frames.map(({ replica, number }) => `${replica} ${number}`);

test('delivery goes on behind a hole, in order, and what depends on the lost frames is let through', () => {
  const delivery = new CausalDelivery(1_000, () => false);
  for (const each of [frame('a.1', 1), frame('a.1', 4), frame('a.1', 5), frame('b.1', 1, { 'a.1': 30 })])
    delivery.offer(each);
  assert.deepEqual(names(delivery.take(1000)), ['a.1 1']);
  assert.deepEqual([...delivery.awaited()], ['a.1']);
  delivery.lost('a.1', 40);
  assert.deepEqual(names(delivery.take(1000)), ['b.1 1'], 'its dot is lost');
  assert.deepEqual(delivery.held(), [{ replica: 'a.1', first: 4, last: 5 }]);
  delivery.skip('a.1', 4);
  assert.deepEqual(delivery.held(marks({ 'a.1': 1, 'b.1': 1 })), [{ replica: 'a.1', first: 4, last: 5 }]);
  assert.deepEqual(names(delivery.take(1000)), ['a.1 4', 'a.1 5']);
  assert.equal(delivery.marks.get('a.1')?.stamp, 50);
  assert.equal(delivery.offer(frame('a.1', 2)), 'known', 'a copy that comes too late');
});

test('a lost tail that turns up again is waited for again', () => {
  const delivery = new CausalDelivery(1_000, () => false);
  delivery.lost('a.1', Number.POSITIVE_INFINITY);
  delivery.offer(frame('a.1', 2));
  delivery.offer(frame('b.1', 1, { 'a.1': 20 }));
  assert.deepEqual(names(delivery.take(1000)), []);
  delivery.offer(frame('a.1', 1));
  assert.deepEqual(names(delivery.take(1000)), ['a.1 1', 'a.1 2', 'b.1 1']);
});

test('what is being committed is told as held, from the first frame that the store has not got', () => {
  const delivery = new CausalDelivery(1_000, () => false);
  for (const number of [1, 2, 3, 7]) delivery.offer(frame('a.1', number));
  delivery.take(1000);
  assert.deepEqual(delivery.held(marks({ 'a.1': 1 })), [{ replica: 'a.1', first: 2, last: 7 }]);
  assert.deepEqual(delivery.held(marks({ 'a.1': 3 })), [{ replica: 'a.1', first: 7, last: 7 }]);
});
