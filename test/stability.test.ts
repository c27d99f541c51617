/** What all members have applied: reports, the stable stamp, and who counts (src/sync/stability.ts, members.ts, notes.ts). */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { packBytes } from '../src/replica/msgpack.js';
import { MemoryStore } from '../src/store/memory.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import type { AppliedMark } from '../src/store/store.js';
import { Members } from '../src/sync/members.js';
import { type Heartbeat, MAX_FORGOTTEN, MAX_MEMBERS, PROTOCOL_VERSION } from '../src/sync/messages.js';
import { decodeNotes, encodeNotes, joinNotes, type Notes } from '../src/sync/notes.js';
import { SharedNotes } from '../src/sync/shared-notes.js';
import {
  coversFloor,
  isInOrder,
  type Report,
  ReportQueue,
  Stability,
  StableHistory,
} from '../src/sync/stability.js';
import { NOTHING_ELSE } from './support/heartbeat.js';

type Marks = Readonly<Record<string, readonly [number: number, stamp: number]>>;

function marks(applied: Marks): Map<string, AppliedMark> {
  return new Map(
    Object.entries(applied).map(([replica, [number, stamp]]) => [replica, { replica, number, stamp }]),
  );
}

const report = (replica: string, applied: Marks, held: Report['held'] = []): Report => ({
  replica,
  applied: marks(applied),
  held,
});

test('a report counts once the frames that its sender had made before it are applied here', () => {
  const said = report('b.2', { 'a.1': [9, 90], 'b.1': [4, 40], 'b.2': [7, 70] });
  const has = (b1: number, b2: number, a1 = 9) =>
    isInOrder(said, marks({ 'a.1': [a1, 90], 'b.1': [b1, 40], 'b.2': [b2, 70] }));
  assert.equal(has(4, 7), true);
  assert.equal(has(4, 6), false);
  assert.equal(has(3, 7), false, 'an earlier epoch too');
  assert.equal(has(4, 7, 8), false, 'a may use the same store as b');
  assert.equal(isInOrder(said, marks({})), false);
});

test('under steady writes the first report that waits is not pushed out by later ones', () => {
  const queue = new ReportQueue();
  for (let number = 1; number <= 9; number += 1) {
    queue.add(report('b.1', { 'b.1': [number, number * 10], 'a.1': [number, number] }));
    // This node is always one frame behind what was said last.
    queue.settle(marks({ 'b.1': [number - 1, 1], 'a.1': [9, 9] }));
    if (number > 1) assert.ok(queue.current !== null, `after ${number}`);
  }
  queue.settle(marks({ 'b.1': [9, 90], 'a.1': [9, 9] }));
  assert.equal(queue.current!.applied.get('b.1')!.number, 9, 'the last word counts in the end');
});

test('the stable stamp is the least over all members and all replicas', () => {
  const stability = new Stability(0);
  const own = report('a.1', { 'a.1': [5, 50], 'b.1': [4, 45] });
  const cases: [string, (Report | null)[], number][] = [
    ['alone', [], 45],
    ['both know the same', [report('b.1', { 'a.1': [5, 50], 'b.1': [4, 45] })], 45],
    ['the other is behind', [report('b.1', { 'a.1': [3, 30], 'b.1': [4, 45] })], 30],
    ['the other knows nothing of a replica', [report('b.1', { 'b.1': [4, 45] })], 0],
    [
      'the other knows one that is unknown here',
      [report('b.1', { 'a.1': [5, 50], 'b.1': [4, 45], 'c.1': [1, 10] })],
      0,
    ],
    ['one has said nothing that counts', [report('b.1', { 'a.1': [5, 50], 'b.1': [4, 45] }), null], 0],
  ];
  for (const [what, others, stable] of cases) {
    const known = what === 'alone' ? report('a.1', { 'a.1': [5, 50], 'b.1': [4, 45] }) : own;
    // Alone, b is nobody's current replica; it is left out only after a second look.
    assert.equal(stability.look(known, others, 0).stamp, stable, what);
  }
});

test('a retired replica stops holding the stable stamp back when all have long agreed on it, and none holds a frame of it', () => {
  const stability = new Stability(1_000);
  const own = report('a.2', { 'a.1': [5, 50], 'a.2': [8, 200], 'b.1': [4, 190] });
  const same = report('b.1', { 'a.1': [5, 50], 'a.2': [8, 200], 'b.1': [4, 190] });
  const behind = report('b.1', { 'a.1': [4, 40], 'a.2': [8, 200], 'b.1': [4, 190] });
  const holding = report('b.1', { 'a.1': [5, 50], 'a.2': [8, 200], 'b.1': [4, 190] }, [
    { replica: 'a.1', first: 7, last: 7 },
  ]);
  assert.equal(stability.look(own, [same], 0).stamp, 50);
  assert.equal(stability.look(own, [same], 999).stamp, 50, 'not long enough');
  assert.equal(stability.look(own, [same], 1_000).stamp, 190);
  assert.equal(stability.look(own, [behind], 2_000).stamp, 40, 'someone lost it again');
  assert.equal(stability.look(own, [same], 2_500).stamp, 50, 'so the time begins anew');
  assert.equal(stability.look(own, [same], 3_500).stamp, 190);
  assert.equal(stability.look(own, [holding], 4_000).stamp, 50, 'a frame of it is held back');
  assert.equal(stability.look(own, [holding], 9_000).stamp, 50);
});

