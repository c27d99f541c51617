/**
 * Plain deltas: deltas and states of keys where all there is to say is one plain write or one plain count (plain-write.ts, plain-count.ts).
 *
 * Most keys are that and nothing else, and there may be millions of them. As key states (key-state.ts) each would be half a dozen objects, that
 * nobody looks at until the key is read. So they stay what they came as: records in the bytes of a frame, [key, 1, body] in the usual spelling
 * (msgpack-bytes.ts). They are checked once, compared where they stand, and made key states when somebody wants one.
 */
import { allBytes, type ByteString, stringOfBytes } from './bytes.js';
import type { ReplicaId } from './dot.js';
import type { KeyState } from './key-state.js';
import { ARRAY, isText, stringHeadSize, stringLengthAt } from './msgpack-bytes.js';
import { checkCount, endOfCount, replacesCount, stateOfCount } from './plain-count.js';
import { checkWrite, endOfWrite, replacesWrite, stateOfWrite } from './plain-write.js';
import type { Stamp } from './stamp.js';

/** The frame that carried a delta. */
export interface Origin {
  readonly replica: ReplicaId;
  /** The frame's stamp: the key's `touched`. */
  readonly stamp: Stamp;
}

/** The plain deltas of a frame. */
export interface PlainDeltas {
  readonly origin: Origin;
  /** The frame. */
  readonly bytes: Uint8Array;
  /** Where they stand: pairs of a beginning and an end, with one record after the other between them. */
  readonly runs: readonly number[];
}

/** What stands before a key: the head of an array of three. Behind it: the tag of strings, and the head of an array that tells what it is. */
const HEAD = ARRAY | 3;
const STRING_TAG = 1;
const WRITE = ARRAY | 1;

/**
 * Checks at most `count` plain deltas from a position on, and adds where they stand to `runs`; gives how many there are. All are,
 * but for those from the first key on that is something else. One loop without objects: this is on the way of every key.
 */
export function checkPlainDeltas(
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
    const length = stringLengthAt(bytes, start + 1);
    if (length < 0 || length > maxBytes) break;
    const keyAt = start + 1 + stringHeadSize(bytes, start + 1, length);
    const keyEnd = keyAt + length;
    if (bytes[keyEnd] !== STRING_TAG) break;
    if (isText(bytes[start + 1]!) !== allBytes(bytes, keyAt, length) < 0x80) break;
    const end =
      bytes[keyEnd + 1] === WRITE
        ? checkWrite(bytes, keyEnd, stamp, maxBytes)
        : checkCount(bytes, keyEnd, stamp);
    if (end < 0) break;
    start = end;
  }
  if (checked > 0) runs.push(from, start);
  return checked;
}

/** The plain deltas of a frame as keys with their states, for those who want them all. */
export function* statesOfPlain({ origin, bytes, runs }: PlainDeltas): Generator<[ByteString, KeyState]> {
  for (let i = 0; i < runs.length; i += 2) {
    for (let at = runs[i]!; at < runs[i + 1]!; ) {
      const length = stringLengthAt(bytes, at + 1);
      const keyAt = at + 1 + stringHeadSize(bytes, at + 1, length);
      yield [stringOfBytes(bytes, keyAt, length), stateOfPlain(bytes, keyAt + length, origin)];
      at = endOfPlain(bytes, keyAt + length);
    }
  }
}

/** Where a record ends, by the end of its key. */
export function endOfPlain(bytes: Uint8Array, keyEnd: number): number {
  return bytes[keyEnd + 1] === WRITE ? endOfWrite(bytes, keyEnd) : endOfCount(bytes, keyEnd);
}

/** The key state that a record stands for, by the end of its key: a new one on each call. */
export function stateOfPlain(bytes: Uint8Array, keyEnd: number, origin: Origin): KeyState {
  return bytes[keyEnd + 1] === WRITE
    ? stateOfWrite(bytes, keyEnd, origin)
    : stateOfCount(bytes, keyEnd, origin);
}

/** Says whether joining a record into another one of the same key gives just this one. False = perhaps: join their key states. */
export function replacesPlain(
  bytes: Uint8Array,
  keyEnd: number,
  origin: Origin,
  others: Uint8Array,
  otherKeyEnd: number,
  other: Origin,
): boolean {
  const kind = bytes[keyEnd + 1];
  if (kind !== others[otherKeyEnd + 1] || origin.stamp < other.stamp) return false;
  if (kind === WRITE) return replacesWrite(bytes, keyEnd, origin.stamp, others, otherKeyEnd, other.stamp);
  if (origin.replica !== other.replica) return false;
  return replacesCount(bytes, keyEnd, origin.stamp, others, otherKeyEnd, other.stamp);
}
