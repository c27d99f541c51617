/**
 * Binary data as strings, one character per byte.
 *
 * Keys, values and members are bytes, not text. JavaScript's Uint8Array compares by identity, so it can't be a
 * Map key, and it can be changed behind our back. A string whose every code unit is 0–255 has neither problem:
 * it is immutable, compares by value, and V8 keeps it at one byte per character. WebIDL names this a ByteString.
 *
 * The brand keeps text out: `'é' as ByteString` is a lie about bytes, so text enters through {@link utf8} and
 * leaves through {@link text} only.
 */
import { ArgumentError } from './errors.js';

declare const byteStringBrand: unique symbol;

/** A string whose every code unit is a byte, 0–255. */
export type ByteString = string & { readonly [byteStringBrand]: true };

// biome-ignore lint/suspicious/noControlCharactersInRegex: the range is the point
const NON_ASCII = /[^\x00-\x7f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: the range is the point
const NON_BYTE = /[^\x00-\xff]/;

const encoder = new TextEncoder();
// Without ignoreBOM, a leading byte order mark would vanish.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Up to this length a loop is faster than starting a regular expression. */
const SHORT = 32;

/** Says whether every byte is below 128: then bytes, text and UTF-8 are the same characters. */
export function isAscii(value: string): boolean {
  if (value.length > SHORT) return !NON_ASCII.test(value);
  let all = 0;
  for (let i = 0; i < value.length; i += 1) all |= value.charCodeAt(i);
  return all < 128;
}

/** Says whether a string is a {@link ByteString}: every code unit is 0–255. */
export function isByteString(value: unknown): value is ByteString {
  return typeof value === 'string' && !NON_BYTE.test(value);
}

/** Encodes text as the bytes of its UTF-8 form. */
export function utf8(value: string): ByteString {
  return (NON_ASCII.test(value) ? fromUint8Array(encoder.encode(value)) : value) as ByteString;
}

/** Decodes bytes as UTF-8 text; invalid sequences become U+FFFD, so use it for display, not for keeping. */
export function text(value: ByteString): string {
  return NON_ASCII.test(value) ? decoder.decode(toUint8Array(value)) : value;
}

/** All bits that are set in any byte of a part of an array: below 128 when all is ASCII. */
export function allBytes(bytes: Uint8Array, from: number, length: number): number {
  let all = 0;
  for (let i = from; i < from + length; i += 1) all |= bytes[i]!;
  return all;
}

/**
 * A hash of a part of an array, a signed 32-bit integer (FNV-1a, finished as MurmurHash3 is). Not secret: whoever chooses the bytes can
 * make as many that collide as they like.
 */
export function hashAt(bytes: Uint8Array, from: number, length: number): number {
  let hash = 0x811c9dc5 ^ length;
  for (let i = from; i < from + length; i += 1) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Copies a part of an array to a position in another one. */
export function copyBytes(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): void {
  if (end - start > SHORT) to.set(from.subarray(start, end), at);
  else for (let i = start, j = at; i < end; i += 1, j += 1) to[j] = from[i]!;
}

/** Copies a part of an array into a {@link ByteString}. */
export function stringOfBytes(bytes: Uint8Array, from: number, length: number): ByteString {
  return asciiAt(bytes, from, length) ?? fromUint8Array(bytes.subarray(from, from + length));
}

/** Copies a part of an array into a {@link ByteString}; null when it isn't all ASCII. Faster than {@link fromUint8Array}. */
export function asciiAt(bytes: Uint8Array, from: number, length: number): ByteString | null {
  if (allBytes(bytes, from, length) > 127) return null;
  return (shortAt(bytes, from, length) ?? decoder.decode(bytes.subarray(from, from + length))) as ByteString;
}

/** Up to 16 bytes as characters; null beyond. With a fixed number of arguments the call is several times faster than any loop. */
// biome-ignore format: a table
function shortAt(b: Uint8Array, i: number, length: number): string | null {
  const of = String.fromCharCode;
  switch (length) {
    case 0: return '';
    case 1: return of(b[i]!);
    case 2: return of(b[i]!, b[i+1]!);
    case 3: return of(b[i]!, b[i+1]!, b[i+2]!);
    case 4: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!);
    case 5: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!);
    case 6: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!);
    case 7: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!);
    case 8: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!);
    case 9: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!);
    case 10: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!);
    case 11: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!);
    case 12: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!, b[i+11]!);
    case 13: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!, b[i+11]!, b[i+12]!);
    case 14: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!, b[i+11]!, b[i+12]!, b[i+13]!);
    case 15: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!, b[i+11]!, b[i+12]!, b[i+13]!, b[i+14]!);
    case 16: return of(b[i]!, b[i+1]!, b[i+2]!, b[i+3]!, b[i+4]!, b[i+5]!, b[i+6]!, b[i+7]!, b[i+8]!, b[i+9]!, b[i+10]!, b[i+11]!, b[i+12]!, b[i+13]!, b[i+14]!, b[i+15]!);
    default: return null;
  }
}

/** Copies an array of bytes into a {@link ByteString}. */
export function fromUint8Array(bytes: Uint8Array): ByteString {
  let out = '';
  // fromCharCode takes its arguments on the stack, so long arrays go in pieces.
  for (let start = 0; start < bytes.length; start += 8192) {
    out += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return out as ByteString;
}

/** Copies a {@link ByteString} into an array of bytes. Throws ArgumentError when it is text beyond U+00FF after all. */
export function toUint8Array(value: ByteString): Uint8Array {
  const bytes = new Uint8Array(value.length);
  let all = 0;
  for (let i = 0; i < value.length; i += 1) {
    const unit = value.charCodeAt(i);
    all |= unit;
    bytes[i] = unit;
  }
  if (all > 255)
    throw new ArgumentError('a byte string holds a character that is not a byte: encode text with utf8()');
  return bytes;
}