test('when all replicas are settled, everything that was ever made is stable', () => {
  const stability = new Stability(0);
  const own = report('a.2', { 'a.1': [5, 50], 'b.1': [4, 45] });
  const other = report('b.2', { 'a.1': [5, 50], 'b.1': [4, 45] });
  stability.look(own, [other], 0).stamp;
  assert.equal(stability.look(own, [other], 1).stamp, 50);
  const more = report('b.2', { 'a.1': [5, 50], 'b.1': [4, 45], 'c.1': [1, 10] });
  assert.equal(stability.look(own, [more], 2).stamp, 0, 'someone knows of one that is unknown here');
});

test('the stable numbers are what every member has of each replica', () => {
  const own = report('a.1', { 'a.1': [5, 50], 'b.1': [4, 45] });
  const other = report('b.1', { 'a.1': [3, 30], 'b.1': [6, 60], 'c.1': [2, 10] });
  assert.deepEqual(
    new Stability(0).look(own, [other], 0).numbers,
    new Map([
      ['a.1', 3],
      ['b.1', 4],
      ['c.1', 0],
    ]),
  );
});

test('only what has been stable for the time of grace may be forgotten', () => {
  const history = new StableHistory(800);
  const at = (nowMs: number): number => history.add({ stamp: nowMs, numbers: new Map() }, nowMs).stamp;
  for (let nowMs = 1_000; nowMs < 1_800; nowMs += 50) assert.equal(at(nowMs), 0);
  for (let nowMs = 1_800; nowMs < 9_000; nowMs += 50) {
    const stamp = at(nowMs);
    assert.ok(stamp <= nowMs - 800 && stamp >= nowMs - 1_000, `${stamp} at ${nowMs}`);
  }
  history.clear();
  assert.equal(at(9_000), 0);
  assert.equal(new StableHistory(0).add({ stamp: 7, numbers: new Map() }, 5).stamp, 7);
});

test('a floor is covered by whoever has applied those frames', () => {
  const floor = new Map([
    ['a.1', 5],
    ['b.1', 6],
  ]);
  assert.equal(coversFloor(marks({}), new Map()), true, 'nothing was forgotten');
  assert.equal(coversFloor(marks({}), floor), false);
  assert.equal(coversFloor(marks({ 'a.1': [5, 50], 'b.1': [6, 60] }), floor), true);
  assert.equal(coversFloor(marks({ 'a.1': [9, 90], 'b.1': [5, 50] }), floor), false);
});

const heartbeat = (peer: string, more: Partial<Heartbeat> = {}): Heartbeat => ({
  ...NOTHING_ELSE,
  version: PROTOCOL_VERSION,
  region: peer,
  replica: `${peer}.1`,
  rules: 'r',
  applied: [],
  born: 5,
  ...more,
});

test('who was counted counts until it is forgotten, and again when it is born anew', () => {
  const members = new Members({
    members: [{ peerId: 'away', born: 2 }],
    forgotten: [{ peerId: 'gone', born: 7 }],
  });
  assert.deepEqual(
    members.counted().map(({ peerId }) => peerId),
    ['away'],
  );
  assert.equal(members.count('gone'), false, 'a member that was forgotten isn’t counted on hearsay');
  assert.equal(members.isForgotten('gone', 7), true);
  assert.equal(members.isForgotten('gone', 8), false);
  members.heard('gone', heartbeat('gone', { born: 8 }), 1, 'me');
  assert.equal(members.count('gone'), true);
  assert.deepEqual(members.forgotten(), []);

  assert.equal(members.forget({ peerId: 'gone', born: 7 }), false, 'an old word doesn’t concern it');
  assert.equal(members.forget({ peerId: 'away', born: 9 }), true);
  assert.equal(members.forget({ peerId: 'away', born: 9 }), false, 'it is known');
  assert.deepEqual(
    members.counted().map(({ peerId }) => peerId),
    ['gone'],
  );
});

test('what a member said before it was born anew does not count', () => {
  const members = new Members();
  const stability = new Stability(0);
  const own = report('me.1', { 'me.1': [3, 30] });
  members.heard('b', heartbeat('b', { applied: [{ replica: 'me.1', number: 3, stamp: 30 }] }), 1, 'me');
  members.count('b');
  const stable = (): number => members.stable(stability, own, own.applied, 0).stamp;
  assert.equal(stable(), 30);
  members.heard('b', heartbeat('b', { born: 6 }), 2, 'me');
  assert.equal(stable(), 0);
});

