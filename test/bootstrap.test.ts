/** When a node is loading, and when no more: the decision alone. What follows from it is tested in loading.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Applied, Bootstrap, GREETING_MS, type Source } from '../src/sync/bootstrap.js';

const T = 1_000_000;
const PATIENCE = 30_000;

const marks = (vector: Record<string, number>): Applied =>
  new Map(Object.entries(vector).map(([replica, number]) => [replica, { number }]));
const source = (peerId: string, vector: Record<string, number>, heardAtMs = T): Source => ({
  peerId,
  applied: new Map(Object.entries(vector)),
  heardAtMs,
});
const NOTHING = marks({});

function begun(
  peers: readonly string[] = ['/ip4/1.2.3.4/tcp/1/p2p/A', '/ip4/1.2.3.4/tcp/2/p2p/B'],
): Bootstrap {
  const bootstrap = new Bootstrap({ self: 'S', peers, patienceMs: PATIENCE });
  assert.equal(bootstrap.opened(true, 0, T), true);
  return bootstrap;
}

test('loading begins with an empty store and somebody to join, and not otherwise', () => {
  const make = (peers: readonly string[]) => new Bootstrap({ self: 'S', peers, patienceMs: PATIENCE });
  const peers = ['/dns4/a/tcp/1'];
  assert.equal(make(peers).opened(true, 0, T), true, 'peers are configured');
  assert.equal(make([]).opened(true, 1, T), true, 'a member is known');
  assert.equal(make([]).opened(true, 0, T), false, 'the first node of a mesh');
  assert.equal(make(['/ip4/1.2.3.4/tcp/1/p2p/S']).opened(true, 0, T), false, 'only itself is configured');
  assert.equal(make(peers).opened(false, 3, T), false, 'the store has something');
});

test('who knew of nobody begins when a member with data comes, unless it has data itself', () => {
  const alone = () => new Bootstrap({ self: 'S', peers: [], patienceMs: PATIENCE });
  assert.equal(alone().met(source('A', {}), NOTHING, T), false);
  assert.equal(alone().met(source('A', { a: 3 }), marks({ s: 1 }), T), false);
  const bootstrap = alone();
  assert.equal(bootstrap.met(source('A', { a: 3 }, T - 500), NOTHING, T), true);
  assert.equal(bootstrap.met(source('B', { b: 3 }), NOTHING, T), false, 'it has begun already');
  assert.equal(bootstrap.judge([source('A', { a: 3 }, T - 500)], NOTHING, T), 'loading');
  assert.equal(bootstrap.judge([source('A', { a: 9 })], marks({ a: 3 }), T + 1), 'caught up');
});

test('it ends when everything is applied that the members had at first, however much comes later', () => {
  const bootstrap = begun();
  const [a, b] = [source('A', { a: 100, b: 7 }), source('B', { a: 90, b: 8 })];
  assert.equal(bootstrap.judge([a, b], NOTHING, T + 1), 'loading');
  assert.equal(
    bootstrap.judge([source('A', { a: 500, b: 8 }), b], marks({ a: 100, b: 7 }), T + 2),
    'loading',
  );
  assert.equal(
    bootstrap.judge([source('A', { a: 900, b: 8 }), b], marks({ a: 100, b: 8 }), T + 3),
    'caught up',
  );
  assert.equal(bootstrap.sinceMs, null);
});

test('members of a new mesh say that they are empty, and all are ready at once', () => {
  const bootstrap = begun();
  assert.equal(bootstrap.judge([source('A', {})], NOTHING, T + 10), 'loading', 'B may have something');
  assert.equal(bootstrap.judge([source('A', {}), source('B', {})], NOTHING, T + 20), 'nothing there');
});

test('a configured peer that says nothing is waited for a little, once another has spoken', () => {
  for (const peers of [
    ['/ip4/1.2.3.4/tcp/1/p2p/A', '/ip4/1.2.3.4/tcp/2/p2p/B'],
    ['/dns4/a/tcp/1', '/dns4/b/tcp/1'],
  ]) {
    const bootstrap = begun(peers);
    const a = source('A', { a: 1 });
    assert.equal(bootstrap.judge([a], marks({ a: 1 }), T + GREETING_MS - 1), 'loading');
    assert.equal(bootstrap.judge([a], marks({ a: 1 }), T + GREETING_MS), 'caught up');
  }
});

test('what was said before the store came back counts for nothing', () => {
  const bootstrap = begun();
  // Both had lost everything: only the later word is true.
  const stale = [source('A', { a: 100 }, T - 1), source('B', { b: 100 }, T - 1)];
  assert.equal(bootstrap.judge(stale, NOTHING, T + 10), 'loading');
  assert.equal(bootstrap.next(stale, NOTHING), null);
  assert.equal(bootstrap.judge([source('A', {}), source('B', {})], NOTHING, T + 20), 'nothing there');
});

test('a member that loses data has a lesser goal from then on', () => {
  const bootstrap = begun(['/p2p/A']);
  assert.equal(bootstrap.judge([source('A', { a: 100, b: 5 })], NOTHING, T), 'loading');
  assert.equal(bootstrap.judge([source('A', { b: 5 })], marks({ b: 5 }), T + 1), 'caught up');
});

test('a giver that goes leaves its goal behind only while nobody present has anything', () => {
  const [gone, empty, full] = [source('A', { a: 100 }), source('B', {}), source('B', { a: 80 })];
  const first = begun();
  assert.equal(first.judge([gone, empty], NOTHING, T + 1), 'loading');
  assert.equal(first.judge([empty], NOTHING, T + GREETING_MS), 'loading', 'A had something');
  assert.equal(first.judge([empty], marks({ a: 100 }), T + GREETING_MS), 'nothing there');
  const second = begun();
  assert.equal(second.judge([gone, full], NOTHING, T + 1), 'loading');
  assert.equal(second.judge([full], marks({ a: 80 }), T + 2), 'caught up', 'all that can be had');
});

test('it is given up when nothing has moved for as long as the patience lasts, and never without a limit', () => {
  const bootstrap = begun();
  assert.equal(bootstrap.judge([], NOTHING, T + PATIENCE - 1), 'loading');
  bootstrap.moved(T + PATIENCE - 1);
  assert.equal(bootstrap.judge([], NOTHING, T + 2 * PATIENCE - 2), 'loading');
  assert.equal(bootstrap.judge([], NOTHING, T + 2 * PATIENCE - 1), 'gave up');
  const patient = new Bootstrap({ self: 'S', peers: ['/dns4/a/tcp/1'], patienceMs: 0 });
  patient.opened(true, 0, T);
  assert.equal(patient.judge([], NOTHING, T + 1e9), 'loading');
});

test('members that have something are asked in turn', () => {
  const bootstrap = begun();
  const present = [source('A', { a: 1 }), source('B', { a: 1 }), source('C', {})];
  bootstrap.judge(present, NOTHING, T);
  const asked = [1, 2, 3, 4].map(() => bootstrap.next(present, NOTHING));
  assert.deepEqual(asked.toSorted(), ['A', 'A', 'B', 'B']);
  assert.notEqual(asked[0], asked[1]);
});
