/** Explanations say what happened, as plain JSON. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ByteString,
  type ExplainedKey,
  emptyKeyState,
  explainKey,
  readable,
  setType,
  stampMs,
  UNLOADED,
  utf8,
  valuesType,
  visibleType,
} from '../crdts/index.js';
import { anySteps, play } from './support/crdt-history.js';
import { keySubject } from './support/crdt-keys.js';
import { units } from './support/crdt-oracle.js';
import { check } from './support/crdt-runs.js';
import { two } from './support/crdt-world.js';

test('explains any state as plain JSON that adds up, and changes nothing', () => {
  check(
    300,
    fc.property(anySteps, (steps) => {
      for (const { state } of play(keySubject, steps).replicas) {
        const before = keySubject.encode(state);
        const found = explainKey(state, 0);
        assert.deepEqual(JSON.parse(JSON.stringify(found)), found);
        assert.equal(keySubject.encode(state), before);
        assert.equal(found.type, visibleType(state, 0));
        const sum = (found.string?.counts ?? []).reduce((all, { counts }) => all + units(counts)!, 0n);
        assert.equal(sum, units(found.string?.counted ?? '0'));
        for (const { increments, decrements, cancelled, counts } of found.string?.counts ?? []) {
          assert.equal(units(increments)! - units(decrements)!, units(cancelled)! + units(counts)!);
        }
        assert.equal(found.set?.members.length ?? 0, state.set?.size ?? 0);
      }
    }),
  );
});

test('explains an increment beside a SET', () => {
  const { w, a, b } = two();
  a.set('100');
  a.incr(2);
  w.sync();
  a.incr(5);
  b.set('10');
  w.sync();
  const { type, hidden, why, string } = explainKey(a.state, w.now);
  assert.deepEqual([type, hidden, why], ['string', [], 'a string, and nothing else']);
  assert.deepEqual(string!.value, { text: '15' });
  assert.equal(string!.winner!.replica, 'B');
  assert.equal(string!.winner!.write, 'set');
  assert.deepEqual(string!.winner!.value, { text: '10' });
  assert.equal(string!.winner!.time, new Date(stampMs(string!.winner!.stamp)).toISOString());
  assert.equal(string!.counts.length, 1);
  const [count] = string!.counts;
  assert.deepEqual(
    [count!.replica, count!.increments, count!.decrements, count!.cancelled, count!.counts],
    ['A', '7', '0', '2', '5'],
  );
  assert.ok(string!.countsApplied);
  assert.match(string!.why, /the SET by B .* increments of 1 replica .* added/);
});

test('explains increments that text keeps aside, and those that a DEL cancelled', () => {
  const { w, a, b } = two();
  a.set('abc');
  b.incr(1);
  w.sync();
  const aside = explainKey(a.state, w.now).string!;
  assert.deepEqual(aside.value, { text: 'abc' });
  assert.equal(aside.countsApplied, false);
  assert.match(aside.why, /kept aside/);
  b.del();
  const cancelled = explainKey(b.state, w.now);
  assert.equal(cancelled.type, 'none');
  assert.equal(cancelled.string!.winner!.write, 'delete');
  assert.deepEqual(
    cancelled.string!.counts.map(({ replica, cancelled, counts }) => [replica, cancelled, counts]),
    [['B', '1', '0']],
  );
  assert.equal(cancelled.string!.live, false);
});

test('explains which of two types is hidden', () => {
  const { w, a, b } = two();
  a.set('v');
  b.sadd('m');
  w.sync();
  const found = explainKey(a.state, w.now);
  assert.deepEqual([found.type, found.hidden], ['set', ['string']]);
  assert.match(found.why, /the set by B at .* comes after the string by A at /);
  assert.deepEqual(found.set!.members[0]!.member, { text: 'm' });
  assert.deepEqual(
    found.set!.members[0]!.addedBy.map(({ replica }) => replica),
    ['B'],
  );
  b.del();
  assert.deepEqual(explainKey(b.state, w.now).hidden, []);
});

test('explains deadlines', () => {
  const { w, a, b } = two();
  a.set('v');
  w.sync();
  a.expire(10);
  b.expire(50);
  w.sync();
  const before = explainKey(a.state, w.now).expiry!;
  assert.deepEqual(
    before.candidates.map(({ replica, holds }) => [replica, holds]),
    [
      ['A', false],
      ['B', true],
    ],
  );
  assert.equal(before.expired, false);
  const later = explainKey(a.state, w.now + 60_000);
  assert.equal(later.type, 'none');
  assert.equal(later.expiry!.expired, true);
  assert.match(later.why, /a string whose deadline passed/);
  a.expire(null);
  assert.equal(explainKey(a.state, w.now).expiry!.deadline, null);
});

test('explains a key that was never written', () => {
  const found: ExplainedKey = explainKey(emptyKeyState(), 0);
  assert.deepEqual(
    { ...found, why: '' },
    { type: 'none', hidden: [], why: '', touched: null, string: null, set: null, values: null, expiry: null },
  );
});

test('explains concurrent values that a policy chooses among', () => {
  const state = emptyKeyState();
  state.values = valuesType.empty();
  for (const [replica, stamp, value] of [
    ['B', 4096, '7'],
    ['A', 8192, '5'],
  ] as const) {
    const written = { bytes: value as ByteString, region: utf8('Zürich') };
    valuesType.merge(
      state.values,
      valuesType.mutate(valuesType.empty(), { op: 'write', value: written }, { replica, stamp }),
    );
  }
  const found = explainKey(state, 0);
  assert.deepEqual([found.type, found.hidden], ['string', []]);
  assert.deepEqual(
    found.values!.siblings.map(({ replica, value, region }) => [replica, value, region]),
    [
      ['B', { text: '7' }, 'Zürich'],
      ['A', { text: '5' }, 'Zürich'],
    ],
  );
  assert.match(found.values!.why, /policy/);
});

test('explains what is loaded of a string and of a set', () => {
  const { w, a } = two();
  a.set('v');
  a.state.string!.register.value = UNLOADED;
  const string = explainKey(a.state, w.now).string!;
  assert.deepEqual(string.value, { unloaded: true });
  assert.deepEqual(string.winner!.value, { unloaded: true });

  const set = emptyKeyState();
  set.set = setType.empty();
  const members = Array.from({ length: 150 }, (_, i) => `m${i}` as ByteString);
  setType.merge(set.set, setType.mutate(set.set, { op: 'add', members }, { replica: 'r', stamp: 9 }));
  const all = explainKey(set, 0).set!;
  assert.deepEqual([all.members.length, all.more, all.size, all.whole], [100, 50, 150, true]);
  const few = explainKey(set, 0, { limit: 3 }).set!;
  assert.deepEqual([few.members.length, few.more], [3, 147]);
});

test('shows text as text, other bytes escaped, and long ones cut', () => {
  assert.deepEqual(readable(utf8('grün \\ 😀')), { text: 'grün \\ 😀' });
  assert.deepEqual(readable('' as ByteString), { text: '' });
  assert.deepEqual(readable('a\\\xff\x00' as ByteString), { escaped: 'a\\x5c\\xff\\x00' });
  assert.deepEqual(readable('two\nlines' as ByteString), { escaped: 'two\\x0alines' });
  assert.deepEqual(readable('abcdef' as ByteString, 4), { text: 'abcd', cutFrom: 6 });
});
