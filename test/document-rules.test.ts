/** Documents whose keys follow rules: SEMANTICS rows 8 and 9, and what rules refuse. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { createDocument, type Document, type RuleOptions, Rules, utf8 } from '../crdts/index.js';

const RULES: readonly RuleOptions[] = [
  { pattern: 'first:*', type: 'string', policy: 'fww' },
  { pattern: 'max:*', type: 'string', policy: 'max' },
  { pattern: 'n:*', type: 'counter' },
  { pattern: 's:*', type: 'set' },
  {
    pattern: 'all:*',
    type: 'string',
    policy: {
      name: 'all',
      resolve: (siblings) => utf8(siblings.map(({ region, value }) => `${region}=${value}`).join(' ')),
    },
  },
];

function world(): { a: Document; b: Document; sync: () => void; tick: () => void } {
  let now = Date.UTC(2026, 0, 1);
  const make = (replica: string) => createDocument({ replica, now: () => now, rules: new Rules(RULES) });
  const [a, b] = [make('a'), make('b')];
  return {
    a,
    b,
    tick: () => {
      now += 1_000;
    },
    sync() {
      const [fromA, fromB] = [a.takeDeltas(), b.takeDeltas()];
      for (const delta of fromA) b.merge(delta);
      for (const delta of fromB) a.merge(delta);
      assert.equal(a.digest(), b.digest());
    },
  };
}

test('row 8: under fww the earliest of concurrent writes wins, and later ones are refused until a delete', () => {
  const { a, b, sync, tick } = world();
  const key = utf8('first:k');
  assert.equal(a.set(key, utf8('from a')), true);
  tick();
  assert.equal(b.set(key, utf8('from b')), true);
  sync();
  assert.deepEqual([a.get(key), b.get(key)], ['from a', 'from a']);
  assert.equal(b.set(key, utf8('late')), false);
  assert.equal(b.delete(key), true);
  sync();
  assert.deepEqual([a.get(key), b.get(key)], [null, null]);
  assert.equal(a.set(key, utf8('anew')), true);
  sync();
  assert.equal(b.get(key), 'anew');
});

test('row 9: under max the greater of concurrent writes wins, and one that saw both replaces them', () => {
  const { a, b, sync, tick } = world();
  const key = utf8('max:k');
  a.set(key, utf8('7'));
  tick();
  b.set(key, utf8('5'));
  sync();
  assert.deepEqual([a.get(key), b.get(key)], ['7', '7']);
  b.set(key, utf8('3'));
  sync();
  assert.deepEqual([a.get(key), b.get(key)], ['3', '3']);
});

test('a custom resolver sees every sibling with its region, in one order everywhere', () => {
  const { a, b, sync, tick } = world();
  const key = utf8('all:k');
  b.set(key, utf8('1'));
  tick();
  a.set(key, utf8('2'));
  sync();
  assert.deepEqual([a.get(key), b.get(key)], ['b=1 a=2', 'b=1 a=2']);
});

test('a key under a rule holds nothing else, and what is refused changes nothing', () => {
  const { a } = world();
  const refused = (run: () => unknown, code: string) => {
    const before = a.digest();
    assert.throws(run, (error: { code?: string }) => error.code === code);
    assert.equal(a.digest(), before);
  };
  refused(() => a.add(utf8('max:k'), utf8('m')), 'RULE');
  refused(() => a.increment(utf8('max:k')), 'RULE');
  refused(() => a.set(utf8('s:k'), utf8('v')), 'RULE');
  refused(() => a.increment(utf8('s:k')), 'RULE');
  refused(() => a.add(utf8('n:k'), utf8('m')), 'RULE');
  refused(() => a.set(utf8('n:k'), utf8('text')), 'NOT_AN_INTEGER');
  a.set(utf8('n:k'), utf8('41'));
  assert.equal(a.increment(utf8('n:k')), 42);
});
