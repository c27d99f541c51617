/**
 * Reads frames from their msgpack bytes.
 *
 * The wire form is a tree, and any msgpack library makes a tree of the bytes. But most keys of most frames are plain writes,
 * [key, 1, [[stamp, 0, value]]], or members of sets, [key, 2, [context, [dots, [member], …], whole]] (key-wire.ts): building the arrays of
 * each only to look at them once and drop them took longer than the merge itself. Such keys are read here straight from the bytes,
 * whatever their origin: all is checked on the way.
 *
 * Only the usual spelling is known here. Whatever else comes, be it another kind of delta, a rarer encoding or a malformed
 * frame, is left to the msgpack library and to {@link readKey} or {@link readFrame}, which also say what is wrong. So what is accepted
 * here must be accepted there, with the same meaning; that is all (test/frame-bytes.test.ts compares the two).
 */
import type { ByteString } from './bytes.js';
import {
  FRAME_VERSION,
  type FrameContent,
  type FrameHead,
  readFrame,
  readFrameHead,
  readKey,
} from './frame-wire.js';
import type { KeyState } from './key-state.js';
import type { Delta } from './key-table.js';
import {
  ARRAY,
  arrayHeadSize,
  arrayLengthAt,
  doubleAt,
  endOf,
  integerAt,
  integerSize,
  listAt,
  NULL,
  stringAt,
  stringBefore,
  stringHeadSize,
  stringLengthAt,
} from './msgpack-bytes.js';
import { PlainWrite, type WriteOrigin } from './plain-write.js';
import { type FrameOfKeys, readSetBytes } from './set-bytes.js';

/** A frame that was read from bytes: plain writes as what they are, all else as key states. */
export interface ByteFrame extends FrameHead {
  /** One delta per key. */
  readonly deltas: readonly Delta[];
}

/** What stands in the key of a plain write: its sub-state's tag, and that the frame's own replica wrote it. */
const STRING_TAG = 1;
const OWN_REPLICA = 0;
/** The tag of a set. */
const SET_TAG = 2;

/**
 * Reads and checks a frame; `maxValueBytes` bounds each key, value and member in it, `unpack` is a msgpack library's.
 * Throws DecodeError when it is no frame, and what `unpack` throws.
 */
export function readFrameBytes(
  bytes: Uint8Array,
  maxValueBytes: number,
  unpack: (bytes: Uint8Array) => unknown,
): FrameContent | ByteFrame {
  return readByteFrame(bytes, maxValueBytes, unpack) ?? readFrame(unpack(bytes), maxValueBytes);
}

/**
 * Reads a frame key by key; null when its spelling isn't the usual one, or most of its keys are for `unpack`: then all are.
 * Throws DecodeError when it is malformed, and what `unpack` throws.
 */
export function readByteFrame(
  bytes: Uint8Array,
  maxValueBytes: number,
  unpack: (bytes: Uint8Array) => unknown,
): ByteFrame | null {
  if (bytes[0] !== (ARRAY | 7) || bytes[1] !== FRAME_VERSION) return null;
  const number = integerAt(bytes, 2);
  const stampAt = endOf(bytes, 2);
  const replicasAt = endOf(bytes, stampAt);
  const depsAt = endOf(bytes, replicasAt);
  const fullAt = endOf(bytes, depsAt);
  const keysAt = endOf(bytes, fullAt);
  if (keysAt < 0) return null;
  const stamp = doubleAt(bytes, stampAt);
  const replicas = listAt(bytes, replicasAt, stringAt);
  const deps = listAt(bytes, depsAt, integerAt);
  const full = integerAt(bytes, fullAt);
  const count = arrayLengthAt(bytes, keysAt);
  if (number < 0 || stamp < 0 || replicas === null || deps === null || full < 0 || count < 0) return null;
  const parts = [FRAME_VERSION, number, stamp, replicas, deps, full];
  const { head, reader } = readFrameHead(parts, maxValueBytes);
  const frame = { reader, replicas, stamp, maxBytes: maxValueBytes };
  const origin = { replica: head.replica, stamp };
  const deltas: Delta[] = [];
  let at = keysAt + arrayHeadSize(count);
  let left = 0;
  while (deltas.length < count) {
    at = readPlainWrites(bytes, at, count, origin, maxValueBytes, deltas);
    if (deltas.length === count) break;
    const end = endOf(bytes, at);
    if (end < 0) return null;
    const set = readSetKey(bytes, at, end, frame);
    if (set === null) left += 1;
    if (left * 2 > deltas.length + 1) return null;
    deltas.push(set ?? readKey(unpack(bytes.subarray(at, end)), stamp, reader));
    at = end;
  }
  return at === bytes.length ? { ...head, deltas } : null;
}

/** Reads plain writes up to the first key that is none, and gives its position. One loop, and few objects: this is on the way of every key. */
function readPlainWrites(
  bytes: Uint8Array,
  from: number,
  count: number,
  origin: WriteOrigin,
  maxBytes: number,
  into: Delta[],
): number {
  let start = from;
  const { stamp } = origin;
  for (let i = into.length; i < count; i += 1) {
    let at = start;
    if (bytes[at] !== (ARRAY | 3)) return start;
    const keyAt = at + 1;
    const keyLength = stringLengthAt(bytes, keyAt);
    if (keyLength < 0 || keyLength > maxBytes) return start;
    at = keyAt + stringHeadSize(bytes, keyAt, keyLength) + keyLength;
    if (bytes[at] !== STRING_TAG || bytes[at + 1] !== (ARRAY | 1) || bytes[at + 2] !== (ARRAY | 3))
      return start;
    const key = stringBefore(bytes, at, keyLength, bytes[keyAt]!);
    if (key === null) return start;
    const behind = integerAt(bytes, at + 3);
    if (behind < 0 || behind >= stamp) return start;
    at += 3 + integerSize(behind);
    if (bytes[at] !== OWN_REPLICA) return start;
    at += 1;
    let value: ByteString | null = null;
    const head = bytes[at]!;
    if (head === NULL) at += 1;
    else {
      const length = stringLengthAt(bytes, at);
      if (length < 0 || length > maxBytes) return start;
      at += stringHeadSize(bytes, at, length) + length;
      value = stringBefore(bytes, at, length, head);
      if (value === null) return start;
    }
    into.push(new PlainWrite(key, origin, behind, value));
    start = at;
  }
  return start;
}

/** Reads a key that is a set and nothing else; null when it isn't one in the usual spelling. */
function readSetKey(
  bytes: Uint8Array,
  at: number,
  end: number,
  frame: FrameOfKeys,
): readonly [ByteString, KeyState] | null {
  if (bytes[at] !== (ARRAY | 3)) return null;
  const key = stringAt(bytes, at + 1);
  if (key === null || key.length > frame.maxBytes) return null;
  const tagAt = at + 1 + stringHeadSize(bytes, at + 1, key.length) + key.length;
  if (bytes[tagAt] !== SET_TAG) return null;
  const set = readSetBytes(bytes, tagAt + 1, end, frame);
  return set && [key, { touched: frame.stamp, string: null, set, values: null, expiry: null }];
}
