/** Digests: equal where live data are equal, kept up to date from changes alone, and spread evenly. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addDigests,
  type ByteString,
  bodyDigest,
  cloneKeyState,
  type Decimal,
  DIGEST_MODULUS,
  type Dots,
  emptyKeyState,
  type KeyState,
  keyDigest,
  memberDigest,
  registerType,
  type StringOp,
  stringType,
  stringValue,
  subtractDigests,
} from '../crdts/index.js';
import { anySteps, type Entry, play } from './support/crdt-history.js';
import { type Command, commandDelta, keySubject } from './support/crdt-keys.js';
import { check, Random } from './support/crdt-runs.js';

const KEY = 'key' as ByteString;

test('is kept up to date by the body and the members that a delta names', () => {
  check(
    300,
    fc.property(anySteps, fc.nat(), (steps, seed) => {
      const random = new Random(seed);
      const history = play(keySubject, steps);
      const dotsIn = (state: KeyState, member: ByteString): Dots => state.set?.entries.get(member) ?? [];
      for (let ready = history.ready(0); ready.length > 0; ready = history.ready(0)) {
        const entry: Entry<KeyState, Command> = random.pick(ready);
        const before = cloneKeyState(history.replicas[0]!.state);
        history.deliver(0, entry);
        const after = history.replicas[0]!.state;
        const named = new Set(entry.delta.set?.entries.keys());
        if (entry.delta.set?.whole) for (const member of before.set?.entries.keys() ?? []) named.add(member);
        let digest = keyDigest(KEY, before);
        digest = addDigests(subtractDigests(digest, bodyDigest(KEY, before)), bodyDigest(KEY, after));
        for (const member of named) {
          digest = subtractDigests(digest, memberDigest(KEY, member, dotsIn(before, member)));
          digest = addDigests(digest, memberDigest(KEY, member, dotsIn(after, member)));
        }
        assert.equal(digest, keyDigest(KEY, after));
        assert.ok(Number.isSafeInteger(digest) && digest >= 0 && digest < DIGEST_MODULUS);
      }
    }),
  );
});

/** The live part of a state: all that may influence a digest. */
function live(state: KeyState): KeyState {
  const out = cloneKeyState(state);
  out.touched = 0;
  if (out.string !== null) {
    if (out.string.register.value === null) out.string.register = { stamp: 0, replica: '', value: null };
    // A reset of a count that is gone is as dead as the count.
    const { counter } = out.string;
    if (counter !== null) {
      for (const [replica, reset] of counter.resets) {
        if (counter.counts.get(replica)?.since !== reset.since) counter.resets.delete(replica);
      }
      if (counter.counts.size + counter.resets.size === 0) out.string.counter = null;
    }
  }
  out.set?.context.clear();
  for (const dots of out.set?.entries.values() ?? []) {
    for (const { replica, stamp } of dots) out.set!.context.set(replica, stamp);
  }
  return out;
}

test('does not see what is dead: tombstones, resets, contexts and touched', () => {
  check(
    300,
    fc.property(anySteps, (steps) => {
      for (const { state } of play(keySubject, steps).replicas) {
        assert.equal(keyDigest(KEY, live(state)), keyDigest(KEY, state));
      }
    }),
  );
});

test('is 0 where nothing lives, deadline or not', () => {
  check(
    200,
    fc.property(anySteps, (steps) => {
      const history = play(keySubject, steps);
      history.operate(0, { op: 'DEL' });
      history.operate(0, { op: 'PEXPIREAT', at: 5 });
      assert.equal(keyDigest(KEY, history.replicas[0]!.state), 0);
    }),
  );
  assert.equal(keyDigest(KEY, emptyKeyState()), 0);
  assert.equal(memberDigest(KEY, 'm' as ByteString, []), 0);
});

test('sees every difference of live data', () => {
  const site = (replica: string, stamp: number) => ({ replica, stamp });
  const after = (...commands: [Command, string, number][]) => {
    const state = emptyKeyState();
    for (const [command, replica, stamp] of commands)
      keySubject.merge(state, commandDelta(state, command, site(replica, stamp)));
    return keyDigest(KEY, state);
  };
  const set: Command = { op: 'SET', value: '1' as ByteString };
  const add = (...members: string[]): Command => ({ op: 'SADD', members: members as ByteString[] });
  const digests = [
    after([set, 'A', 5]),
    after([set, 'B', 5]),
    after([set, 'A', 6]),
    after([set, 'A', 5], [{ op: 'INCRBY', by: 1 }, 'A', 6]),
    after([set, 'A', 5], [{ op: 'INCRBY', by: 2 }, 'A', 6]),
    after([set, 'A', 5], [{ op: 'INCRBY', by: -1 }, 'A', 6]),
    after([set, 'A', 5], [{ op: 'INCRBY', by: 1 }, 'B', 6]),
    after([{ op: 'INCRBY', by: 1 }, 'A', 5]),
    after([set, 'A', 5], [{ op: 'PEXPIREAT', at: 9 }, 'A', 6]),
    after([set, 'A', 5], [{ op: 'PEXPIREAT', at: 10 }, 'A', 6]),
    after([set, 'A', 5], [{ op: 'PEXPIREAT', at: 9 }, 'B', 6]),
    after([add('m'), 'A', 5]),
    after([add('n'), 'A', 5]),
    after([add('m', 'n'), 'A', 5]),
    after([add('m'), 'A', 6]),
    after([add('m'), 'B', 5]),
    after([add(''), 'A', 5]),
    0,
  ];
  assert.equal(new Set(digests).size, digests.length);
  assert.notEqual(
    memberDigest('ab' as ByteString, 'c' as ByteString, [site('A', 5)]),
    memberDigest('a' as ByteString, 'bc' as ByteString, [site('A', 5)]),
  );
});

