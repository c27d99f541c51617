/**
 * Values read from msgpack bytes at a position, without a tree. Plain functions, for loops that are on the way of every key.
 *
 * Only the usual spelling is read: what a library writes that takes the shortest form. Where anything else stands, or the bytes end
 * before, the answer is negative, or null.
 */
import { asciiAt, type ByteString, fromUint8Array, isAscii } from './bytes.js';

/** Heads of msgpack values. */
export const NULL = 0xc0;
const BYTES_8 = 0xc4;
const BYTES_16 = 0xc5;
const BYTES_32 = 0xc6;
const FLOAT_64 = 0xcb;
const UINT_8 = 0xcc;
const UINT_16 = 0xcd;
const UINT_32 = 0xce;
const TEXT_8 = 0xd9;
const TEXT_16 = 0xda;
const TEXT_32 = 0xdb;
const ARRAY_16 = 0xdc;
const ARRAY_32 = 0xdd;
/** Shorter arrays and texts have their length in the head, in the bits below. */
export const ARRAY = 0x90;
const TEXT = 0xa0;

/**
 * A whole number of up to four bytes; negative where they end before, where fewer would have said it, and from 2^31 up: with shifts
 * it stays a small integer, which costs no object to keep.
 */
function numberAt(bytes: Uint8Array, at: number, size: number, least: number): number {
  if (at + size > bytes.length) return -1;
  let value = 0;
  for (let i = at; i < at + size; i += 1) value = (value << 8) | bytes[i]!;
  return value < least ? -1 : value;
}

/** An integer from 0 up, below 2^31; negative where there is none. */
export function integerAt(bytes: Uint8Array, at: number): number {
  if (at >= bytes.length) return -1;
  const head = bytes[at]!;
  if (head < 0x80) return head;
  if (head === UINT_8) return numberAt(bytes, at + 1, 1, 0x80);
  if (head === UINT_16) return numberAt(bytes, at + 1, 2, 0x100);
  return head === UINT_32 ? numberAt(bytes, at + 1, 4, 0x1_0000) : -1;
}

/** How many bytes {@link integerAt} reads. */
export function integerSize(value: number): number {
  return value < 0x80 ? 1 : value < 0x100 ? 2 : value < 0x1_0000 ? 3 : 5;
}

/** A whole number from 0 to 2^53-1; negative where there is none. Beyond 32 bits, msgpack libraries write what JavaScript has, a double. */
export function wholeAt(bytes: Uint8Array, at: number): number {
  const head = bytes[at];
  if (head === FLOAT_64) {
    if (at + 9 > bytes.length) return -1;
    for (let i = 0; i < 8; i += 1) doubleBytes[LITTLE_ENDIAN ? 7 - i : i] = bytes[at + 1 + i]!;
    const value = double[0]!;
    // Not -0 either, which says something else to those who look closely.
    return Number.isSafeInteger(value) && (value > 0 || Object.is(value, 0)) ? value : -1;
  }
  if (head !== UINT_32) return integerAt(bytes, at);
  const value = numberAt(bytes, at + 1, 4, Number.NEGATIVE_INFINITY) >>> 0;
  return at + 5 <= bytes.length && value >= 0x1_0000 ? value : -1;
}

/** How many bytes {@link wholeAt} reads. */
export function wholeSize(bytes: Uint8Array, at: number): number {
  const head = bytes[at]!;
  return head < 0x80 ? 1 : head === FLOAT_64 ? 9 : head === UINT_8 ? 2 : head === UINT_16 ? 3 : 5;
}

const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);
const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** The length of an array; negative where there is none. */
export function arrayLengthAt(bytes: Uint8Array, at: number): number {
  const head = at < bytes.length ? bytes[at]! : NULL;
  if (head >= ARRAY && head < TEXT) return head - ARRAY;
  if (head === ARRAY_16) return numberAt(bytes, at + 1, 2, 0x10);
  return head === ARRAY_32 ? numberAt(bytes, at + 1, 4, 0x1_0000) : -1;
}

