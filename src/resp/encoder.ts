/**
 * Writes replies in RESP2 or RESP3 into one growing buffer, which a connection hands to its socket once per turn.
 *
 * Containers are announced by their length and followed by that many elements; the caller keeps count.
 */
import { Buffer } from 'node:buffer';
import type { ByteString } from '../../crdts/bytes.js';

const SMALLEST = 512;
const LARGEST_FIRST_GUESS = 64 * 1024;
/** Below this a loop beats the call into native code. */
const SHORT = 32;

const CR = 13;
const LF = 10;
const PLUS = 43;
const MINUS = 45;
const COLON = 58;
const DOLLAR = 36;
const STAR = 42;
const PERCENT = 37;
const TILDE = 126;
const UNDERSCORE = 95;

/** Collects replies. Lengths are bytes, strings are written one byte per character. */
export class ReplyWriter {
  /** What the client asked for with HELLO. */
  protocol: 2 | 3 = 2;
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;
  #guess = SMALLEST;

  /** Bytes written since the last {@link take}. */
  get length(): number {
    return this.#length;
  }

  /** Hands over what was written; the buffer is the caller's from now on. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#length);
    this.#guess = Math.min(LARGEST_FIRST_GUESS, Math.max(SMALLEST, this.#length));
    this.#buffer = Buffer.alloc(0);
    this.#length = 0;
    return taken;
  }

  /** Forgets everything after the first `length` bytes: a reply that turned out to be unwanted. */
  truncate(length: number): void {
    this.#length = length;
  }

  /** `+text`; the text has no line ends. */
  simple(text: string): void {
    this.#line(PLUS, text);
  }

  ok(): void {
    this.#line(PLUS, 'OK');
  }

  /** `-text`, with prefix: `ERR syntax error`. Line ends become blanks, as in Valkey. */
  error(text: string): void {
    this.#line(MINUS, printable(text.replace(/[\r\n]+$/, '')));
  }

  integer(value: number | bigint): void {
    this.#line(COLON, String(value));
  }

  bulk(value: ByteString): void {
    this.#line(DOLLAR, String(value.length));
    this.#reserve(value.length + 2);
    this.#put(value);
    this.#crlf();
  }

  /** A bulk string of ASCII text. */
  ascii(value: string): void {
    this.bulk(value as ByteString);
  }

  /** A bulk string, or nil for null. */
  bulkOrNil(value: ByteString | null): void {
    if (value === null) this.nil();
    else this.bulk(value);
  }

  /** Text for people: a verbatim string in RESP3. */
  verbatim(text: ByteString): void {
    if (this.protocol === 2) {
      this.bulk(text);
      return;
    }
    this.#line(61, String(text.length + 4));
    this.#reserve(text.length + 6);
    this.#put('txt:');
    this.#put(text);
    this.#crlf();
  }

  nil(): void {
    if (this.protocol === 2) this.#line(DOLLAR, '-1');
    else this.#line(UNDERSCORE, '');
  }

  array(length: number): void {
    this.#line(STAR, String(length));
  }

  /** A set of `length` elements; an array in RESP2. */
  set(length: number): void {
    this.#line(this.protocol === 2 ? STAR : TILDE, String(length));
  }

  /** A map of `pairs` keys, each followed by its value; a flat array in RESP2. */
  map(pairs: number): void {
    if (this.protocol === 2) this.#line(STAR, String(pairs * 2));
    else this.#line(PERCENT, String(pairs));
  }

  /** Writes bulk strings one after the other. */
  bulks(values: readonly ByteString[]): void {
    for (const value of values) this.bulk(value);
  }

  #line(type: number, text: string): void {
    this.#reserve(text.length + 3);
    this.#buffer[this.#length++] = type;
    this.#put(text);
    this.#crlf();
  }

  #put(text: string): void {
    const length = text.length;
    if (length < SHORT) {
      const buffer = this.#buffer;
      let at = this.#length;
      for (let i = 0; i < length; i += 1) buffer[at++] = text.charCodeAt(i);
    } else {
      this.#buffer.write(text, this.#length, length, 'latin1');
    }
    this.#length += length;
  }

  #crlf(): void {
    this.#buffer[this.#length++] = CR;
    this.#buffer[this.#length++] = LF;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2, this.#guess));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}

/** Line ends become blanks; characters above one byte (never in Valkey's own texts) become `?`. */
function printable(text: string): string {
  return /[^\x20-\x7e]/.test(text) ? text.replace(/[\r\n]/g, ' ').replace(/[^\0-\xff]/g, '?') : text;
}
