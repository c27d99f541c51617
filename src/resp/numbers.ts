/** Integers as Valkey reads them: decimal, no sign but `-`, no leading zeros, no blanks, 64 bits. */
import type { ByteString } from '../../crdts/bytes.js';
import { notAnInteger } from './errors.js';

const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);
const STRICT = /^(?:0|-?[1-9][0-9]{0,18})$/;

/** Parses a signed 64-bit integer: a number when it is exact in one, else a bigint. Null when it isn't one. */
export function parseInteger(text: string): number | bigint | null {
  if (!STRICT.test(text)) return null;
  if (text.length <= 15) return Number(text);
  const value = BigInt(text);
  if (value > INT64_MAX || value < INT64_MIN) return null;
  return value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER)
    ? Number(value)
    : value;
}

/** As {@link parseInteger}. Throws Valkey's `value is not an integer or out of range`. */
export function integerArgument(text: ByteString): number | bigint {
  const value = parseInteger(text);
  if (value === null) throw notAnInteger();
  return value;
}

/** Brings an integer into what a JavaScript number holds exactly, for counts where more means "all". */
export function clampToSafe(value: number | bigint): number {
  if (typeof value === 'number') return value;
  return value > 0n ? Number.MAX_SAFE_INTEGER : Number.MIN_SAFE_INTEGER;
}
