/** Codes are public: a change here breaks callers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as crdts from '../crdts/index.js';

const exported = new Map<string, unknown>(Object.entries(crdts));

test('keeps the code and the name of every error', () => {
  const pinned = {
    DecodeError: 'DECODE',
    WrongTypeError: 'WRONGTYPE',
    NotAnIntegerError: 'NOT_AN_INTEGER',
    NotAFloatError: 'NOT_A_FLOAT',
    NotFiniteError: 'NOT_FINITE',
    FloatRangeError: 'FLOAT_RANGE',
    OverflowError: 'OVERFLOW',
    StampRangeError: 'STAMP_RANGE',
    ArgumentError: 'ARGUMENT',
    InvariantError: 'INVARIANT',
    ResolverError: 'RESOLVER',
    RuleError: 'RULE',
    NotReadyError: 'NOT_READY',
    CheckError: 'CHECK',
  } as const;
  for (const [name, code] of Object.entries(pinned)) {
    const Class = exported.get(name) as new (message: string) => crdts.MeshError;
    const error = new Class('why');
    assert.ok(error instanceof crdts.MeshError && error instanceof Error);
    assert.equal(error.code, code);
    assert.equal(error.name, name);
  }
  const classes = [...exported.values()].filter(
    (value) => typeof value === 'function' && value.prototype instanceof crdts.MeshError,
  );
  assert.equal(classes.length, Object.keys(pinned).length, 'an error class is not pinned');
});

test('says of numbers what Valkey says', () => {
  assert.equal(new crdts.NotAFloatError().message, 'value is not a valid float');
  assert.equal(new crdts.NotFiniteError().message, 'increment would produce NaN or Infinity');
  assert.equal(new crdts.NotAnIntegerError().message, 'value is not an integer or out of range');
  assert.equal(new crdts.OverflowError().message, 'increment or decrement would overflow');
  assert.equal(new crdts.WrongTypeError().message, 'Operation against a key holding the wrong kind of value');
});

test('keeps the cause', () => {
  const cause = new Error('deeper');
  assert.equal(new crdts.DecodeError('why', { cause }).cause, cause);
});
