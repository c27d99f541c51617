/**
 * Exact decimals, for INCRBYFLOAT: whole numbers as in integer.ts, and fractions of up to 17 digits after the point.
 *
 * A fraction is a string of decimal digits in one form, such as '-0.5': so `===` compares, nothing is rounded, and a sum is
 * the same in whatever order regions add it up. What is whole is always an {@link Integer}, so that counters which never
 * met a fraction cost and look as if there were none.
 *
 * Text is read and written as by Valkey's INCRBYFLOAT. That computes in the C compiler's long double, of 64 bits on x86, so its sums
 * depend on their order, and 0.1 - 0.3 + 1000000 is 999999.80000000000001137. Where the two differ, ours is the exact one.
 * Besides, hexadecimal floats are not read, and steps and sums stay below {@link DECIMAL_LIMIT}.
 */
import type { ByteString } from './bytes.js';
import { FloatRangeError, NotAFloatError, NotFiniteError } from './errors.js';
import { countFromWire, countToWire, type Integer, integer, minus, parseInt64, plus } from './integer.js';
import { WIRE_LIMITS } from './wire.js';

declare const fractionBrand: unique symbol;

/** A number that is not whole: `-12.25`, no leading or trailing zeros but one before the point. */
export type Fraction = string & { readonly [fractionBrand]: true };

/** An exact number: an {@link Integer} exactly when it is whole. */
export type Decimal = Integer | Fraction;

/** Digits after the point. What has more is rounded to the nearest, and to the even one of two, before it is counted. */
export const FRACTION_DIGITS = 17;

/** Steps of INCRBYFLOAT, and the values that they lead to, are smaller than this, with either sign. */
export const DECIMAL_LIMIT: bigint = 10n ** 21n;

