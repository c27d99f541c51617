/**
 * Writes the subset of msgpack that Valkey's cmsgpack reads: arrays, booleans, numbers, and strings *of raw bytes*.
 *
 * cmsgpack doesn't know msgpack's bin type, and general encoders put UTF-8 into its str type; hence this one. Into one
 * growing buffer that is used again for the next frame: no allocation per frame.
 */
import type { ByteString } from '../../crdts/bytes.js';

/** Up to this many bytes a loop is faster than a call out of JavaScript. */
const SHORT = 40;

/** Digits of the greatest whole number. */
const MAX_DECIMAL = 16;

function decimalSize(value: number): number {
  let size = 1;
  for (let limit = 10; value >= limit; limit *= 10) size += 1;
  return size;
}

function writeDigits(buffer: Buffer, start: number, size: number, value: number): void {
  // In two parts, so that the digits are taken off small integers.
  let at = start + size;
  let high = value;
  if (size > 8) {
    high = Math.floor(value / 1e8);
    let low = value - high * 1e8;
    for (let i = 0; i < 8; i += 1) {
      const rest = (low / 10) | 0;
      at -= 1;
      buffer[at] = 48 + low - rest * 10;
      low = rest;
    }
  }
  while (at > start) {
    const rest = (high / 10) | 0;
    at -= 1;
    buffer[at] = 48 + high - rest * 10;
    high = rest;
  }
}

/** A msgpack writer. Counts of arrays are the caller's to keep: write the header, then exactly as many items. */
export class FrameWriter {
  #buffer: Buffer;
  #length = 0;

  /** @param capacity initial size in bytes. Default: 64 KiB. */
  constructor(capacity = 65_536) {
    this.#buffer = Buffer.allocUnsafe(capacity);
  }

  /** Begins a frame, forgetting the last one. */
  reset(): void {
    this.#length = 0;
    // One huge frame must not hold its memory for good.
    if (this.#buffer.length > 4_194_304) this.#buffer = Buffer.allocUnsafe(65_536);
  }

  /** What was written since {@link reset}. A view: valid until the next reset. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #reserve(bytes: number): number {
    const at = this.#length;
    const end = at + bytes;
    if (end > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(end, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#length = end;
    return at;
  }

  /** Begins an array of that many items. */
  array(count: number): void {
    if (count < 16) {
      const at = this.#reserve(1);
      this.#buffer[at] = 0x90 | count;
    } else if (count < 65_536) {
      const at = this.#reserve(3);
      this.#buffer[at] = 0xdc;
      this.#buffer.writeUInt16BE(count, at + 1);
    } else {
      const at = this.#reserve(5);
      this.#buffer[at] = 0xdd;
      this.#buffer.writeUInt32BE(count, at + 1);
    }
  }

  boolean(value: boolean): void {
    const at = this.#reserve(1);
    this.#buffer[at] = value ? 0xc3 : 0xc2;
  }

  /** A number; exact up to 2^53, as Lua's own. */
  number(value: number): void {
    if (Number.isInteger(value) && value >= 0 && value < 128) {
      const at = this.#reserve(1);
      this.#buffer[at] = value;
    } else {
      const at = this.#reserve(9);
      this.#buffer[at] = 0xcb;
      this.#buffer.writeDoubleBE(value, at + 1);
    }
  }

  /** Begins a string of `length` bytes; gives where its content belongs. */
  #stringHeader(length: number): number {
    if (length < 32) {
      const at = this.#reserve(1 + length);
      this.#buffer[at] = 0xa0 | length;
      return at + 1;
    }
    if (length < 65_536) {
      const at = this.#reserve(3 + length);
      this.#buffer[at] = 0xda;
      this.#buffer.writeUInt16BE(length, at + 1);
      return at + 3;
    }
    const at = this.#reserve(5 + length);
    this.#buffer[at] = 0xdb;
    this.#buffer.writeUInt32BE(length, at + 1);
    return at + 5;
  }

  /** A whole number from 0 to 2^53-1 as decimal text. */
  decimal(value: number): void {
    const size = decimalSize(value);
    const start = this.#stringHeader(size);
    writeDigits(this.#buffer, start, size, value);
  }

  /**
   * Four strings: bytes that are one already, a whole number as decimal text, and two of bytes. As the single methods, but in one go: a commit of many
   * keys is little else.
   */
  record(head: Uint8Array, number: number, first: ByteString, second: ByteString): void {
    const lengths = first.length + second.length;
    if (first.length >= 32 || second.length >= 32) {
      this.#bytes(head);
      this.decimal(number);
      this.string(first);
      this.string(second);
      return;
    }
    let at = this.#reserve(head.length + MAX_DECIMAL + 3 + lengths);
    const buffer = this.#buffer;
    for (let i = 0; i < head.length; i += 1) buffer[at + i] = head[i]!;
    at += head.length;
    const size = decimalSize(number);
    buffer[at] = 0xa0 | size;
    writeDigits(buffer, at + 1, size, number);
    at += 1 + size;
    buffer[at] = 0xa0 | first.length;
    at += 1;
    for (let i = 0; i < first.length; i += 1) buffer[at + i] = first.charCodeAt(i);
    at += first.length;
    buffer[at] = 0xa0 | second.length;
    at += 1;
    for (let i = 0; i < second.length; i += 1) buffer[at + i] = second.charCodeAt(i);
    this.#length = at + second.length;
  }

  #bytes(value: Uint8Array): void {
    const at = this.#reserve(value.length);
    this.#buffer.set(value, at);
  }

  /** The bytes of a ByteString. */
  string(value: ByteString): void {
    const { length } = value;
    const at = this.#stringHeader(length);
    if (length > SHORT) {
      this.#buffer.write(value, at, length, 'latin1');
      return;
    }
    const buffer = this.#buffer;
    for (let i = 0; i < length; i += 1) buffer[at + i] = value.charCodeAt(i);
  }

  /** Bytes, as a string. */
  raw(value: Uint8Array): void {
    const at = this.#stringHeader(value.length);
    this.#buffer.set(value, at);
  }

  /** A ByteString, or `false` for null: cmsgpack's nil would end a Lua array early. */
  optional(value: ByteString | null): void {
    if (value === null) this.boolean(false);
    else this.string(value);
  }
}
