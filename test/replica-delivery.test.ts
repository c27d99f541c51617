/** Causal delivery: whatever order frames arrive in, they are delivered once each, after all that they build on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ReplicaId } from '../crdts/dot.js';
import type { Stamp } from '../crdts/stamp.js';
import { CausalDelivery } from '../src/replica/causal-delivery.js';
import { encodeFrame, type Frame } from '../src/replica/frame.js';
import { check } from './support/crdt-runs.js';

const never = (): boolean => false;

function frame(
  replica: ReplicaId,
  number: number,
  deps: Record<ReplicaId, Stamp> = {},
  stamp = number * 10,
): Frame {
  return encodeFrame({ replica, number, stamp, deps: new Map(Object.entries(deps)), full: false, keys: [] });
}

function names(frames: readonly Frame[]): string[] {
  return frames.map(({ replica, number }) => `${replica} ${number}`);
}

test('frames of one replica are delivered in their order, whatever order they come in', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  assert.equal(delivery.offer(frame('a', 3)), 'held');
  assert.equal(delivery.offer(frame('a', 2)), 'held');
  assert.deepEqual(names(delivery.take(1 << 20)), []);
  assert.deepEqual(delivery.gaps(), [{ replica: 'a', from: 1, to: 1 }]);
  assert.equal(delivery.nextMissing('a'), 1);
  assert.equal(delivery.lastKnown('a'), 3);
  delivery.offer(frame('a', 1));
  assert.equal(delivery.nextMissing('a'), 4);
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 1', 'a 2', 'a 3']);
  assert.equal(delivery.heldCount, 0);
  assert.deepEqual(delivery.gaps(), []);
});

test('a frame waits for what it builds on', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  delivery.offer(frame('b', 1, { a: 20 }, 25));
  delivery.offer(frame('a', 1));
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 1']);
  assert.equal(delivery.nextMissing('b'), 2, 'what is here is not missing');
  delivery.offer(frame('a', 2));
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 2', 'b 1']);
});

test('a dependency on the frame’s own replica is met by its predecessor', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  delivery.offer(frame('a', 1, { a: 5 }));
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 1']);
});

test('what has come before is known, delivered or not', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  delivery.offer(frame('a', 1));
  assert.equal(delivery.offer(frame('a', 1)), 'known');
  delivery.take(1 << 20);
  assert.equal(delivery.offer(frame('a', 1)), 'known');
  assert.deepEqual(delivery.take(1 << 20), []);
});

test('what is held back is bounded; only the next frame of a replica is let in beyond that', () => {
  const size = frame('a', 2).bytes.length;
  const delivery = new CausalDelivery(3 * size, never);
  for (let number = 2; number <= 4; number += 1) assert.equal(delivery.offer(frame('a', number)), 'held');
  assert.equal(delivery.offer(frame('a', 5)), 'dropped');
  assert.equal(delivery.offer(frame('b', 2)), 'dropped');
  assert.equal(delivery.offer(frame('a', 1)), 'held');
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 1', 'a 2', 'a 3', 'a 4']);
  assert.equal(delivery.offer(frame('a', 5)), 'held', 'there is room again');
});

test('a frame from the future is held, with all behind it, until its time comes; others go on', () => {
  let now = 0;
  const delivery = new CausalDelivery(1 << 20, (stamp) => stamp > now);
  delivery.offer(frame('a', 1, {}, 500));
  delivery.offer(frame('a', 2, {}, 600));
  now = 100;
  delivery.offer(frame('b', 1, {}, 50));
  delivery.offer(frame('b', 2, { a: 500 }, 500));
  assert.deepEqual(names(delivery.take(1 << 20)), ['b 1']);
  assert.deepEqual(delivery.skewed(), ['a', 'b']);
  now = 500;
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 1', 'b 2']);
  now = 600;
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 2']);
  assert.deepEqual(delivery.skewed(), []);
});

test('raised marks forget the frames that they cover and free what waited for them', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  for (const number of [3, 4, 9]) delivery.offer(frame('a', number));
  delivery.offer(frame('b', 1, { a: 80 }, 85));
  delivery.raise([{ replica: 'a', number: 8, stamp: 80 }]);
  delivery.raise([{ replica: 'a', number: 2, stamp: 20 }]);
  assert.equal(delivery.heldCount, 2);
  assert.deepEqual(names(delivery.take(1 << 20)).sort(), ['a 9', 'b 1']);
});

test('a reset forgets everything but the marks that it is given', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  delivery.offer(frame('a', 1));
  delivery.take(1 << 20);
  delivery.offer(frame('a', 3));
  delivery.reset([{ replica: 'a', number: 1, stamp: 10 }]);
  assert.equal(delivery.heldCount, 0);
  assert.equal(delivery.offer(frame('a', 2)), 'held');
  delivery.reset([]);
  assert.equal(delivery.nextMissing('a'), 1);
});

test('it takes as many frames as fit, at least one, and the rest with the next call', () => {
  const delivery = new CausalDelivery(1 << 20, never);
  const size = frame('a', 1).bytes.length;
  for (let number = 1; number <= 5; number += 1) delivery.offer(frame('a', number));
  assert.deepEqual(names(delivery.take(1)), ['a 1']);
  assert.deepEqual(names(delivery.take(2 * size)), ['a 2', 'a 3']);
  assert.deepEqual(names(delivery.take(1 << 20)), ['a 4', 'a 5']);
});

/** Frames as three replicas make them that hear each other at random: each tells what its maker had applied. */
function history(steps: readonly { who: number; hears: number }[]): Frame[] {
  const replicas = ['a', 'b', 'c'].map((name) => ({ name, number: 0, seen: new Map<ReplicaId, Stamp>() }));
  const frames: Frame[] = [];
  let stamp = 0;
  for (const { who, hears } of steps) {
    const maker = replicas[who % 3]!;
    const other = replicas[hears % 3]!;
    // Hearing of a replica means having applied all that it had applied.
    for (const [replica, seen] of other.seen)
      maker.seen.set(replica, Math.max(seen, maker.seen.get(replica) ?? 0));
    stamp += 1;
    maker.number += 1;
    const deps = Object.fromEntries([...maker.seen].filter(([replica]) => replica !== maker.name));
    frames.push(frame(maker.name, maker.number, deps, stamp));
    maker.seen.set(maker.name, stamp);
  }
  return frames;
}

