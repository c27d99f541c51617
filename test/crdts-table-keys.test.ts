/** ../shared/SEMANTICS.md, rows 18–28 as far as data types alone can tell them. A and B are regions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ByteString,
  cloneKeyState,
  deadlineOf,
  hasHiddenType,
  isExpired,
  mergeKeyState,
} from '../crdts/index.js';
import { keySubject } from './support/crdt-keys.js';
import { two, world } from './support/crdt-world.js';

test('row 18: concurrent adds are all there', () => {
  const { w, a, b } = two();
  a.sadd('a');
  b.sadd('b');
  assert.equal(w.members(), 'a,b');
});

test('row 19: a remove takes only what it saw', () => {
  const { w, a, b } = two();
  a.sadd('a', 'b');
  w.sync();
  a.srem('a');
  b.sadd('c');
  a.srem('c');
  assert.equal(w.members(), 'b,c');
});

test('row 20: an add survives a concurrent DEL', () => {
  const { w, a, b } = two();
  a.sadd('e1');
  w.sync();
  a.sadd('e2');
  b.del();
  assert.equal(w.members(), 'e2');
});

test('row 21: adding a member that is there wins over a concurrent remove', () => {
  const { w, a, b } = two();
  a.sadd('e');
  w.sync();
  a.sadd('e');
  b.srem('e');
  assert.equal(w.members(), 'e');
});

test('row 22: removed in turn by two and added again is there; a region that was away revives nothing', () => {
  const { w, a, b, c } = world('A', 'B', 'C');
  a.sadd('e', 'old');
  w.sync();
  const away = w.regions.pop()!;
  assert.equal(away, c);
  a.srem('e', 'old');
  w.sync();
  b.srem('e');
  w.sync();
  a.sadd('e');
  assert.equal(w.members(), 'e');
  w.regions.push(away);
  assert.equal(w.members(), 'e');
});

test('row 23: a member that two regions popped at once is gone on both', () => {
  const { w, a, b } = two();
  a.sadd('x', 'y');
  w.sync();
  a.srem('x');
  b.srem('x');
  assert.equal(w.members(), 'y');
});

test('row 24: adding and removing one member again and again leaves nothing behind', () => {
  const { w, a, b } = two();
  for (let i = 0; i < 2000; i += 1) {
    (i % 2 === 0 ? a : b).sadd('m');
    if (i % 50 === 0) w.sync();
    (i % 2 === 0 ? a : b).srem('m');
  }
  assert.equal(w.members(), '');
  assert.ok(keySubject.encode(a.state).length < 60, `${keySubject.encode(a.state).length} bytes`);
});

test('row 25: of two concurrent types the later one is visible everywhere, and DEL clears both', () => {
  for (const setLast of [true, false]) {
    const { w, a, b } = two();
    if (setLast) a.set('v');
    b.sadd('m');
    if (!setLast) a.set('v');
    w.sync();
    for (const region of w.regions) {
      assert.equal(region.type(), setLast ? 'set' : 'string');
      assert.ok(hasHiddenType(region.state));
    }
    b.del();
    w.sync();
    for (const region of w.regions) {
      assert.equal(region.type(), 'none');
      assert.ok(!hasHiddenType(region.state));
    }
  }
});

test('row 25: a string that was only counted is as old as its youngest count', () => {
  for (const countLast of [true, false]) {
    const { w, a, b } = two();
    if (!countLast) a.incr(1);
    b.sadd('m');
    if (countLast) a.incr(1);
    w.sync();
    for (const region of w.regions) assert.equal(region.type(), countLast ? 'string' : 'set');
  }
});

test('row 25: a SET ends a conflict of types', () => {
  const { w, a, b } = two();
  a.set('v');
  b.sadd('m');
  w.sync();
  a.set('w');
  assert.equal(w.get(), 'w');
  assert.ok(!hasHiddenType(b.state));
});

test('row 26: of concurrent deadlines the longest holds, PERSIST is longer than any, and one region alone may shorten', () => {
  const { w, a, b } = two();
  a.set('v');
  w.sync();
  const from = w.now;
  a.expire(10);
  b.expire(50);
  w.sync();
  assert.equal(deadlineOf(a.state.expiry), from + 50_001);
  a.expire(10);
  b.expire(null);
  w.sync();
  assert.equal(deadlineOf(a.state.expiry), null);
  a.expire(50);
  a.expire(10);
  w.sync();
  assert.equal(deadlineOf(b.state.expiry), w.now - 1 + 10_000);
});

test('row 27: an expired key is gone everywhere, and what comes after starts anew', () => {
  const counter = two();
  counter.a.set('41');
  counter.a.expire(10);
  counter.w.sync();
  counter.w.now += 20_000;
  assert.equal(counter.w.get(), null);
  assert.ok(isExpired(counter.b.state, counter.w.now));
  counter.b.incr(1);
  assert.equal(counter.w.get(), '1');
  assert.equal(deadlineOf(counter.a.state.expiry), null);

  const set = two();
  set.a.sadd('old');
  set.a.expire(10);
  set.w.sync();
  set.w.now += 20_000;
  assert.equal(set.w.members(), '');
  set.b.sadd('new');
  assert.equal(set.w.members(), 'new');
});

test('row 27: a key is gone from the millisecond of its deadline on', () => {
  const { w, a } = two();
  a.set('v');
  a.expire(1);
  const deadline = deadlineOf(a.state.expiry)!;
  w.now = deadline - 1;
  assert.equal(a.get(), 'v');
  w.now = deadline;
  assert.equal(a.get(), null);
});

test('row 27: two regions that add to an expired set at once get both members and no old one', () => {
  const { w, a, b } = two();
  a.sadd('old');
  a.expire(1);
  w.sync();
  w.now += 5000;
  a.sadd('x');
  b.sadd('y');
  assert.equal(w.members(), 'x,y');
});

test('row 28: SET clears the expiry, KEEPTTL keeps it', () => {
  const { w, a, b } = two();
  a.set('v');
  a.expire(100);
  const deadline = deadlineOf(a.state.expiry);
  b.receive(a);
  b.do({ op: 'SET', value: 'w' as ByteString, keepTtl: true });
  assert.equal(w.get(), 'w');
  assert.equal(deadlineOf(a.state.expiry), deadline);
  b.set('x');
  assert.equal(w.get(), 'x');
  assert.equal(deadlineOf(a.state.expiry), null);
});

test('row 28: a deadline that a SET did not see survives it', () => {
  const { w, a, b } = two();
  a.set('v');
  w.sync();
  a.expire(100);
  b.set('w');
  assert.equal(w.get(), 'w');
  assert.notEqual(deadlineOf(b.state.expiry), null);
});

test('a state that is merged again, or late, changes nothing', () => {
  const { w, a, b } = two();
  a.sadd('m');
  a.expire(100);
  w.sync();
  const late = cloneKeyState(a.state);
  b.srem('m');
  w.sync();
  assert.equal(mergeKeyState(b.state, late), false);
  assert.equal(w.members(), '');
});
