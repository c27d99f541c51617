/** Exact decimals, against arithmetic of our own on BigInt; and Valkey's idea of what is a float. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ByteString,
  type Counter,
  compareDecimals,
  counterType,
  counterValue,
  type Decimal,
  DecodeError,
  decimalFromWire,
  decimalToWire,
  FloatRangeError,
  formatDecimal,
  incrementedFloat,
  integer,
  isFloat,
  isNegative,
  isWhole,
  minusDecimal,
  NotAFloatError,
  NotFiniteError,
  parseDecimal,
  plusDecimal,
  readDecimal,
  requireDecimal,
  stringType,
  stringValue,
} from '../crdts/index.js';
import { fromUnits } from './support/crdt-oracle.js';
import { check } from './support/crdt-runs.js';

const bytes = (value: string) => value as ByteString;

/** Units of 10^-17 of every size, many of them of round numbers. */
const anyUnits = fc.oneof(
  fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }),
  fc.bigInt({ min: -1000n, max: 1000n }),
  fc
    .tuple(fc.bigInt({ min: -(10n ** 12n), max: 10n ** 12n }), fc.nat(17))
    .map(([n, e]) => n * 10n ** BigInt(e)),
);
const decimalOf = (all: bigint): Decimal => readDecimal(fromUnits(all));

test('adds, subtracts and orders exactly, in the one form', () => {
  check(
    2000,
    fc.property(anyUnits, anyUnits, (a, b) => {
      const [x, y] = [decimalOf(a), decimalOf(b)];
      assert.equal(formatDecimal(plusDecimal(x, y)), fromUnits(a + b));
      assert.equal(plusDecimal(x, y), decimalOf(a + b), 'one value has one form');
      assert.equal(minusDecimal(x, y), decimalOf(a - b));
      assert.equal(Math.sign(compareDecimals(x, y)), a < b ? -1 : a > b ? 1 : 0);
      assert.equal(isNegative(x), a < 0n);
      assert.equal(isWhole(x), a % 10n ** 17n === 0n);
      if (isWhole(x)) assert.equal(x, integer(a / 10n ** 17n));
      requireDecimal(parseDecimal(fromUnits(a % 10n ** 38n)));
    }),
  );
});

test('reads a number however it is written', () => {
  check(
    1000,
    fc.property(anyUnits, fc.nat(30), fc.nat(5), fc.constantFrom('e', 'E', 'e+'), (all, shift, zeros, e) => {
      const text = fromUnits(all);
      const [sign, size] = text.startsWith('-') ? ['-', text.slice(1)] : [zeros % 2 ? '+' : '', text];
      const padded = `${sign}${'0'.repeat(zeros)}${size}`;
      assert.equal(readDecimal(padded), readDecimal(text));
      // The same number with the point further left: 12.5 = 0.0125e3.
      const [whole, fraction = ''] = size!.split('.');
      const digits = `${'0'.repeat(shift)}${whole}`;
      const at = digits.length - shift;
      const moved = `${sign}${digits.slice(0, at)}.${digits.slice(at)}${fraction}${e}${shift}`;
      assert.equal(readDecimal(moved), readDecimal(text), moved);
    }),
  );
});

test('takes and refuses the floats that Valkey takes and refuses', () => {
  const good: [string, string][] = [
    ['5.0e3', '5000'],
    ['+5', '5'],
    ['.5', '0.5'],
    ['5.', '5'],
    ['-.5', '-0.5'],
    ['007', '7'],
    ['-0', '0'],
    ['-0.000', '0'],
    ['0e999999999999', '0'],
    ['1e-3', '0.001'],
    ['1E20', '100000000000000000000'],
    ['9223372036854775808', '9223372036854775808'],
    ['0.00000000000000001', '0.00000000000000001'],
  ];
  for (const [text, form] of good) {
    assert.equal(formatDecimal(readDecimal(text)), form, text);
    assert.equal(formatDecimal(parseDecimal(text)!), form, text);
    assert.ok(isFloat(text), text);
  }
  const bad = [
    '',
    ' 1',
    '1 ',
    '\t1',
    '1\n',
    '1\0',
    '.',
    '+',
    '-',
    '+-1',
    '1e',
    '1e+',
    'e5',
    '1.5.',
    '1,5',
    '1_0',
    'abc',
  ];
  for (const text of [
    ...bad,
    'nan',
    '-nan',
    '1e5000',
    '1e-5000',
    `0.${'0'.repeat(5119)}`,
    '١',
    '1n',
    'infinit',
  ]) {
    assert.throws(() => readDecimal(text), NotAFloatError, JSON.stringify(text.slice(0, 20)));
    assert.equal(parseDecimal(text), null);
    assert.equal(isFloat(text), false);
  }
  for (const text of ['inf', '-inf', '+Infinity', 'INF']) {
    assert.throws(() => readDecimal(text), NotFiniteError);
    assert.equal(parseDecimal(text), null);
    assert.ok(isFloat(text));
  }
  for (const text of ['1e40', '-1e4000', '9'.repeat(41)]) {
    assert.throws(() => readDecimal(text), FloatRangeError);
    assert.equal(parseDecimal(text), null);
  }
});