test('any order of arrival, with duplicates, delivers each frame once and never before what it builds on', () => {
  const step = fc.record({ who: fc.nat(2), hears: fc.nat(2) });
  check(
    300,
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 25 }),
      fc.infiniteStream(fc.nat()),
      (steps, picks) => {
        const frames = history(steps);
        const delivery = new CausalDelivery(1 << 20, never);
        const delivered: Frame[] = [];
        const waiting = [...frames, ...frames.slice(0, 5)];
        while (waiting.length > 0) {
          const at = (picks.next().value as number) % waiting.length;
          delivery.offer(waiting.splice(at, 1)[0]!);
          if ((picks.next().value as number) % 3 === 0) delivered.push(...delivery.take(200));
        }
        for (let ready = delivery.take(200); ready.length > 0; ready = delivery.take(200))
          delivered.push(...ready);
        assert.deepEqual([...names(delivered)].sort(), [...names(frames)].sort());
        const marks = new Map<ReplicaId, Frame>();
        for (const next of delivered) {
          assert.equal(next.number, (marks.get(next.replica)?.number ?? 0) + 1);
          for (const [replica, stamp] of next.deps)
            assert.ok(
              (marks.get(replica)?.stamp ?? 0) >= stamp,
              `${names([next])} came before ${replica} ${stamp}`,
            );
          marks.set(next.replica, next);
        }
      },
    ),
  );
});

test('with a queue too small for all, offering again whatever is missing still delivers everything in order', () => {
  const step = fc.record({ who: fc.nat(2), hears: fc.nat(2) });
  check(
    100,
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 25 }),
      fc.infiniteStream(fc.nat()),
      (steps, picks) => {
        const frames = history(steps);
        const delivery = new CausalDelivery(100, never);
        const delivered: Frame[] = [];
        for (let round = 0; delivered.length < frames.length; round += 1) {
          assert.ok(round < 200, 'it comes to an end');
          const missing = frames.filter((next) => next.number >= delivery.nextMissing(next.replica));
          while (missing.length > 0) {
            delivery.offer(missing.splice((picks.next().value as number) % missing.length, 1)[0]!);
            delivered.push(...delivery.take(1 << 20));
          }
        }
        assert.equal(new Set(names(delivered)).size, frames.length);
      },
    ),
  );
});