test('sees a reset that cancels a part of a count', () => {
  const state = stringType.empty();
  const write = (op: StringOp, stamp: number) => {
    const delta = stringType.mutate(state, op, { replica: 'A', stamp });
    stringType.merge(state, delta);
    return delta;
  };
  write({ op: 'add', by: 1 }, 5);
  const reset = stringType.mutate(state, { op: 'delete' }, { replica: 'B', stamp: 6 });
  write({ op: 'add', by: 1 }, 7);
  const before = keyDigest(KEY, { ...emptyKeyState(), string: state });
  stringType.merge(state, reset);
  assert.equal(stringValue(state), '1');
  assert.notEqual(keyDigest(KEY, { ...emptyKeyState(), string: state }), before);
});

test('adds and subtracts within 48 bits', () => {
  const digest = fc.integer({ min: 0, max: DIGEST_MODULUS - 1 });
  check(
    300,
    fc.property(digest, digest, (a, b) => {
      const sum = addDigests(a, b);
      assert.ok(Number.isSafeInteger(sum) && sum >= 0 && sum < DIGEST_MODULUS);
      assert.equal(subtractDigests(sum, b), a);
      assert.equal(addDigests(subtractDigests(a, b), b), a);
    }),
  );
});

const one: Dots = [{ replica: 'abcdefgh.1', stamp: 870_000_000_000_000 }];

function duplicates(digests: Float64Array | Uint32Array): number {
  const sorted = digests.sort();
  let count = 0;
  for (let i = 1; i < sorted.length; i += 1) count += Number(sorted[i] === sorted[i - 1]);
  return count;
}

test('collides no more often than chance among 200,000 similar keys and members', () => {
  for (const digestOf of [
    (i: number) => memberDigest(`user:${i}` as ByteString, 'm' as ByteString, one),
    (i: number) => memberDigest(KEY, `${i}` as ByteString, one),
    (i: number) =>
      memberDigest(KEY, 'm' as ByteString, [{ replica: 'abcdefgh.1', stamp: one[0]!.stamp + i }]),
    (i: number) => memberDigest(KEY, 'm' as ByteString, [{ replica: 'abcdefgh.1', stamp: 4096 * i }]),
  ]) {
    const digests = Float64Array.from({ length: 200_000 }, (_, i) => digestOf(i));
    // 200,000² / 2^49 = 0.00007 expected; in the low 32 bits alone, 200,000² / 2^33 = 4.7.
    assert.equal(duplicates(digests), 0);
    const low = duplicates(Uint32Array.from(digests, (digest) => digest % 2 ** 32));
    assert.ok(low < 20, `${low} collisions in 32 bits`);
  }
});

test('a changed bit of a key, a member or a stamp changes each bit of the digest about half of the time', () => {
  const random = new Random(7);
  for (const where of ['key', 'member', 'stamp'] as const) {
    const flips = Array.from({ length: 48 }, () => 0);
    const rounds = 2000;
    for (let round = 0; round < rounds; round += 1) {
      const bytes = Array.from({ length: 6 }, () => random.below(256));
      const stamp = random.below(2 ** 32) * 2 ** 19 + 1;
      const digest = (changed: boolean) => {
        const bit = 1 << (round % 8);
        const text = String.fromCharCode(
          ...bytes.map((byte, i) => (changed && i === round % 6 ? byte ^ bit : byte)),
        );
        const dots = [
          { replica: 'r', stamp: changed && where === 'stamp' ? stamp + 2 ** (round % 45) : stamp },
        ];
        const key = where === 'key' ? text : 'key';
        return memberDigest(key as ByteString, (where === 'member' ? text : 'm') as ByteString, dots);
      };
      let difference = BigInt(digest(false)) ^ BigInt(digest(true));
      for (let bit = 0; bit < 48; bit += 1, difference >>= 1n) flips[bit]! += Number(difference & 1n);
    }
    for (const [bit, count] of flips.entries()) {
      const share = count / rounds;
      assert.ok(share > 0.43 && share < 0.57, `${where}: bit ${bit} changed in ${share} of the cases`);
    }
  }
});

test('gives the numbers that are stored already: counts of every length', () => {
  const digestOf = (p: Decimal, n: Decimal) => {
    const state = emptyKeyState();
    const counts = new Map([['r.1', { since: 5, p, n }]]);
    state.string = { register: registerType.empty(), counter: { counts, resets: new Map() } };
    return bodyDigest('k' as ByteString, state);
  };
  assert.equal(digestOf(1234567890, 10), 279347445167879);
  assert.equal(digestOf(0, 999_999_999_999_999), 278079393228562);
  assert.equal(digestOf(1_000_000_000_000_000, 1), 147410438852246);
  assert.equal(digestOf(2n ** 63n, 7), 126172510926238);
});
