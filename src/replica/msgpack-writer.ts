/**
 * Writes msgpack, byte for byte as msgpack.ts does, but without a tree: for what is written so often that building arrays only to
 * walk them once would cost more than the bytes themselves. Into one growing buffer that is used again.
 */
import { type ByteString, isAscii } from '../../crdts/bytes.js';
import { type Decimal, decimalToWire } from '../../crdts/decimal.js';

/** Up to this many bytes a loop is faster than a call out of JavaScript. */
const SHORT = 40;
/** A buffer that one huge frame made is not kept. */
const MAX_KEPT = 4_194_304;
const FIRST = 65_536;

export class MsgpackWriter {
  #buffer = Buffer.allocUnsafe(FIRST);
  #length = 0;

  /** Begins anew. */
  reset(): void {
    this.#length = 0;
    if (this.#buffer.length > MAX_KEPT) this.#buffer = Buffer.allocUnsafe(FIRST);
  }

  /** What was written since {@link reset}. A view: valid until the next reset. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** One byte that is a whole value: an integer from 0 to 127, or the head of an array of up to 15 items. */
  byte(value: number): void {
    this.#buffer[this.#reserve(1)] = value;
  }

  array(length: number): void {
    if (length < 16) this.byte(0x90 | length);
    else if (length < 0x10000) this.#number(0xdc, length, 2);
    else this.#number(0xdd, length, 4);
  }

  /** An integer from 0 to 2^32-1. */
  integer(value: number): void {
    if (value < 0x80) this.byte(value);
    else if (value < 0x100) this.#number(0xcc, value, 1);
    else if (value < 0x10000) this.#number(0xcd, value, 2);
    else this.#number(0xce, value, 4);
  }

  /** A whole number from 0 to 2^53-1. */
  number(value: number): void {
    if (value < 2 ** 32) {
      this.integer(value);
      return;
    }
    const at = this.#reserve(9);
    this.#buffer[at] = 0xcb;
    this.#buffer.writeDoubleBE(value, at + 1);
  }

  /** A byte string in the form of WireWriter.bytes: text where it is ASCII, else bytes. */
  byteString(value: ByteString): void {
    const { length } = value;
    if (length >= SHORT) {
      if (isAscii(value)) this.#head(length, 0xd9);
      else this.#head(length, 0xc4);
      const at = this.#reserve(length);
      this.#buffer.write(value, at, length, 'latin1');
      return;
    }
    const from = this.#length;
    this.#head(length, 0xd9);
    if (this.#fill(value) < 0x80) return;
    // Not ASCII after all: again, as bytes.
    this.#length = from;
    this.#head(length, 0xc4);
    this.#fill(value);
  }

  /** Bytes that are msgpack already. */
  raw(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#buffer.set(bytes, at);
  }

  /** Copies a short string; gives all its bytes ORed. */
  #fill(value: ByteString): number {
    const at = this.#reserve(value.length);
    const buffer = this.#buffer;
    let all = 0;
    for (let i = 0; i < value.length; i += 1) {
      const unit = value.charCodeAt(i);
      all |= unit;
      buffer[at + i] = unit;
    }
    return all;
  }

  /** The head of text (0xd9 …) or bytes (0xc4 …). */
  #head(length: number, kind: 0xd9 | 0xc4): void {
    if (kind === 0xd9 && length < 32) this.byte(0xa0 | length);
    else if (length < 0x100) this.#number(kind, length, 1);
    else if (length < 0x10000) this.#number(kind + 1, length, 2);
    else this.#number(kind + 2, length, 4);
  }

  #number(head: number, value: number, size: 1 | 2 | 4): void {
    const at = this.#reserve(1 + size);
    const buffer = this.#buffer;
    buffer[at] = head;
    for (let i = size, rest = value; i > 0; i -= 1, rest = Math.floor(rest / 256))
      buffer[at + i] = rest & 0xff;
  }

  /** What was written since {@link reset}, as a ByteString. */
  text(): ByteString {
    return this.#buffer.toString('latin1', 0, this.#length) as ByteString;
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
}

/** Writes a number of a counter. */
export function writeDecimal(out: MsgpackWriter, value: Decimal): void {
  const wire = decimalToWire(value);
  if (typeof wire === 'number') out.number(wire);
  else out.byteString(wire as ByteString);
}
