/** Readers trust nothing: a malformed form gives a DecodeError, never another error and never a broken state. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ArgumentError,
  type ByteString,
  cloneKeyState,
  DecodeError,
  emptyKeyState,
  InvariantError,
  type KeyState,
  keyDigest,
  mergeKeyState,
  readKeyState,
  setType,
  visibleType,
  WIRE_LIMITS,
  WireReader,
  WireWriter,
  writeKeyState,
} from '../crdts/index.js';
import { anySteps, packr, play } from './support/crdt-history.js';
import { keySubject } from './support/crdt-keys.js';
import { check, Random } from './support/crdt-runs.js';
import { anyTree, disturb } from './support/crdt-trees.js';

/** Decodes a tree as a frame would; null when it was refused. Any error but DecodeError fails the test. */
function decode(base: number, table: unknown, body: unknown): KeyState | null {
  try {
    if (!Array.isArray(body)) throw new DecodeError('not a body');
    return readKeyState(body, 0, base, new WireReader(base, table, 1000));
  } catch (error) {
    assert.ok(error instanceof DecodeError, String(error));
    return null;
  }
}

/** What was accepted is canonical, complete, and merges into any state without breaking it. */
function checkAccepted(
  base: number,
  table: string[],
  body: unknown,
  state: KeyState,
  others: readonly KeyState[],
): void {
  const writer = new WireWriter(base, table);
  const again: unknown[] = [];
  writeKeyState(state, writer, again);
  assert.deepEqual(writer.replicas, table);
  assert.equal(packr.pack(again).toString('latin1'), packr.pack(body).toString('latin1'), 'canonical');
  for (const { set } of [state]) {
    for (const dots of set?.entries.values() ?? []) {
      for (const { replica, stamp } of dots) assert.ok(set!.context.get(replica)! >= stamp);
    }
    assert.ok(!set?.whole || set.size === set.entries.size);
  }
  for (const other of others) {
    const into = cloneKeyState(other);
    mergeKeyState(into, state);
    assert.equal(keySubject.encode(keySubject.decode(keySubject.encode(into))), keySubject.encode(into));
    assert.equal(mergeKeyState(into, state), false, 'idempotent');
    assert.ok(['none', 'string', 'set'].includes(visibleType(into, 0)));
    assert.ok(Number.isSafeInteger(keyDigest('k' as ByteString, into)));
  }
}

test('a valid form with something changed is refused, or is another valid form', () => {
  let refused = 0;
  let accepted = 0;
  check(
    300,
    fc.property(anySteps, fc.nat(), (steps, seed) => {
      const random = new Random(seed);
      const history = play(keySubject, steps);
      const states = history.replicas.map(({ state }) => state);
      const forms = [...states, ...history.entries.map(({ delta }) => delta)];
      for (let i = 0; i < 10; i += 1) {
        const state = random.pick(forms);
        const writer = new WireWriter(state.touched);
        const body: unknown[] = [];
        writeKeyState(state, writer, body);
        const broken = disturb(body, random);
        const found = decode(state.touched, writer.replicas, broken);
        if (found === null) refused += 1;
        else {
          accepted += 1;
          checkAccepted(state.touched, writer.replicas, broken, found, states);
        }
      }
    }),
  );
  assert.ok(refused > accepted && accepted > 0, `${refused} refused, ${accepted} accepted`);
});

test('any tree is refused, or is a valid form', () => {
  check(
    3000,
    fc.property(anyTree, fc.integer({ min: 0, max: 3 }), (tree, tag) => {
      const body = tag === 0 ? tree : [tag, tree];
      const state = decode(100, ['a', 'b'], body);
      if (state !== null) checkAccepted(100, ['a', 'b'], body, state, [emptyKeyState()]);
    }),
  );
});

test('any replica table and any base are refused, or are valid', () => {
  check(
    1000,
    fc.property(anyTree, anyTree, (base, table) => {
      try {
        new WireReader(base as number, table, 10);
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error));
      }
    }),
  );
});

test('refuses a key: tags unknown, twice, out of order or without a body, empty sub-states', () => {
  const set = [[0, 0], [], 1];
  const reader = () => new WireReader(100, ['a'], 1000);
  const forms = [
    [4, []],
    [5, []],
    [0, []],
    [-1, []],
    [1.5, []],
    ['2', set],
    [2],
    [2, set, 2, set],
    [3, [[0, 0], []], 2, set],
  ];
  for (const form of [
    ...forms,
    [1, [[]]],
    [2, [[], [], 1]],
    [2, [[], [], 0]],
    [3, [[], []]],
    [Number.NaN, []],
  ]) {
    assert.throws(() => readKeyState(form, 0, 100, reader()), DecodeError, JSON.stringify(form));
  }
  assert.deepEqual(readKeyState(['key', 2, set], 1, 100, reader()).touched, 100);
});

test('refuses a replica table: no array, bad ids, twice the same, too long', () => {
  const many = Array.from({ length: WIRE_LIMITS.replicas + 1 }, (_, i) => `r${i}`);
  for (const table of [null, 'a', [1], [''], ['a', 'a'], ['é'], ['a b'], ['a\n'], ['x'.repeat(65)], many]) {
    assert.throws(() => new WireReader(100, table, 10), DecodeError);
  }
  new WireReader(100, many.slice(1), 10);
  for (const base of [-1, 0.5, Number.NaN, 2 ** 53])
    assert.throws(() => new WireReader(base, [], 10), DecodeError);
});

test('writes nothing that no reader would accept', () => {
  const writer = new WireWriter(100);
  for (const id of ['', 'a b', 'é', 'x'.repeat(65)]) assert.throws(() => writer.replica(id), ArgumentError);
  assert.throws(() => writer.stamp(101), InvariantError);
  assert.throws(() => writer.bytes('€' as ByteString), ArgumentError);
  assert.deepEqual(writer.replicas, []);
});

test('tells members apart whose dots would read alike', () => {
  // With spaces in ids, "a 1 b 2" was one dot or two, and one member got the other's dots.
  const state = setType.empty();
  setType.merge(
    state,
    setType.mutate(state, { op: 'add', members: ['m' as ByteString] }, { replica: 'a 1 b', stamp: 2 }),
  );
  assert.throws(() => setType.toWire(state, new WireWriter(100)), ArgumentError);
});

test('orders members by their bytes, not as any language would', () => {
  const members = ['ab', '\xff', 'b', 'B', 'a', ''] as ByteString[];
  const state = setType.empty();
  setType.merge(state, setType.mutate(state, { op: 'add', members }, { replica: 'r', stamp: 5 }));
  const wire = setType.toWire(state, new WireWriter(5));
  assert.deepEqual(wire, [
    [0, 0],
    [
      [0, 0],
      ['', 'B', 'a', 'ab', 'b', Uint8Array.of(255)],
    ],
    1,
  ]);
});
