/**
 * Plain writes: deltas and states of keys where all there is to say is that one frame SET a string, or deleted it.
 *
 * Most keys are that and nothing else, and there may be millions of them. As key states (key-state.ts) each would be half a dozen objects, that
 * nobody looks at until the key is read. So they stay what they came as, bytes of a frame: [key, 1, [[behind, 0, value]]] in the usual
 * spelling (msgpack-bytes.ts). They are checked once, compared where they stand, and made key states when somebody wants one.
 */
import { allBytes, type ByteString, stringOfBytes } from './bytes.js';
import type { ReplicaId } from './dot.js';
import type { KeyState } from './key-state.js';
import {
  ARRAY,
  integerAt,
  integerSize,
  isText,
  NULL,
  stringHeadSize,
  stringLengthAt,
} from './msgpack-bytes.js';
import type { Stamp } from './stamp.js';

/** The frame that carried a write. */
export interface WriteOrigin {
  readonly replica: ReplicaId;
  /** The frame's stamp: the key's `touched`. */
  readonly stamp: Stamp;
}

/** The plain writes of a frame. */
export interface PlainWrites {
  readonly origin: WriteOrigin;
  /** The frame. */
  readonly bytes: Uint8Array;
  /** Where they stand: pairs of a beginning and an end, with one write after the other between them. */
  readonly runs: readonly number[];
}

/** What stands before a key, and before what is written: the head of an array of three. */
const HEAD = ARRAY | 3;
/** What stands behind a key: its sub-state's tag, the heads of two arrays, and then how far the write is behind its frame. */
const STRING_TAG = 1;
const BEHIND = 3;
/** Before the value: the frame's own replica wrote it. */
const OWN_REPLICA = 0;

/**
 * Checks at most `count` plain writes from a position on, and adds where they stand to `runs`; gives how many there are. All are,
 * but for those from the first key on that is something else. One loop without objects: this is on the way of every key.
 */
export function checkPlainWrites(
  bytes: Uint8Array,
  from: number,
  count: number,
  stamp: Stamp,
  maxBytes: number,
  runs: number[],
): number {
  let start = from;
  let checked = 0;
  for (; checked < count; checked += 1) {
    if (bytes[start] !== HEAD) break;
    const keyLength = stringLengthAt(bytes, start + 1);
    if (keyLength < 0 || keyLength > maxBytes) break;
    const keyAt = start + 1 + stringHeadSize(bytes, start + 1, keyLength);
    const keyEnd = keyAt + keyLength;
    if (bytes[keyEnd] !== STRING_TAG || bytes[keyEnd + 1] !== (ARRAY | 1) || bytes[keyEnd + 2] !== HEAD)
      break;
    if (isText(bytes[start + 1]!) !== allBytes(bytes, keyAt, keyLength) < 0x80) break;
    const behind = integerAt(bytes, keyEnd + BEHIND);
    if (behind < 0 || behind >= stamp) break;
    let end = keyEnd + BEHIND + integerSize(behind);
    if (bytes[end] !== OWN_REPLICA) break;
    end += 1;
    const head = bytes[end];
    if (head === NULL) end += 1;
    else {
      const length = stringLengthAt(bytes, end);
      if (length < 0 || length > maxBytes) break;
      const valueAt = end + stringHeadSize(bytes, end, length);
      end = valueAt + length;
      if (end > bytes.length || isText(head!) !== allBytes(bytes, valueAt, length) < 0x80) break;
    }
    start = end;
  }
  if (checked > 0) runs.push(from, start);
  return checked;
}

/** The writes of a frame as keys with their states, for those who want them all. */
export function* statesOfWrites({ origin, bytes, runs }: PlainWrites): Generator<[ByteString, KeyState]> {
  for (let i = 0; i < runs.length; i += 2) {
    for (let at = runs[i]!; at < runs[i + 1]!; ) {
      const length = stringLengthAt(bytes, at + 1);
      const keyAt = at + 1 + stringHeadSize(bytes, at + 1, length);
      yield [stringOfBytes(bytes, keyAt, length), stateOfWrite(bytes, keyAt + length, origin)];
      at = endOfWrite(bytes, keyAt + length);
    }
  }
}

/** Where a write ends, by the end of its key. */
export function endOfWrite(bytes: Uint8Array, keyEnd: number): number {
  const at = keyEnd + BEHIND + integerSize(behindOfWrite(bytes, keyEnd)) + 1;
  if (bytes[at] === NULL) return at + 1;
  const length = stringLengthAt(bytes, at);
  return at + stringHeadSize(bytes, at, length) + length;
}

/** How far a write's own stamp is below its frame's, read behind its key. */
export function behindOfWrite(bytes: Uint8Array, keyEnd: number): number {
  return integerAt(bytes, keyEnd + BEHIND);
}

/** The key state that a write stands for, read behind its key: a new one on each call. */
export function stateOfWrite(bytes: Uint8Array, keyEnd: number, { replica, stamp }: WriteOrigin): KeyState {
  const behind = behindOfWrite(bytes, keyEnd);
  const at = keyEnd + BEHIND + integerSize(behind) + 1;
  const register = { stamp: stamp - behind, replica, value: valueAt(bytes, at) };
  return { touched: stamp, string: { register, counter: null }, set: null, values: null, expiry: null };
}

function valueAt(bytes: Uint8Array, at: number): ByteString | null {
  if (bytes[at] === NULL) return null;
  const length = stringLengthAt(bytes, at);
  return stringOfBytes(bytes, at + stringHeadSize(bytes, at, length), length);
}