test('rounds what has more than 17 digits after the point to the nearest, and to the even one of two', () => {
  const zeros = '0.0000000000000000';
  for (const [text, form] of [
    [`${zeros}149`, `${zeros}1`],
    [`${zeros}15`, `${zeros}2`],
    [`${zeros}25`, `${zeros}2`],
    [`${zeros}2500000001`, `${zeros}3`],
    [`-${zeros}35`, `-${zeros}4`],
    ['4e-18', '0'],
    ['5e-18', '0'],
    ['51e-19', `${zeros}1`],
    ['-1e-30', '0'],
    ['0.99999999999999999999', '1'],
  ] as const) {
    assert.equal(formatDecimal(readDecimal(text)), form, text);
  }
});

test('refuses steps that are not in the one form, and those that are too great', () => {
  for (const value of [0.5, 2 ** 53, Number.NaN, '1', '0.50', '.5', '-0.0', '1.5e3', null, undefined, {}]) {
    assert.throws(() => requireDecimal(value), NotAFloatError, String(value));
    const op = { op: 'add', by: value as Decimal } as const;
    assert.throws(
      () => counterType.mutate(counterType.empty(), op, { replica: 'A', stamp: 1 }),
      NotAFloatError,
    );
  }
  for (const value of [10n ** 21n, -(10n ** 21n), `1${'0'.repeat(21)}.5`]) {
    assert.throws(() => requireDecimal(value), FloatRangeError, String(value));
  }
  for (const value of [0, -1, 10n ** 21n - 1n, '0.5', `-${'9'.repeat(21)}.5`]) requireDecimal(value);
});

test('keeps INCRBYFLOAT within its range, and leads back what concurrent increments carried out of it', () => {
  const most = bytes('9'.repeat(21));
  assert.throws(() => incrementedFloat(most, 1), FloatRangeError);
  assert.throws(() => incrementedFloat(bytes(`-${most}`), '-1.5' as Decimal), FloatRangeError);
  assert.equal(incrementedFloat(most, '0.5' as Decimal), `${most}.5`);
  assert.equal(incrementedFloat(bytes(`${most}99`), -1), BigInt(`${most}98`));
  assert.throws(() => incrementedFloat(bytes('abc'), 1), NotAFloatError);
  const state = stringType.empty();
  const before = structuredClone(state);
  assert.throws(
    () => stringType.mutate(state, { op: 'addFloat', by: 10n ** 21n }, { replica: 'A', stamp: 1 }),
    FloatRangeError,
  );
  assert.deepEqual(state, before);
});

test('adds up to the same bytes in any order, where doubles would not', () => {
  const steps = ['0.1', '0.2', '-0.3', '1e16', '1', '-1e16', '0.7'].map(readDecimal);
  check(
    100,
    fc.property(fc.shuffledSubarray(steps, { minLength: steps.length }), (order) => {
      const state = stringType.empty();
      for (const [i, by] of order.entries()) {
        const site = { replica: `R${i}`, stamp: i + 1 };
        stringType.merge(state, stringType.mutate(stringType.empty(), { op: 'addFloat', by }, site));
      }
      assert.equal(stringValue(state), '1.7');
    }),
  );
});

test('counts of integers look on the wire as they always did', () => {
  const counter: Counter = { counts: new Map(), resets: new Map() };
  for (const by of [5, '0.5' as Decimal, '-1.5' as Decimal]) {
    counterType.merge(counter, counterType.mutate(counter, { op: 'add', by }, { replica: 'A', stamp: 1 }));
  }
  assert.deepEqual(counter.counts.get('A'), { since: 1, p: '5.5', n: '1.5' });
  counterType.merge(
    counter,
    counterType.mutate(counter, { op: 'add', by: '0.5' as Decimal }, { replica: 'A', stamp: 2 }),
  );
  assert.equal(counter.counts.get('A')!.p, 6, 'a sum that is whole again is an integer again');
  assert.equal(counterValue(counter), '4.5');
});

test('reads a decimal back from the wire, and nothing that is not canonical', () => {
  check(
    500,
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 57n - 1n }), (all) => {
      const value = decimalOf(all);
      assert.equal(decimalFromWire(decimalToWire(value)), value);
    }),
  );
  for (const wire of [
    0.5,
    '-0.5',
    '0.50',
    '.5',
    '5.',
    '1.0',
    '00.5',
    '1.5e1',
    `${'1'.repeat(41)}.5`,
    `0.${'1'.repeat(18)}`,
    '5',
  ])
    assert.throws(() => decimalFromWire(wire), DecodeError, String(wire));
});
