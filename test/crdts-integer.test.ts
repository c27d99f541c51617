/** Exact integers, against BigInt; and Valkey's own idea of what is a 64-bit integer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  countFromWire,
  countToWire,
  DecodeError,
  formatInteger,
  integer,
  isInt64,
  MAX_INT64,
  MIN_INT64,
  minus,
  NotAnIntegerError,
  parseInt64,
  parseInteger,
  plus,
  requireInt64,
} from '../crdts/index.js';
import { check } from './support/crdt-runs.js';

/** Integers of every size, dense around the edges of safe and of 64-bit. */
const anyBigint = fc.oneof(
  fc.bigInt({ min: -10n, max: 10n }),
  fc.bigInt({ min: MIN_INT64 - 5n, max: MAX_INT64 + 5n }),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
  ...[2n ** 53n, -(2n ** 53n), MAX_INT64, MIN_INT64].map((edge) =>
    fc.bigInt({ min: edge - 3n, max: edge + 3n }),
  ),
);

test('adds and subtracts as BigInt does, in the one form', () => {
  check(
    2000,
    fc.property(anyBigint, anyBigint, (a, b) => {
      for (const [ours, exact] of [
        [plus(integer(a), integer(b)), a + b],
        [minus(integer(a), integer(b)), a - b],
      ] as const) {
        assert.equal(BigInt(ours), exact);
        assert.equal(
          typeof ours === 'number',
          Number.isSafeInteger(Number(exact)) && BigInt(Number(exact)) === exact,
        );
        assert.equal(isInt64(ours), BigInt.asIntN(64, exact) === exact);
      }
    }),
  );
});

test('parses what it formats', () => {
  check(
    1000,
    fc.property(anyBigint, (value) => {
      const text = formatInteger(integer(value));
      assert.equal(text, value.toString());
      assert.equal(parseInteger(text), integer(value));
      assert.equal(parseInt64(text), BigInt.asIntN(64, value) === value ? integer(value) : null);
    }),
  );
});

test("takes the integers that Valkey's string2ll takes", () => {
  for (const form of ['0', '1', '-1', '9007199254740993', '9223372036854775807', '-9223372036854775808']) {
    assert.equal(String(parseInt64(form)), form);
  }
});

test("refuses what Valkey's string2ll refuses", () => {
  const forms = [
    '',
    '-',
    '+1',
    '-0',
    '00',
    '01',
    '-01',
    ' 1',
    '1 ',
    '1\n',
    '1\0',
    '1.0',
    '1e3',
    '0x10',
    '١',
    'Infinity',
  ];
  for (const form of [
    ...forms,
    '9223372036854775808',
    '-9223372036854775809',
    '1'.repeat(21),
    '1'.repeat(5000),
  ]) {
    assert.equal(parseInt64(form), null, JSON.stringify(form));
  }
});

test('refuses increments that are no 64-bit integer in the one form', () => {
  for (const value of [
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1.5,
    2 ** 53,
    MAX_INT64 + 1n,
    '1',
    null,
    undefined,
  ]) {
    assert.throws(() => requireInt64(value), NotAnIntegerError, String(value));
  }
  for (const value of [0, -1, Number.MAX_SAFE_INTEGER, 5n, MAX_INT64, MIN_INT64]) requireInt64(value);
});

test('reads a count back from the wire, and nothing that is not canonical', () => {
  check(
    500,
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 40n - 1n }), (value) => {
      assert.equal(countFromWire(countToWire(integer(value))), integer(value));
    }),
  );
  for (const wire of [
    -1,
    -0,
    1.5,
    Number.NaN,
    2 ** 53,
    '0',
    '5',
    '01',
    '9007199254740991',
    '-9007199254740993',
    '1'.repeat(41),
    'x',
    null,
    [],
    5n,
  ]) {
    assert.throws(() => countFromWire(wire), DecodeError, String(wire));
  }
});
