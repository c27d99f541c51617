/**
 * Counter commands on strings. Increments of all regions count, whatever else happens to the key at the same time.
 *
 * INCRBYFLOAT differs from Valkey's where a long double rounds (crdts/decimal.ts): its sums are exact to 17 digits after the
 * point, so that regions agree on every byte, and stay below 10^21; hexadecimal floats are refused.
 */
import type { ByteString } from '../../../crdts/bytes.js';
import { type Decimal, formatDecimal, isFloat, readDecimal } from '../../../crdts/decimal.js';
import { type Integer, integer } from '../../../crdts/integer.js';
import { NotAFloatError } from '../../errors.js';
import type { Need, Transaction } from '../../replica/operation.js';
import type { Call, Command, Flag } from '../command.js';
import type { ReplyWriter } from '../encoder.js';
import { CommandError } from '../errors.js';
import { integerArgument } from '../numbers.js';

/** Adds to the integer in a key; gives the sum. */
class Increment implements Call<Integer> {
  readonly needs: readonly Need[];
  readonly #key: ByteString;
  readonly #by: Integer;

  constructor(key: ByteString, by: bigint) {
    this.needs = [{ key, value: true }];
    this.#key = key;
    this.#by = integer(by);
  }

  run(tx: Transaction): Integer {
    return tx.increment(this.#key, this.#by);
  }

  reply(out: ReplyWriter, value: Integer): void {
    out.integer(value);
  }
}

/** Adds to the number in a key; gives the sum as text. */
class IncrementFloat implements Call<Decimal> {
  readonly needs: readonly Need[];
  readonly #key: ByteString;
  readonly #by: ByteString;

  constructor(key: ByteString, by: ByteString) {
    this.needs = [{ key, value: true }];
    this.#key = key;
    this.#by = by;
  }

  run(tx: Transaction): Decimal {
    // In Valkey's order: a key of another type, then a value or a step that is no float, then an infinite one.
    const current = tx.get(this.#key);
    if ((current !== null && !isFloat(current)) || !isFloat(this.#by)) throw new NotAFloatError();
    return tx.incrementFloat(this.#key, readDecimal(this.#by));
  }

  reply(out: ReplyWriter, value: Decimal): void {
    out.bulk(formatDecimal(value));
  }
}

const FLAGS: readonly Flag[] = ['write', 'denyoom', 'fast'];
const ENTRY = { kind: 'write', flags: FLAGS, group: 'string', keys: [1, 1, 1] } as const;
const INT64_MIN = -(2n ** 63n);

export const counterCommands: readonly Command[] = [
  {
    ...ENTRY,
    name: 'incr',
    arity: 2,
    summary:
      'Increments the integer value of a key by one. Uses 0 as initial value if the key does not exist.',
    plan: (args) => new Increment(args[1] as ByteString, 1n),
  },
  {
    ...ENTRY,
    name: 'decr',
    arity: 2,
    summary:
      'Decrements the integer value of a key by one. Uses 0 as initial value if the key does not exist.',
    plan: (args) => new Increment(args[1] as ByteString, -1n),
  },
  {
    ...ENTRY,
    name: 'incrby',
    arity: 3,
    summary: 'Increments the integer value of a key by a number.',
    plan: (args) => new Increment(args[1] as ByteString, BigInt(integerArgument(args[2] as ByteString))),
  },
  {
    ...ENTRY,
    name: 'decrby',
    arity: 3,
    summary: 'Decrements a number from the integer value of a key.',
    plan: (args) => {
      const by = BigInt(integerArgument(args[2] as ByteString));
      if (by === INT64_MIN) throw new CommandError('ERR decrement would overflow');
      return new Increment(args[1] as ByteString, -by);
    },
  },
  {
    ...ENTRY,
    name: 'incrbyfloat',
    arity: 3,
    summary:
      'Increments the floating point value of a key by a number. Uses 0 as initial value if the key does not exist.',
    plan: (args) => new IncrementFloat(args[1] as ByteString, args[2] as ByteString),
  },
];
