/** Each rule of the wire forms, broken once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  counterType,
  DecodeError,
  expiryType,
  registerType,
  setType,
  stringType,
  valuesType,
  WireReader,
} from '../crdts/index.js';

interface Form {
  readonly name: string;
  fromWire(wire: unknown, reader: WireReader): unknown;
}

const bytes = Uint8Array.of(200, 1);

/** A form that is refused, for each rule that it breaks. Table: a, b; base 100, so 0 is stamp 100 and 99 is stamp 1. */
const malformed: readonly [string, Form, unknown][] = [
  ['not an array', registerType, 'x'],
  ['a part is missing', registerType, [0, 0]],
  ['a part too many', registerType, [0, 0, 'v', 0]],
  ['stamp zero', registerType, [100, 0, 'v']],
  ['stamp above the base', registerType, [-1, 0, 'v']],
  ['stamp minus zero', registerType, [-0, 0, 'v']],
  ['stamp not whole', registerType, [0.5, 0, 'v']],
  ['replica outside the table', registerType, [0, 2, 'v']],
  ['replica below the table', registerType, [0, -1, 'v']],
  ['replica not whole', registerType, [0, 0.5, 'v']],
  ['replica minus zero', registerType, [0, -0, 'v']],
  ['replica by name', registerType, [0, 'a', 'v']],
  ['no value', registerType, [0, 0, undefined]],
  ['bytes that nobody has, by a negative zero', registerType, [0, 0, -0]],
  ['a number for a value', registerType, [0, 0, 1]],
  ['value is text', registerType, [0, 0, 'é']],
  ['ASCII as an array', registerType, [0, 0, Uint8Array.of(97)]],
  ['empty bytes as an array', registerType, [0, 0, Uint8Array.of()]],
  ['value too long', registerType, [0, 0, 'x'.repeat(1001)]],
  ['bytes too long', registerType, [0, 0, new Uint8Array(1001).fill(200)]],
  ['counts not in fours', counterType, [[0, 0, 1], []]],
  ['counts out of order', counterType, [[1, 0, 1, 0, 0, 0, 1, 0], []]],
  ['counts twice', counterType, [[0, 0, 1, 0, 0, 0, 2, 0], []]],
  ['negative count', counterType, [[0, 0, -1, 0], []]],
  ['count in digits that fits a number', counterType, [[0, 0, '5', 0], []]],
  ['count with too many digits', counterType, [[0, 0, '1'.repeat(41), 0], []]],
  ['unsafe count', counterType, [[0, 0, 2 ** 53, 0], []]],
  ['count that is no decimal', counterType, [[0, 0, 0.5, 0], []]],
  ['fraction below zero', counterType, [[0, 0, '-0.5', 0], []]],
  ['fraction with a zero at its end', counterType, [[0, 0, '0.50', 0], []]],
  ['fraction that is whole', counterType, [[0, 0, '5.0', 0], []]],
  ['fraction with a zero before it', counterType, [[0, 0, '00.5', 0], []]],
  ['fraction with nothing before the point', counterType, [[0, 0, '.5', 0], []]],
  ['fraction with an exponent', counterType, [[0, 0, '5.1e3', 0], []]],
  ['fraction of too many digits', counterType, [[0, 0, `0.${'1'.repeat(18)}`, 0], []]],
  ['fraction too great', counterType, [[0, 0, `${'1'.repeat(41)}.5`, 0], []]],
  [
    'covered count',
    counterType,
    [
      [0, 1, 5, 0],
      [0, 1, 5, 0],
    ],
  ],
  ['no resets', counterType, [[0, 0, 1, 0]]],
  ['no register', stringType, []],
  [
    'an empty counter',
    stringType,
    [
      [0, 0, 'v'],
      [[], []],
    ],
  ],
  ['three parts', stringType, [[0, 0, 'v'], [[0, 0, 1, 0], []], []]],
  ['not said whether whole', setType, [[0, 0], []]],
  ['whole is a boolean', setType, [[0, 0], [], true]],
  ['whole is minus zero', setType, [[0, 0], [], -0]],
  ['odd context', setType, [[0], [], 1]],
  ['context out of order', setType, [[1, 0, 0, 0], [], 1]],
  ['context twice', setType, [[0, 0, 0, 1], [], 1]],
  ['context denies its dot', setType, [[0, 5], [[0, 4], ['m']], 1]],
  ['context lacks its dot', setType, [[1, 5], [[0, 6], ['m']], 1]],
  ['whole with an absent member', setType, [[0, 0], [[], ['m']], 1]],
  ['absent without a reason', setType, [[], [[], ['m']], 0]],
  ['entries not in pairs', setType, [[0, 0], [[0, 0]], 1]],
  ['group without members', setType, [[0, 0], [[0, 0], []], 1]],
  ['groups out of order', setType, [[0, 0, 1, 0], [[1, 0], ['m'], [0, 0], ['n']], 1]],
  ['equal groups apart', setType, [[0, 0], [[0, 0], ['m'], [0, 0], ['n']], 1]],
  [
    'members out of order',
    setType,
    [
      [0, 0],
      [
        [0, 0],
        ['n', 'm'],
      ],
      1,
    ],
  ],
  [
    'member twice in a group',
    setType,
    [
      [0, 0],
      [
        [0, 0],
        ['m', 'm'],
      ],
      1,
    ],
  ],
  ['member in two groups', setType, [[0, 0, 1, 0], [[0, 0], ['m'], [1, 0], ['m']], 1]],
  ['dots out of order', setType, [[0, 0, 1, 0], [[1, 0, 0, 0], ['m']], 1]],
  ['two dots of one replica', setType, [[0, 0], [[0, 0, 0, 1], ['m']], 1]],
  [
    'siblings not in threes',
    expiryType,
    [
      [0, 0],
      [0, 0],
    ],
  ],
  [
    'siblings out of order',
    expiryType,
    [
      [0, 0, 1, 0],
      [1, 0, 5, 0, 0, 5],
    ],
  ],
  [
    'sibling outside its context',
    expiryType,
    [
      [0, 5],
      [0, 4, 5],
    ],
  ],
  [
    'deadline below zero',
    expiryType,
    [
      [0, 0],
      [0, 0, -1],
    ],
  ],
  [
    'deadline minus zero',
    expiryType,
    [
      [0, 0],
      [0, 0, -0],
    ],
  ],
  [
    'deadline too far',
    expiryType,
    [
      [0, 0],
      [0, 0, 2 ** 48],
    ],
  ],
  [
    'deadline missing',
    expiryType,
    [
      [0, 0],
      [0, 0, undefined],
    ],
  ],
  [
    'values without a region',
    valuesType,
    [
      [0, 0],
      [0, 0, ['v']],
    ],
  ],
  [
    'a value that is no pair',
    valuesType,
    [
      [0, 0],
      [0, 0, 'v'],
    ],
  ],
  [
    'deadline in bytes',
    expiryType,
    [
      [0, 0],
      [0, 0, bytes],
    ],
  ],
];

for (const [what, type, form] of malformed) {
  test(`refuses a ${type.name}: ${what}`, () => {
    assert.throws(() => type.fromWire(form, new WireReader(100, ['a', 'b'], 1000)), DecodeError);
  });
}