const UNIT = 10n ** BigInt(FRACTION_DIGITS);
const FRACTION = /^-?(?:0|[1-9][0-9]*)\.[0-9]{0,16}[1-9]$/;
const FLOAT = /^([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:e([+-]?[0-9]+))?$/i;
const INFINITE = /^[+-]?inf(?:inity)?$/i;
/** Valkey reads no longer text as a float. */
const MAX_TEXT = 5 * 1024 - 1;
/** Beyond these powers of ten, a long double overflows or is 0, which Valkey refuses as no float. */
const [LEAST_EXPONENT, GREATEST_EXPONENT] = [-4951, 4932];

/** Says whether a decimal is whole. */
export function isWhole(value: Decimal): value is Integer {
  return typeof value !== 'string';
}

/** Says whether a decimal is below zero. */
export function isNegative(value: Decimal): boolean {
  return typeof value === 'string' ? value.startsWith('-') : value < 0;
}

/** In units of 10^-17. */
function toUnits(value: Decimal): bigint {
  if (typeof value !== 'string') return BigInt(value) * UNIT;
  const point = value.indexOf('.');
  return BigInt(value.slice(0, point) + value.slice(point + 1).padEnd(FRACTION_DIGITS, '0'));
}

function fromUnits(units: bigint): Decimal {
  if (units % UNIT === 0n) return integer(units / UNIT);
  const digits = String(units < 0n ? -units : units).padStart(FRACTION_DIGITS + 1, '0');
  const fraction = digits.slice(-FRACTION_DIGITS).replace(/0+$/, '');
  return `${units < 0n ? '-' : ''}${digits.slice(0, -FRACTION_DIGITS)}.${fraction}` as Fraction;
}

/** Adds exactly. */
export function plusDecimal(a: Decimal, b: Decimal): Decimal {
  return isWhole(a) && isWhole(b) ? plus(a, b) : fromUnits(toUnits(a) + toUnits(b));
}

/** Subtracts exactly. */
export function minusDecimal(a: Decimal, b: Decimal): Decimal {
  return isWhole(a) && isWhole(b) ? minus(a, b) : fromUnits(toUnits(a) - toUnits(b));
}

/** Orders two decimals by size. */
export function compareDecimals(a: Decimal, b: Decimal): number {
  if (a === b) return 0;
  if (isWhole(a) && isWhole(b)) return a < b ? -1 : a > b ? 1 : 0;
  return toUnits(a) < toUnits(b) ? -1 : 1;
}

/** Says whether a decimal is smaller than {@link DECIMAL_LIMIT}, with either sign. */
export function isInDecimalRange(value: Decimal): boolean {
  if (typeof value === 'number') return true;
  const whole = BigInt(isWhole(value) ? value : value.slice(0, value.indexOf('.')));
  return whole < DECIMAL_LIMIT && whole > -DECIMAL_LIMIT;
}

/** Throws NotAFloatError unless a value is a {@link Decimal} in its one form, FloatRangeError when it is past {@link DECIMAL_LIMIT}. */
export function requireDecimal(value: unknown): asserts value is Decimal {
  const isOne =
    typeof value === 'number'
      ? Number.isSafeInteger(value)
      : typeof value === 'string'
        ? FRACTION.test(value)
        : typeof value === 'bigint';
  if (!isOne) throw new NotAFloatError();
  if (!isInDecimalRange(value as Decimal)) throw new FloatRangeError();
}

/** Why a text is no decimal: the error to throw. */
type Refusal = typeof NotAFloatError | typeof NotFiniteError | typeof FloatRangeError;

function readUnits(text: string): bigint | Refusal {
  if (text.length > MAX_TEXT) return NotAFloatError;
  const match = FLOAT.exec(text);
  if (match === null) return INFINITE.test(text) ? NotFiniteError : NotAFloatError;
  const [, sign, whole = '', fraction = match[4] ?? '', , exponent = '0'] = match;
  const digits = (whole + fraction).replace(/^0+/, '');
  if (digits === '') return 0n;
  const shift = Number(exponent) - fraction.length;
  // The power of ten of the first digit.
  const first = shift + digits.length - 1;
  if (first < LEAST_EXPONENT || first > GREATEST_EXPONENT) return NotAFloatError;
  if (first >= WIRE_LIMITS.countDigits) return FloatRangeError;
  const units = shiftDigits(digits, shift + FRACTION_DIGITS);
  return sign === '-' ? -units : units;
}

/** `digits` × 10^`places`, rounded half to even. */
function shiftDigits(digits: string, places: number): bigint {
  if (places >= 0) return BigInt(digits) * 10n ** BigInt(places);
  const kept = digits.length + places;
  if (kept < 0) return 0n;
  const units = BigInt(digits.slice(0, kept) || '0');
  const rest = digits.slice(kept);
  const half = rest[0]! > '5' || (rest[0] === '5' && /[1-9]/.test(rest.slice(1)));
  const tie = !half && rest[0] === '5';
  return half || (tie && units % 2n === 1n) ? units + 1n : units;
}

/**
 * Reads a float as Valkey's INCRBYFLOAT does: `5.0e3`, `+.5`, `007`; no spaces. Throws NotAFloatError for what isn't one,
 * NotFiniteError for `inf`, FloatRangeError for what has more than 40 digits before the point.
 */
export function readDecimal(text: string): Decimal {
  const whole = parseInt64(text);
  if (whole !== null) return whole;
  const units = readUnits(text);
  if (typeof units !== 'bigint') throw new units();
  return fromUnits(units);
}

/** As {@link readDecimal}, but gives null where that throws. */
export function parseDecimal(text: string): Decimal | null {
  const whole = parseInt64(text);
  if (whole !== null) return whole;
  const units = readUnits(text);
  return typeof units === 'bigint' ? fromUnits(units) : null;
}

/** Says whether Valkey's INCRBYFLOAT reads a text as a float, `inf` included. */
export function isFloat(text: string): boolean {
  return parseInt64(text) !== null || readUnits(text) !== NotAFloatError;
}

/** Decimal form: no exponent, no trailing zeros, never `-0`. */
export function formatDecimal(value: Decimal): ByteString {
  return String(value) as ByteString;
}

/** A non-negative decimal for the wire: whole ones as {@link countToWire} gives them, a fraction as its digits. */
export function decimalToWire(value: Decimal): number | string {
  return isWhole(value) ? countToWire(value) : value;
}

/** Reads {@link decimalToWire}; throws DecodeError on anything else. */
export function decimalFromWire(wire: unknown): Decimal {
  if (
    typeof wire === 'string' &&
    wire.length <= WIRE_LIMITS.countDigits + 1 + FRACTION_DIGITS &&
    FRACTION.test(wire) &&
    wire[0] !== '-' &&
    wire.indexOf('.') <= WIRE_LIMITS.countDigits
  )
    return wire as Fraction;
  return countFromWire(wire);
}
