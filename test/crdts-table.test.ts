/** ../shared/SEMANTICS.md, rows 1–17 as far as data types alone can tell them. A and B are regions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ByteString,
  counterValue,
  emptyKeyState,
  MAX_INT64,
  mergeKeyState,
  NotAnIntegerError,
  OverflowError,
  stringValue,
} from '../crdts/index.js';
import { commandDeltaAt, keySubject } from './support/crdt-keys.js';
import { Region, START, two, world } from './support/crdt-world.js';

test('row 1: of two concurrent SETs the later one wins', () => {
  const { w, a, b } = two();
  a.set('a');
  b.set('b');
  assert.equal(w.get(), 'b');
  a.set('c');
  assert.equal(w.get(), 'c');
});

test('row 2: a region that is cut off reads its own value until it synchronises', () => {
  const { w, a, b } = two();
  a.set('c');
  assert.equal(w.get(), 'c');
  b.set('d');
  assert.deepEqual([a.get(), b.get()], ['c', 'd']);
  assert.equal(w.get(), 'd');
});

test('row 3: at equal stamps the greater replica id wins, whichever arrived first', () => {
  const site = (replica: string) => () => ({ replica, stamp: 4096 });
  const empty = emptyKeyState();
  const low = commandDeltaAt(empty, { op: 'SET', value: 'low' as ByteString }, START, site('A'));
  const high = commandDeltaAt(empty, { op: 'SET', value: 'high' as ByteString }, START, site('B'));
  for (const order of [
    [low, high],
    [high, low],
  ]) {
    const state = emptyKeyState();
    for (const delta of order) mergeKeyState(state, delta);
    assert.equal(stringValue(state.string!), 'high');
  }
});

test('row 4: of a SET and a concurrent DEL the later one wins', () => {
  for (const setFirst of [true, false]) {
    const { w, a, b } = two();
    a.set('0');
    w.sync();
    if (setFirst) a.set('1');
    b.del();
    if (!setFirst) a.set('1');
    assert.equal(w.get(), setFirst ? null : '1');
  }
});

test('row 5: after a cut the last of three writes wins', () => {
  const { w, a, b } = two();
  a.set('b2');
  w.now += 1000;
  b.set('b1');
  w.now += 1000;
  a.set('b3');
  assert.equal(w.get(), 'b3');
});

test('row 6: writes at the same moment never swap', () => {
  for (let i = 0; i < 1000; i += 1) {
    const { w, a, b } = two();
    w.now += i;
    a.set('x');
    w.now -= 1;
    b.set('y');
    assert.equal(w.get(), 'y');
  }
});

test('row 7: a key that was deleted while a region was down stays gone', () => {
  const { w, a, b } = two();
  a.set('v');
  w.sync();
  const stored = keySubject.encode(b.state);
  a.del();
  for (let restart = 0; restart < 2; restart += 1) {
    b.state = keySubject.decode(stored);
    assert.equal(w.get(), null);
  }
});

test('row 11: concurrent increments and decrements all count', () => {
  const { w, a, b } = two();
  a.incr(7);
  b.incr(3);
  assert.deepEqual([a.get(), b.get()], ['7', '3']);
  assert.equal(w.get(), '10');
  a.incr(-3);
  b.incr(6);
  assert.equal(w.get(), '13');
});

test('row 12: a region that restarts under a new identity loses and doubles no increment', () => {
  const { w, a, b, c } = world('A.1', 'B.1', 'C.1');
  const again = new Region(w, 'B.2');
  for (let i = 0; i < 500; i += 1) {
    a.incr(1);
    (i < 250 ? b : again).incr(1);
    c.incr(1);
    if (i === 249) {
      again.state = keySubject.decode(keySubject.encode(b.state));
      again.clock.observe(b.clock.last);
    }
    if (i % 100 === 0) w.sync();
  }
  w.regions[1] = again;
  assert.equal(w.get(), '1500');
});

test('row 13: an increment that a SET did not see survives it', () => {
  const { w, a, b } = two();
  a.set('100');
  w.sync();
  a.incr(5);
  b.set('10');
  assert.equal(w.get(), '15');
  b.set('1');
  assert.equal(w.get(), '1');
});

test('row 14: an increment that a DEL did not see starts from 0', () => {
  const { w, a, b } = two();
  a.set('10');
  w.sync();
  a.incr(1);
  b.del();
  assert.equal(w.get(), '1');
  a.set('10');
  w.sync();
  a.del();
  w.sync();
  b.incr(1);
  assert.equal(w.get(), '1');
});

test('row 15: fractions and integers of all regions add up to the same bytes', () => {
  const { w, a, b, c } = world('A', 'B', 'C');
  a.incrFloat('1.1');
  b.incrFloat('1.9');
  c.incr(2);
  assert.equal(w.get(), '5');
  c.incr(1);
  assert.equal(w.get(), '6', 'what adds up to a whole number is an integer');
  a.incrFloat('0.1');
  assert.throws(() => a.incr(1), NotAnIntegerError);
  assert.equal(w.get(), '6.1');
  b.set('3.0');
  assert.equal(w.get(), '3.0');
  b.incrFloat('1.1');
  assert.equal(w.get(), '4.1');
  a.incrFloat('-0.05');
  b.set('1e2');
  assert.equal(w.get(), '99.95', 'the SET did not see the other increment');
  a.incrFloat('-99.95');
  assert.equal(w.get(), '0');
});

test('row 16: an increment beside text is kept and not applied', () => {
  const { w, a, b } = two();
  a.set('abc');
  b.incr(1);
  assert.equal(w.get(), 'abc');
  assert.equal(counterValue(a.state.string!.counter!), 1);
  a.set('5');
  assert.equal(w.get(), '5');
});

test('row 17: an increment past 64 bits is refused and changes nothing', () => {
  const { w, a } = two();
  a.set(String(MAX_INT64));
  const before = keySubject.encode(a.state);
  assert.throws(() => a.incr(1), OverflowError);
  assert.equal(keySubject.encode(a.state), before);
  a.incr(-1);
  assert.equal(w.get(), String(MAX_INT64 - 1n));
});