/** How many bytes stand before the items of an array. */
export function arrayHeadSize(length: number): number {
  return length < 0x10 ? 1 : length < 0x1_0000 ? 3 : 5;
}

/** An array of items that {@link integerAt} or {@link stringAt} reads; null where there is none, or where one isn't read. */
export function listAt<Item extends number | ByteString>(
  bytes: Uint8Array,
  from: number,
  itemAt: (bytes: Uint8Array, at: number) => Item | null,
): Item[] | null {
  const length = arrayLengthAt(bytes, from);
  if (length < 0) return null;
  const items: Item[] = [];
  for (let at = from + arrayHeadSize(length); items.length < length; at = endOf(bytes, at)) {
    if (at < 0) return null;
    const item = itemAt(bytes, at);
    if (item === null || (typeof item === 'number' && item < 0)) return null;
    items.push(item);
  }
  return items;
}

/** The length of a byte string; negative where there is none. */
export function stringLengthAt(bytes: Uint8Array, at: number): number {
  const head = at < bytes.length ? bytes[at]! : NULL;
  return head >= TEXT && head < NULL ? head - TEXT : longLengthAt(bytes, at, head);
}

function longLengthAt(bytes: Uint8Array, at: number, head: number): number {
  switch (head) {
    case TEXT_8:
      return numberAt(bytes, at + 1, 1, 0x20);
    case BYTES_8:
      return numberAt(bytes, at + 1, 1, 0);
    case TEXT_16:
    case BYTES_16:
      return numberAt(bytes, at + 1, 2, 0x100);
    case TEXT_32:
    case BYTES_32:
      return numberAt(bytes, at + 1, 4, 0x1_0000);
    default:
      return -1;
  }
}

/** How many bytes stand before those of a string. */
export function stringHeadSize(bytes: Uint8Array, at: number, length: number): number {
  return bytes[at]! < NULL ? 1 : length < 0x100 ? 2 : length < 0x1_0000 ? 3 : 5;
}

/** Says whether the head of a byte string is one of text: so it is spelled where all is ASCII, and not otherwise. */
export function isText(head: number): boolean {
  return head < BYTES_8 || head > BYTES_32;
}

/** The byte string that ends at a position, in its canonical form: text where all is ASCII, bytes otherwise. Null where it isn't. */
export function stringBefore(
  bytes: Uint8Array,
  end: number,
  length: number,
  head: number,
): ByteString | null {
  if (end > bytes.length) return null;
  if (isText(head)) return asciiAt(bytes, end - length, length);
  const value = fromUint8Array(bytes.subarray(end - length, end));
  return isAscii(value) ? null : value;
}

/** A byte string, in its canonical form; null where there is none. */
export function stringAt(bytes: Uint8Array, at: number): ByteString | null {
  const length = stringLengthAt(bytes, at);
  return length < 0
    ? null
    : stringBefore(bytes, at + stringHeadSize(bytes, at, length) + length, length, bytes[at]!);
}

/** Where a value ends, with all that is in it; negative where the bytes end before, or something rare is in it. */
export function endOf(bytes: Uint8Array, from: number): number {
  let at = from;
  for (let left = 1; left > 0; left -= 1) {
    if (at < 0 || at >= bytes.length) return -1;
    const head = bytes[at]!;
    const items = arrayLengthAt(bytes, at);
    if (items >= 0) {
      left += items;
      at += arrayHeadSize(items);
    } else if (head < 0x80 || head === NULL) at += 1;
    else if (head === FLOAT_64) at += 9;
    else if (head === UINT_32) at += 5;
    else {
      const length = stringLengthAt(bytes, at);
      const value = length < 0 ? integerAt(bytes, at) : 0;
      if (value < 0) return -1;
      at += length < 0 ? integerSize(value) : stringHeadSize(bytes, at, length) + length;
    }
  }
  return at <= bytes.length ? at : -1;
}
