/**
 * Reads requests from a byte stream: arrays of bulk strings, and inline commands as typed into telnet.
 *
 * The stream may be cut anywhere. What has arrived and isn't understood yet lies in one buffer that grows with what
 * arrives, never with what is announced, so a client pays for the memory that it makes us hold. Arguments leave the
 * buffer as soon as they are complete. Texts of errors, and what counts as one, are Valkey's (networking.c).
 */
import { Buffer } from 'node:buffer';
import type { ByteString } from '../../crdts/bytes.js';
import { ProtocolError } from './errors.js';
import { splitInline } from './inline.js';

/** Bounds of a request. Before AUTH, Valkey's own smaller ones hold besides: 10 arguments of 16 KiB. */
export interface ParserLimits {
  /** Longest argument in bytes. */
  readonly maxBulkBytes: number;
  /** Most arguments of a command. Default: 1,048,576. */
  readonly maxArguments?: number;
  /** Most bytes of one command, with {@link ARGUMENT_OVERHEAD} added for each argument. Default: 64 MiB, and at least one longest argument. */
  readonly maxRequestBytes?: number;
}

/** What an argument costs us besides its bytes, roughly. */
export const ARGUMENT_OVERHEAD = 32;

const INLINE_MAX = 64 * 1024;
const INT32_MAX = 2_147_483_647;
const UNAUTHENTICATED_ARGUMENTS = 10;
const UNAUTHENTICATED_BULK = 16_384;
const EMPTY = Buffer.alloc(0);
const CR = 13;
const LF = 10;
const STAR = 42;
const DOLLAR = 36;

/** Parses one connection's requests. Push what arrives, then take commands with {@link next} until it gives null. */
export class RequestParser {
  /** False until the client has authenticated: then the smaller bounds hold. */
  trusted: boolean;
  /** Bytes of the command that {@link next} gave last, overhead included. */
  commandBytes = 0;
  readonly #maxBulk: number;
  readonly #maxArguments: number;
  readonly #maxRequest: number;
  #buffer: Buffer = EMPTY;
  /** Whether the buffer is ours to write into, or a chunk of the socket's. */
  #owned = false;
  #start = 0;
  #end = 0;
  /** Where the search for a line end goes on, so that a slow line isn't searched again and again. */
  #searched = 0;
  #args: ByteString[] = [];
  #missing = 0;
  #bulkLength = -1;
  #requestBytes = 0;

