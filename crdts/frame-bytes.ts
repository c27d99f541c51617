/**
 * Reads frames from their msgpack bytes.
 *
 * The wire form is a tree, and any msgpack library makes a tree of the bytes. But most frames hold nothing but plain writes,
 * [key, 1, [[stamp, 0, value]]] (key-wire.ts): building six arrays for each only to look at them once and drop them took longer than
 * the merge itself. Such a frame is read here straight from its bytes, whatever their origin: all is checked on the way.
 *
 * Only the usual spelling is known here. Whatever else comes, be it another kind of delta, a rarer encoding or a malformed
 * frame, is left to the msgpack library and to {@link readFrame}, which also say what is wrong. So what is accepted here must be
 * accepted there, with the same meaning; that is all (test/frame-bytes.test.ts compares the two).
 */
import { asciiAt, type ByteString, fromUint8Array, isAscii } from './bytes.js';
import { FRAME_VERSION, type FrameContent, type FrameHead, readFrame, readFrameHead } from './frame-wire.js';
import { PlainWrite, type WriteOrigin } from './plain-write.js';

/** A frame of nothing but plain writes. */
export interface PlainFrame extends FrameHead {
  readonly writes: readonly PlainWrite[];
}

/** What stands in the key of a plain write: its sub-state's tag, and that the frame's own replica wrote it. */
const STRING_TAG = 1;
const OWN_REPLICA = 0;

/** Heads of msgpack values. */
const NULL = 0xc0;
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
const ARRAY = 0x90;
const TEXT = 0xa0;

/**
 * Reads and checks a frame; `maxValueBytes` bounds each key, value and member in it, `unpack` is a msgpack library's.
 * Throws DecodeError when it is no frame, and what `unpack` throws.
 */
export function readFrameBytes(
  bytes: Uint8Array,
  maxValueBytes: number,
  unpack: (bytes: Uint8Array) => unknown,
): FrameContent | PlainFrame {
  return readPlainFrame(bytes, maxValueBytes) ?? readFrame(unpack(bytes), maxValueBytes);
}

/** Reads a frame of plain writes; null when it isn't one in the usual spelling. Throws DecodeError when its head is malformed. */
export function readPlainFrame(bytes: Uint8Array, maxValueBytes: number): PlainFrame | null {
  if (bytes[0] !== (ARRAY | 7) || bytes[1] !== FRAME_VERSION) return null;
  const cursor = new HeadCursor(bytes, 2);
  const number = cursor.integer();
  const stamp = cursor.stamp();
  const replicas = cursor.list(() => cursor.text());
  const deps = cursor.list(() => cursor.integer());
  const full = cursor.integer();
  const count = cursor.arrayLength();
  if (cursor.failed) return null;
  const { head } = readFrameHead([FRAME_VERSION, number, stamp, replicas, deps, full], maxValueBytes);
  const origin = { replica: head.replica, stamp };
  const writes = readPlainWrites(bytes, cursor.at, count, origin, maxValueBytes);
  return writes === null ? null : { ...head, writes };
}

