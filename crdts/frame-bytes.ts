/**
 * Reads frames from their msgpack bytes.
 *
 * The wire form is a tree, and any msgpack library makes a tree of the bytes. But most keys of most frames are plain
 * deltas (plain-delta.ts), or members of sets, [key, 2, [context, [dots, [member], …], whole]] (key-wire.ts): building the arrays of
 * each only to look at them once and drop them took longer than the merge itself. Such keys are read here straight from the bytes,
 * whatever their origin: all is checked on the way.
 *
 * Only the usual spelling is known here. Whatever else comes, be it another kind of delta, a rarer encoding or a malformed
 * frame, is left to the msgpack library and to {@link readKey} or {@link readFrame}, which also say what is wrong. So what is accepted
 * here must be accepted there, with the same meaning; that is all (test/frame-bytes.test.ts compares the two).
 */
import type { ByteString } from './bytes.js';
import { FRAME_VERSION, type FrameContent, readFrame, readFrameHead, readKey } from './frame-wire.js';
import type { KeyState } from './key-state.js';
import type { Delta } from './key-table.js';
import {
  ARRAY,
  arrayHeadSize,
  arrayLengthAt,
  endOf,
  integerAt,
  listAt,
  stringAt,
  stringHeadSize,
  wholeAt,
} from './msgpack-bytes.js';
import { checkPlainDeltas, type PlainDeltas } from './plain-delta.js';
import { type FrameOfKeys, readSetBytes } from './set-bytes.js';

/** A frame that was read from bytes: plain deltas as what they are, in the bytes of the frame; all other keys as key states. */
export interface ByteFrame extends FrameContent {
  readonly plain: PlainDeltas;
}

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
  const stamp = wholeAt(bytes, stampAt);
  const replicas = listAt(bytes, replicasAt, stringAt);
  const deps = listAt(bytes, depsAt, wholeAt);
  const full = integerAt(bytes, fullAt);
  const count = arrayLengthAt(bytes, keysAt);
  if (number < 0 || stamp < 0 || replicas === null || deps === null || full < 0 || count < 0) return null;
  const parts = [FRAME_VERSION, number, stamp, replicas, deps, full];
  const { head, reader } = readFrameHead(parts, maxValueBytes);
  const frame = { reader, replicas, stamp, maxBytes: maxValueBytes };
  const plain = { origin: { replica: head.replica, stamp }, bytes, runs: [] as number[] };
  const keys: Delta[] = [];
  let at = keysAt + arrayHeadSize(count);
  let left = 0;
  for (let read = 0; read < count; read += 1) {
    const checked = checkPlainDeltas(bytes, at, count - read, stamp, maxValueBytes, plain.runs);
    if (checked > 0) at = plain.runs.at(-1)!;
    read += checked;
    if (read === count) break;
    const end = endOf(bytes, at);
    if (end < 0) return null;
    const set = readSetKey(bytes, at, end, frame);
    if (set === null) left += 1;
    if (left * 2 > read + 1) return null;
    keys.push(set ?? readKey(unpack(bytes.subarray(at, end)), stamp, reader));
    at = end;
  }
  return at === bytes.length ? { ...head, plain, keys } : null;
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
