/**
 * Exact integers: a number while it is safe, a bigint beyond 2^53. One value has one form, so `===` compares them, and
 * the common case allocates nothing.
 */
import { type ByteString, isAscii } from './bytes.js';
import { DecodeError, NotAnIntegerError } from './errors.js';
import { WIRE_LIMITS } from './wire.js';

/** A whole number: a JavaScript number exactly when that is safe. */
export type Integer = number | bigint;

/** The greatest signed 64-bit integer. */
export const MAX_INT64 = 9223372036854775807n;
/** The least signed 64-bit integer. */
export const MIN_INT64 = -9223372036854775808n;

/** Gives an integer its one form. */
export function integer(value: bigint): Integer {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** Adds exactly. */
export function plus(a: Integer, b: Integer): Integer {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b;
    if (Number.isSafeInteger(sum)) return sum;
  }
  return integer(BigInt(a) + BigInt(b));
}

/** Subtracts exactly. */
export function minus(a: Integer, b: Integer): Integer {
  if (typeof a === 'number' && typeof b === 'number') {
    const difference = a - b;
    if (Number.isSafeInteger(difference)) return difference;
  }
  return integer(BigInt(a) - BigInt(b));
}

/** Says whether an integer fits in signed 64 bits. */
export function isInt64(value: Integer): boolean {
  return typeof value === 'number' || (value >= MIN_INT64 && value <= MAX_INT64);
}

/** Throws NotAnIntegerError unless a value is an {@link Integer} in its one form that fits in signed 64 bits. */
export function requireInt64(value: unknown): asserts value is Integer {
  if (typeof value === 'number' ? Number.isSafeInteger(value) : typeof value === 'bigint' && isInt64(value))
    return;
  throw new NotAnIntegerError();
}

const DECIMAL = /^(?:0|-?[1-9][0-9]{0,18})$/;
const WIDE_DECIMAL = /^-?[1-9][0-9]*$/;

/** Parses a signed 64-bit integer as Valkey's string2ll does: no spaces, no plus, no leading zero. Null when it isn't one. */
export function parseInt64(value: string): Integer | null {
  if (value.length > 20 || !DECIMAL.test(value)) return null;
  const parsed = value.length < 16 ? Number(value) : integer(BigInt(value));
  return isInt64(parsed) ? parsed : null;
}

/** Parses an integer of any width that one of ours became by concurrent increments. Null when it isn't canonical. */
export function parseInteger(value: string): Integer | null {
  const narrow = parseInt64(value);
  if (narrow !== null) return narrow;
  return value.length <= WIRE_LIMITS.countDigits && WIDE_DECIMAL.test(value) ? integer(BigInt(value)) : null;
}

/** Decimal form. */
export function formatInteger(value: Integer): ByteString {
  return String(value) as ByteString;
}

/** A non-negative integer for the wire: a number, or decimal digits when it is not safe. */
export function countToWire(value: Integer): number | string {
  return typeof value === 'number' ? value : String(value);
}

/** Reads {@link countToWire}; throws DecodeError on anything else. */
export function countFromWire(wire: unknown): Integer {
  if (typeof wire === 'number') {
    if (Number.isSafeInteger(wire) && wire >= 0 && !Object.is(wire, -0)) return wire;
  } else if (
    typeof wire === 'string' &&
    wire.length <= WIRE_LIMITS.countDigits &&
    isAscii(wire) &&
    /^[1-9][0-9]*$/.test(wire)
  ) {
    const value = integer(BigInt(wire));
    if (typeof value === 'bigint') return value;
  }
  throw new DecodeError('a count is not a non-negative integer in canonical form');
}
