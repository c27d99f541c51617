/** Operations that aren't possible are refused before any effect; and what once went wrong stays right. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ArgumentError,
  appendKeyDelta,
  type ByteString,
  counterType,
  type Dot,
  emptyKeyState,
  expiryType,
  InvariantError,
  incremented,
  MAX_DEADLINE_MS,
  MAX_INT64,
  MIN_INT64,
  membersOf,
  mergeKeyState,
  NotAFloatError,
  NotAnIntegerError,
  OverflowError,
  registerType,
  registerValue,
  resolvers,
  type SetState,
  type StringState,
  setType,
  stringType,
  stringValue,
  UNLOADED,
  WireReader,
  WireWriter,
} from '../crdts/index.js';
import { commandDelta, keySubject } from './support/crdt-keys.js';
import { check, Random } from './support/crdt-runs.js';

const at = (stamp: number, replica = 'A'): Dot => ({ replica, stamp });
const bytes = (value: string) => value as ByteString;

test('refuses an operation at a stamp that was used, instead of losing it', () => {
  const register = registerType.empty();
  registerType.merge(register, registerType.mutate(register, { op: 'write', value: bytes('1') }, at(5, 'B')));
  for (const site of [at(5, 'B'), at(4, 'B'), at(5, 'A'), at(4, 'C'), at(0, 'Z'), at(Number.NaN), at(5.5)]) {
    const write = () => registerType.mutate(register, { op: 'write', value: null }, site);
    assert.throws(write, InvariantError, JSON.stringify(site));
  }
  registerType.mutate(register, { op: 'write', value: null }, at(5, 'C'));
  assert.throws(
    () => registerType.mutate(registerType.empty(), { op: 'write', value: null }, at(0)),
    InvariantError,
  );

  const set = setType.empty();
  setType.merge(set, setType.mutate(set, { op: 'add', members: [bytes('m')] }, at(5)));
  setType.merge(set, setType.mutate(set, { op: 'clear' }, at(6)));
  assert.throws(() => setType.mutate(set, { op: 'add', members: [bytes('m')] }, at(5)), InvariantError);
  setType.mutate(set, { op: 'add', members: [bytes('m')] }, at(5, 'B'));

  const counter = counterType.empty();
  counterType.merge(counter, counterType.mutate(counter, { op: 'add', by: 1 }, at(5)));
  counterType.mutate(counter, { op: 'add', by: 1 }, at(5));
  counterType.merge(counter, counterType.mutate(counter, { op: 'reset' }, at(6)));
  assert.throws(() => counterType.mutate(counter, { op: 'add', by: 1 }, at(5)), InvariantError);
  counterType.mutate(counter, { op: 'add', by: 1 }, at(6));

  const expiry = expiryType.empty();
  expiryType.merge(expiry, expiryType.mutate(expiry, { op: 'write', value: 1 }, at(5)));
  assert.throws(() => expiryType.mutate(expiry, { op: 'write', value: 2 }, at(5)), InvariantError);
});

test('an operation may sweep a key and write to it under one stamp', () => {
  const state = emptyKeyState();
  for (const [i, members] of [['a', 'b'], ['c']].entries()) {
    const swept = commandDelta(state, { op: 'DEL' }, at(10 * (i + 1)));
    mergeKeyState(state, swept);
    const delta = commandDelta(state, { op: 'SADD', members: members as ByteString[] }, at(10 * (i + 1)));
    mergeKeyState(state, delta);
  }
  assert.deepEqual(membersOf(state.set!), ['c']);
});

test('refuses increments that are no 64-bit integers', () => {
  const counter = counterType.empty();
  const string = stringType.empty();
  for (const by of [Number.NaN, Number.NEGATIVE_INFINITY, 0.5, 2 ** 53, MAX_INT64 + 1n, '1', undefined]) {
    const op = { op: 'add', by: by as number } as const;
    // A counter takes fractions, in their own form, and integers that a string's INCRBY doesn't.
    if (by !== MAX_INT64 + 1n) assert.throws(() => counterType.mutate(counter, op, at(1)), NotAFloatError);
    assert.throws(() => stringType.mutate(string, op, at(1)), NotAnIntegerError);
  }
});

function stringOf(value: string): StringState {
  return { register: { stamp: 1, replica: 'A', value: bytes(value) }, counter: null };
}

test('refuses to count on a string that Valkey would not count on', () => {
  for (const value of ['', 'abc', '1.5', ' 1', '01', '9223372036854775808', '99999999999999999999']) {
    const add = () => stringType.mutate(stringOf(value), { op: 'add', by: -1 }, at(2));
    assert.throws(add, NotAnIntegerError, value);
  }
});

test('adds concurrent increments to any number, and lets INCR go on from a 64-bit one only', () => {
  const over = (value: string): StringState => {
    const state = stringOf(value);
    state.counter = { counts: new Map([['B', { since: 1, p: 1, n: 0 }]]), resets: new Map() };
    return state;
  };
  const add = (state: StringState, by: number) => stringType.mutate(state, { op: 'add', by }, at(2));
  const past = over('9223372036854775808');
  assert.equal(stringValue(past), '9223372036854775809');
  assert.throws(() => add(past, -2), NotAnIntegerError, 'it was SET past 64 bits');
  stringType.merge(past, stringType.mutate(past, { op: 'addFloat', by: -5 }, at(2)));
  stringType.merge(past, add(past, -2));
  assert.equal(stringValue(past), '9223372036854775802');
  const half = over('1.5');
  assert.equal(stringValue(half), '2.5');
  assert.throws(() => add(half, 1), NotAnIntegerError);
});

test('overflows as Valkey does, and leads back what concurrent increments carried out of range', () => {
  assert.equal(incremented(null, MIN_INT64), MIN_INT64);
  assert.throws(() => incremented(bytes(String(MAX_INT64)), 1), OverflowError);
  assert.throws(() => incremented(bytes(String(MIN_INT64)), -1), OverflowError);
  const state = stringOf(String(MAX_INT64));
  state.counter = { counts: new Map([['B', { since: 1, p: 5, n: 0 }]]), resets: new Map() };
  assert.equal(stringValue(state), String(MAX_INT64 + 5n));
  assert.throws(() => stringType.mutate(state, { op: 'add', by: 1 }, at(2)), OverflowError);
  stringType.merge(state, stringType.mutate(state, { op: 'add', by: -7 }, at(2)));
  assert.equal(stringValue(state), String(MAX_INT64 - 2n));
});

test('refuses deadlines that no peer would accept', () => {
  const state = expiryType.empty();
  for (const value of [-1, -0, 0.5, Number.NaN, Number.POSITIVE_INFINITY, MAX_DEADLINE_MS + 1]) {
    assert.throws(
      () => expiryType.mutate(state, { op: 'write', value }, at(1)),
      ArgumentError,
      String(value),
    );
  }
  for (const value of [0, MAX_DEADLINE_MS, null]) expiryType.mutate(state, { op: 'write', value }, at(1));
});

test('says that a value was not loaded rather than guess it', () => {
  const state = stringOf('1');
  state.register.value = UNLOADED;
  assert.throws(() => registerValue(state.register), InvariantError);
  assert.throws(() => stringValue(state), InvariantError);
  assert.throws(() => stringType.mutate(state, { op: 'add', by: 1 }, at(2)), InvariantError);
  stringType.merge(state, stringType.mutate(state, { op: 'write', value: bytes('2') }, at(2)));
  assert.equal(stringValue(state), '2');
});

test('a write that comes again with its bytes fills in those that were not loaded, and is no news', () => {
  const known = stringOf('1').register;
  const register = { ...known, value: UNLOADED as typeof known.value };
  assert.equal(registerType.merge(register, known), false);
  assert.equal(registerValue(register), '1');
});

test('a write whose bytes nobody has travels, and never takes the place of one with bytes', () => {
  const known = stringOf('1').register;
  const lost = { ...known, value: UNLOADED as typeof known.value };
  const writer = new WireWriter(5);
  const wire = registerType.toWire(lost, writer);
  assert.deepEqual(registerType.fromWire(wire, new WireReader(5, writer.replicas, 9)), lost);
  for (const order of [
    [known, lost],
    [lost, known],
  ]) {
    const state = registerType.empty();
    for (const delta of order) registerType.merge(state, delta);
    assert.equal(registerValue(state), '1');
  }
});

test('a delta put onto another that says nothing of the set does not claim to know the whole set', () => {
  const state = emptyKeyState();
  mergeKeyState(state, commandDelta(state, { op: 'SADD', members: [bytes('old')] }, at(1)));
  const remote = keySubject.decode(keySubject.encode(state));
  const first = commandDelta(state, { op: 'PEXPIREAT', at: 5000 }, at(2));
  mergeKeyState(state, first);
  appendKeyDelta(first, commandDelta(state, { op: 'SADD', members: [bytes('new')] }, at(3)));
  mergeKeyState(remote, first);
  assert.deepEqual(membersOf(remote.set!).sort(), ['new', 'old']);
});

test('an empty sub-state of a delta leaves no trace in a key', () => {
  const state = emptyKeyState();
  const delta = {
    ...emptyKeyState(),
    string: stringType.empty(),
    set: setType.empty(),
    expiry: expiryType.empty(),
  };
  assert.equal(mergeKeyState(state, delta), false);
  assert.deepEqual(state, emptyKeyState());
  assert.equal(keySubject.encode(delta), keySubject.encode(emptyKeyState()));
});

test('joins members with thousands of dots each in one pass', () => {
  // Comparing each dot with each took 4,000² steps a member: a minute for what one small frame can say.
  const replicas = Array.from({ length: 4000 }, (_, i) => `r${10_000 + i}`);
  const big = (extra: number): SetState => {
    const dots = replicas.map((replica) => ({ replica, stamp: 5 + extra }));
    const members = Array.from({ length: 200 }, (_, i) => [bytes(`m${i}`), dots] as const);
    return {
      context: new Map(dots.map((dot) => [dot.replica, dot.stamp])),
      entries: new Map(members),
      whole: false,
      size: 0,
    };
  };
  const state = setType.empty();
  const started = process.cpuUsage().user;
  setType.merge(state, big(0));
  assert.equal(setType.merge(state, big(0)), false);
  assert.equal(setType.merge(state, big(1)), true);
  const seconds = (process.cpuUsage().user - started) / 1e6;
  assert.ok(seconds < 5, `${seconds} s`);
  assert.equal(state.entries.get(bytes('m7'))![3999]!.stamp, 6);
});

test('max and min order decimal numbers exactly, whatever order they are given in', () => {
  const number = fc.oneof(
    fc.constantFrom(
      '-9007199254740993',
      '-9007199254740992.5',
      '-9007199254740992',
      '9007199254740992.0',
      '1',
      '1.0',
      '-0',
    ),
    fc.tuple(fc.bigInt({ min: -(2n ** 60n), max: 2n ** 60n }), fc.nat(99)).map(([n, f]) => `${n}.${f}`),
    fc.constantFrom('abc', '', '01', '1e9'),
  );
  check(
    300,
    fc.property(fc.array(number, { minLength: 1, maxLength: 6 }), fc.nat(), (values, seed) => {
      const resolved = (order: readonly string[], policy: 'max' | 'min') =>
        resolvers[policy](
          order.map((value, i) => ({ value: bytes(value), region: '', replica: 'r', stamp: i + 1, atMs: 0 })),
        );
      for (const policy of ['max', 'min'] as const) {
        const chosen = resolved(values, policy);
        assert.equal(resolved(new Random(seed).shuffle(values), policy), chosen);
      }
    }),
  );
});
