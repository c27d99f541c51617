/** The hybrid logical clock: never back, never twice, never too far ahead. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ArgumentError,
  HybridClock,
  isStamp,
  MAX_STAMP,
  STAMP_EPOCH_MS,
  STAMPS_PER_MS,
  StampRangeError,
  stampAt,
  stampMs,
} from '../crdts/index.js';
import { check } from './support/crdt-runs.js';

const NOW = Date.UTC(2026, 5, 1);

test('gives greater stamps and runs ahead of what it saw, however the physical clock jumps', () => {
  const step = fc.record({
    jump: fc.integer({ min: -100_000, max: 100_000 }),
    seen: fc.option(fc.nat(59_000)),
  });
  check(
    500,
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let now = NOW;
      const clock = new HybridClock(() => now);
      let last = 0;
      for (const { jump, seen } of steps) {
        now += jump;
        if (seen !== null) {
          const stamp = stampAt(now + seen);
          clock.observe(stamp);
          last = Math.max(last, stamp);
        }
        const stamp = clock.next();
        assert.ok(isStamp(stamp));
        assert.ok(stamp > last, `${stamp} after ${last}`);
        assert.ok(stamp >= stampAt(now));
        assert.equal(clock.last, stamp);
        last = stamp;
      }
    }),
  );
});

test('carries a full counter into the milliseconds', () => {
  const clock = new HybridClock(() => NOW);
  const first = clock.next();
  let last = first;
  for (let i = 1; i < STAMPS_PER_MS + 10; i += 1) last = clock.next();
  assert.equal(last, first + STAMPS_PER_MS + 9);
  assert.equal(stampMs(first), NOW);
  assert.equal(stampMs(last), NOW + 1);
});

test('starts after the last stored stamp', () => {
  assert.equal(new HybridClock(() => NOW, { last: stampAt(NOW) + 7 }).next(), stampAt(NOW) + 8);
});

test('turns milliseconds into stamps and back', () => {
  assert.equal(stampAt(STAMP_EPOCH_MS), 0);
  assert.equal(stampMs(MAX_STAMP), STAMP_EPOCH_MS + 2 ** 41 - 1);
  assert.equal(stampAt(NOW + 0.9), stampAt(NOW));
  check(
    300,
    fc.property(fc.nat(), fc.nat(STAMPS_PER_MS - 1), (ms, logical) => {
      assert.equal(stampMs(stampAt(NOW + ms) + logical), NOW + ms);
    }),
  );
});

test('refuses times before 2020 and after 2089', () => {
  for (const ms of [0, STAMP_EPOCH_MS - 1, STAMP_EPOCH_MS + 2 ** 41, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => stampAt(ms), StampRangeError, String(ms));
  }
});

test('observes stamps up to the allowed drift and no further', () => {
  const clock = new HybridClock(() => NOW, { maxDriftMs: 1000 });
  const limit = stampAt(NOW + 1001) - 1;
  assert.ok(!clock.isAhead(limit));
  clock.observe(limit);
  assert.equal(clock.last, limit);
  assert.ok(clock.isAhead(limit + 1));
  assert.throws(() => clock.observe(limit + 1), StampRangeError);
  assert.equal(clock.last, limit);
});

test('holds a stamp one hour ahead back until its time comes', () => {
  let now = NOW;
  const clock = new HybridClock(() => now);
  const stamp = stampAt(NOW + 3_600_000);
  assert.ok(clock.isAhead(stamp));
  now += 3_540_000;
  assert.ok(!clock.isAhead(stamp));
  clock.observe(stamp);
});

test('refuses to observe what is not a stamp', () => {
  const clock = new HybridClock(() => NOW);
  for (const stamp of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, MAX_STAMP + 1]) {
    assert.throws(() => clock.observe(stamp), StampRangeError, String(stamp));
  }
  assert.equal(clock.last, 0);
});

test('stays where it is after its last stamp', () => {
  const clock = new HybridClock(() => NOW, { last: MAX_STAMP });
  assert.throws(() => clock.next(), StampRangeError);
  assert.throws(() => clock.next(), StampRangeError);
  assert.equal(clock.last, MAX_STAMP);
});

test('refuses options that are out of range', () => {
  assert.throws(() => new HybridClock(() => NOW, { maxDriftMs: -1 }), ArgumentError);
  assert.throws(() => new HybridClock(() => NOW, { maxDriftMs: Number.NaN }), ArgumentError);
  assert.throws(() => new HybridClock(() => NOW, { last: -1 }), StampRangeError);
});