test('members and forgotten ones are bounded', () => {
  const members = new Members();
  for (let i = 0; i < MAX_MEMBERS; i += 1) assert.equal(members.count(`p${i}`), true);
  assert.equal(members.isFull('one more'), true);
  assert.equal(members.isFull('p3'), false);
  assert.equal(members.count('one more'), false);
  for (let i = 0; i < MAX_FORGOTTEN + 5; i += 1) members.forget({ peerId: `p${i}`, born: 1 });
  assert.equal(members.forgotten().length, MAX_FORGOTTEN);
  assert.equal(members.isForgotten('p0', 1), false, 'the oldest goes first');
});

test('a report speaks for a store only together with those of all who use it', () => {
  const members = new Members();
  const stability = new Stability(0);
  const applied = [{ replica: 'me.1', number: 3, stamp: 30 }];
  const own = report('me.1', { 'me.1': [3, 30] });
  const stable = (): number => members.stable(stability, own, own.applied, 0).stamp;
  const hear = (peer: string, siblings: string[]): void => {
    members.heard(peer, heartbeat(peer, { applied, siblings, place: 'there' }), 1, 'me');
    members.count(peer);
  };
  hear('x', ['y']);
  assert.equal(stable(), 0, 'y is waited for, though it was never heard');
  hear('y', ['x']);
  assert.equal(stable(), 30);
  members.forget({ peerId: 'y', born: 9 });
  assert.equal(stable(), 0, 'what y made last may not be in what x has said');
  hear('x', ['y']);
  assert.equal(stable(), 0, 'y may still make more');
  hear('x', []);
  assert.equal(stable(), 30, 'x has retired y and speaks for it');
});

const noted = (floor: Record<string, number>, members: string, forgotten = ''): Notes => {
  const list = (text: string) =>
    text
      .split(' ')
      .filter((each) => each !== '')
      .map((each) => ({ peerId: each[0]!, born: Number(each.slice(1)) }));
  return { floor: new Map(Object.entries(floor)), members: list(members), forgotten: list(forgotten) };
};

test('notes of two nodes join to the same, however and how often', () => {
  const some = [
    noted({}, ''),
    noted({ 'a.1': 3 }, 'a1 b4'),
    noted({ 'a.1': 2, 'b.1': 7 }, 'b2', 'a5'),
    noted({ 'b.1': 9 }, 'a6', 'b4'),
    noted({ 'c.1': 1 }, 'c0', 'a6 d3'),
  ];
  const plain = (notes: Notes): string => encodeNotes(notes);
  for (const a of some) {
    assert.equal(plain(joinNotes(a, a)), plain(a));
    for (const b of some) {
      assert.equal(plain(joinNotes(a, b)), plain(joinNotes(b, a)));
      for (const c of some)
        assert.equal(plain(joinNotes(joinNotes(a, b), c)), plain(joinNotes(a, joinNotes(b, c))));
    }
  }
  assert.deepEqual(joinNotes(some[1]!, some[2]!), noted({ 'a.1': 3, 'b.1': 7 }, 'b4', 'a5'));
  assert.deepEqual(joinNotes(some[2]!, some[3]!).members, [{ peerId: 'a', born: 6 }], 'it has come back');
});

test('notes survive the store, those of an earlier release too, and damaged ones are refused', () => {
  const notes = noted({ 'a.1': 3 }, 'a2 b0', 'c3');
  assert.deepEqual(decodeNotes(encodeNotes(notes)), { ...notes, born: null });
  const old = packBytes([1, 5, ['a.1', 3], ['a', 'b'], ['c', 3]]);
  assert.deepEqual(decodeNotes(old), { ...noted({ 'a.1': 3 }, 'a0 b0', 'c3'), born: 5 });
  for (const damaged of ['', '\x90', '\x91\x01', encodeNotes(notes).slice(0, -1)])
    assert.throws(() => decodeNotes(damaged as ByteString), { code: 'DECODE' });
});

test('notes that two nodes change at once end as both wanted them', async () => {
  const dataset = new MemoryDataset();
  const make = async (members: string, forgotten = '') => {
    const store = new MemoryStore({ dataset });
    await store.open();
    const learned: Notes[] = [];
    const own = () => noted({}, members, forgotten);
    const notes = new SharedNotes({ store, own, onLearned: (all) => learned.push(all) }, dataset.notes);
    return { notes, learned };
  };
  const [one, two] = [await make('a1'), await make('b1', 'c4')];
  await Promise.all([
    one.notes.raiseFloor(new Map([['x.1', 3]])),
    two.notes.raiseFloor(
      new Map([
        ['x.1', 2],
        ['y.1', 5],
      ]),
    ),
  ]);
  const wanted = noted({ 'x.1': 3, 'y.1': 5 }, 'a1 b1', 'c4');
  assert.deepEqual(decodeNotes(dataset.notes!), { ...wanted, born: null });
  assert.equal(one.learned.length + two.learned.length, 1);
  one.notes.learn(dataset.notes);
  two.notes.learn(dataset.notes);
  for (const { notes } of [one, two]) assert.deepEqual(notes.floor, wanted.floor);
});