/** Reads so many plain writes up to the end of the bytes. One loop, and few objects: this is on the way of every key. */
function readPlainWrites(
  bytes: Uint8Array,
  from: number,
  count: number,
  origin: WriteOrigin,
  maxBytes: number,
): PlainWrite[] | null {
  const writes: PlainWrite[] = [];
  let at = from;
  for (let i = 0; i < count; i += 1) {
    if (bytes[at] !== (ARRAY | 3)) return null;
    const keyAt = at + 1;
    const keyLength = stringLengthAt(bytes, keyAt);
    if (keyLength < 0 || keyLength > maxBytes) return null;
    at = keyAt + stringHeadAt(bytes, keyAt, keyLength) + keyLength;
    const key = stringBefore(bytes, at, keyLength, bytes[keyAt]!);
    if (key === null) return null;
    if (bytes[at] !== STRING_TAG || bytes[at + 1] !== (ARRAY | 1) || bytes[at + 2] !== (ARRAY | 3))
      return null;
    const behind = integerAt(bytes, at + 3);
    if (behind < 0 || behind >= origin.stamp) return null;
    at += 3 + integerSize(behind);
    if (bytes[at] !== OWN_REPLICA) return null;
    at += 1;
    let value: ByteString | null = null;
    const head = bytes[at]!;
    if (head === NULL) at += 1;
    else {
      const length = stringLengthAt(bytes, at);
      if (length < 0 || length > maxBytes) return null;
      at += stringHeadAt(bytes, at, length) + length;
      value = stringBefore(bytes, at, length, head);
      if (value === null) return null;
    }
    writes.push(new PlainWrite(key, origin, behind, value));
  }
  return at === bytes.length ? writes : null;
}

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
function integerAt(bytes: Uint8Array, at: number): number {
  if (at >= bytes.length) return -1;
  const head = bytes[at]!;
  if (head < 0x80) return head;
  if (head === UINT_8) return numberAt(bytes, at + 1, 1, 0x80);
  if (head === UINT_16) return numberAt(bytes, at + 1, 2, 0x100);
  return head === UINT_32 ? numberAt(bytes, at + 1, 4, 0x1_0000) : -1;
}

/** How many bytes {@link integerAt} reads. */
function integerSize(value: number): number {
  return value < 0x80 ? 1 : value < 0x100 ? 2 : value < 0x1_0000 ? 3 : 5;
}

/** The length of a byte string; negative where there is none. */
function stringLengthAt(bytes: Uint8Array, at: number): number {
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
function stringHeadAt(bytes: Uint8Array, at: number, length: number): number {
  return bytes[at]! < NULL ? 1 : length < 0x100 ? 2 : length < 0x1_0000 ? 3 : 5;
}

/** The byte string that ends at a position, in its canonical form: text where all is ASCII, bytes otherwise. Null where it isn't. */
function stringBefore(bytes: Uint8Array, end: number, length: number, head: number): ByteString | null {
  if (end > bytes.length) return null;
  if (head < BYTES_8 || head > BYTES_32) return asciiAt(bytes, end - length, length);
  const value = fromUint8Array(bytes.subarray(end - length, end));
  return isAscii(value) ? null : value;
}

/** Reads the head of a frame, value by value. */
class HeadCursor {
  at: number;
  /** Says whether any value was not what was asked for. */
  failed = false;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  integer(): number {
    const value = integerAt(this.#bytes, this.at);
    if (value < 0) this.failed = true;
    this.at += integerSize(value);
    return value;
  }

  /** A stamp: beyond 32 bits, msgpack libraries write what JavaScript has, a double. */
  stamp(): number {
    if (this.#bytes[this.at] !== FLOAT_64) return this.integer();
    const from = this.#bytes.byteOffset + this.at + 1;
    this.at += 9;
    if (this.at <= this.#bytes.length) return new DataView(this.#bytes.buffer, from, 8).getFloat64(0);
    this.failed = true;
    return 0;
  }

  arrayLength(): number {
    const head = this.#bytes[this.at] ?? NULL;
    let length = -1;
    let size = 1;
    if (head >= ARRAY && head < TEXT) length = head - ARRAY;
    else if (head === ARRAY_16 || head === ARRAY_32) {
      size = head === ARRAY_16 ? 3 : 5;
      length = numberAt(this.#bytes, this.at + 1, size - 1, 0);
    }
    if (length < 0) this.failed = true;
    this.at += size;
    return length;
  }

  text(): string {
    const length = stringLengthAt(this.#bytes, this.at);
    const head = this.#bytes[this.at]!;
    this.at += stringHeadAt(this.#bytes, this.at, length) + length;
    const value = length < 0 ? null : stringBefore(this.#bytes, this.at, length, head);
    if (value === null || !isAscii(value)) this.failed = true;
    return value ?? '';
  }

  list<Item>(item: () => Item): Item[] {
    const items: Item[] = [];
    for (let left = this.arrayLength(); left > 0 && !this.failed; left -= 1) items.push(item());
    return items;
  }
}