  constructor(limits: ParserLimits, trusted = true) {
    this.trusted = trusted;
    this.#maxBulk = limits.maxBulkBytes;
    this.#maxArguments = limits.maxArguments ?? 1_048_576;
    this.#maxRequest = Math.max(
      limits.maxRequestBytes ?? 64 * 1024 * 1024,
      limits.maxBulkBytes + 2 * ARGUMENT_OVERHEAD,
    );
  }

  /** Bytes that have arrived and are not part of a complete argument yet. */
  get unread(): number {
    return this.#end - this.#start;
  }

  /** Takes the next piece of the stream; it must not be changed afterwards. */
  push(chunk: Buffer): void {
    const kept = this.#end - this.#start;
    if (kept === 0) {
      this.#buffer = chunk;
      this.#owned = false;
      this.#start = 0;
      this.#end = chunk.length;
      this.#searched = 0;
      return;
    }
    if (!this.#owned || this.#end + chunk.length > this.#buffer.length) this.#makeRoom(kept, chunk.length);
    chunk.copy(this.#buffer, this.#end);
    this.#end += chunk.length;
  }

  /** Gives the next command (at least one argument), or null when more bytes are needed. Throws ProtocolError; nothing can be read after that. */
  next(): ByteString[] | null {
    for (;;) {
      if (this.#missing === 0) {
        if (this.#start === this.#end) return this.#release();
        if (this.#buffer[this.#start] !== STAR) {
          const args = this.#inline();
          if (args === null) return null;
          if (args.length === 0) continue;
          return args;
        }
        const count = this.#number('too big mbulk count string', 'invalid multibulk length');
        if (count === null) return null;
        if (count > this.#maxArguments) throw new ProtocolError('invalid multibulk length');
        if (count > UNAUTHENTICATED_ARGUMENTS && !this.trusted) {
          throw new ProtocolError('unauthenticated multibulk length');
        }
        if (count <= 0) continue;
        this.#missing = count;
        this.#args = [];
        this.#requestBytes = 0;
      }
      if (!this.#bulks()) return null;
      const args = this.#args;
      this.#args = [];
      this.commandBytes = this.#requestBytes;
      return args;
    }
  }

  /** Reads arguments until the command is complete (true) or the buffer is used up (false). */
  #bulks(): boolean {
    while (this.#missing > 0) {
      if (this.#bulkLength < 0) {
        if (this.#start === this.#end) {
          this.#release();
          return false;
        }
        const first = this.#buffer[this.#start] as number;
        if (!this.#hasLine('too big bulk count string')) return false;
        if (first !== DOLLAR) {
          throw new ProtocolError(`expected '$', got '${String.fromCharCode(first)}'`);
        }
        const length = this.#number('too big bulk count string', 'invalid bulk length');
        if (length === null) return false;
        if (length < 0 || length > this.#maxBulk) throw new ProtocolError('invalid bulk length');
        if (length > UNAUTHENTICATED_BULK && !this.trusted) {
          throw new ProtocolError('unauthenticated bulk length');
        }
        this.#requestBytes += length + ARGUMENT_OVERHEAD;
        if (this.#requestBytes > this.#maxRequest) {
          throw new ProtocolError(`request is longer than ${this.#maxRequest} bytes`);
        }
        this.#bulkLength = length;
      }
      const end = this.#start + this.#bulkLength;
      if (end + 2 > this.#end) return false;
      this.#args.push(this.#buffer.toString('latin1', this.#start, end) as ByteString);
      this.#start = end + 2;
      this.#searched = this.#start;
      this.#bulkLength = -1;
      this.#missing -= 1;
    }
    return true;
  }

  /** Reads `<type><integer>\r\n`; null when the line isn't complete. As in Valkey, what follows `\r` isn't looked at. */
  #number(tooLong: string, invalid: string): number | null {
    if (!this.#hasLine(tooLong)) return null;
    const buffer = this.#buffer;
    const end = this.#searched;
    let at = this.#start + 1;
    const negative = buffer[at] === 45;
    if (negative) at += 1;
    const digits = end - at;
    let value = 0;
    if (digits < 1 || digits > 10) throw new ProtocolError(invalid);
    if (buffer[at] === 48 && (digits > 1 || negative)) throw new ProtocolError(invalid);
    for (; at < end; at += 1) {
      const digit = (buffer[at] as number) - 48;
      if (digit < 0 || digit > 9) throw new ProtocolError(invalid);
      value = value * 10 + digit;
    }
    if (value > INT32_MAX) throw new ProtocolError(invalid);
    this.#start = end + 2;
    this.#searched = this.#start;
    return negative ? -value : value;
  }

  /** Finds the `\r` of the line at the start, and leaves its place in `#searched`; false when `\r` and the byte after it aren't there. */
  #hasLine(tooLong: string): boolean {
    const buffer = this.#buffer;
    let at = Math.max(this.#searched, this.#start);
    while (at < this.#end && buffer[at] !== CR) at += 1;
    this.#searched = at;
    if (at + 1 < this.#end) return true;
    if (at - this.#start > INLINE_MAX) throw new ProtocolError(tooLong);
    return false;
  }

  #inline(): ByteString[] | null {
    const from = Math.max(this.#searched, this.#start);
    const found = this.#buffer.subarray(0, this.#end).indexOf(LF, from);
    const end = found === -1 ? this.#end : found;
    if (end - this.#start > INLINE_MAX) throw new ProtocolError('too big inline request');
    this.#searched = end;
    if (found === -1) return null;
    const stop = end > this.#start && this.#buffer[end - 1] === CR ? end - 1 : end;
    const args = splitInline(this.#buffer.toString('latin1', this.#start, stop));
    if (args === null) throw new ProtocolError('unbalanced quotes in request');
    this.commandBytes = end - this.#start + args.length * ARGUMENT_OVERHEAD;
    this.#start = end + 1;
    this.#searched = this.#start;
    return args;
  }

  /** Lets go of the used-up buffer. */
  #release(): null {
    this.#buffer = EMPTY;
    this.#owned = false;
    this.#start = 0;
    this.#end = 0;
    this.#searched = 0;
    return null;
  }

  /** Moves what is kept to the front of a buffer of ours, twice as large as needed, so that copying is linear in all. */
  #makeRoom(kept: number, more: number): void {
    const fits = this.#owned && kept + more <= this.#buffer.length && this.#start >= kept;
    const target = fits ? this.#buffer : Buffer.allocUnsafe(Math.max(1024, (kept + more) * 2));
    this.#buffer.copy(target, 0, this.#start, this.#end);
    this.#buffer = target;
    this.#owned = true;
    this.#searched = Math.max(0, this.#searched - this.#start);
    this.#start = 0;
    this.#end = kept;
  }
}
