/**
 * Plain writes: what a key's record (plain-delta.ts) says behind the key where a frame SET its string, or deleted it: 1, [[behind, 0, value]].
 */
import { allBytes, type ByteString, stringOfBytes } from './bytes.js';
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
import type { Origin } from './plain-delta.js';
import type { Stamp } from './stamp.js';

/** Behind the tag stand the heads of two arrays, and then how far the write's stamp is below its frame's. */
const BEHIND = 3;
/** Before the value: the frame's own replica wrote it. */
const OWN_REPLICA = 0;

/** Checks a write, and gives where it ends; negative when it is none in the usual spelling. */
export function checkWrite(bytes: Uint8Array, keyEnd: number, stamp: Stamp, maxBytes: number): number {
  if (bytes[keyEnd + 2] !== (ARRAY | 3)) return -1;
  const behind = integerAt(bytes, keyEnd + BEHIND);
  if (behind < 0 || behind >= stamp) return -1;
  const at = keyEnd + BEHIND + integerSize(behind);
  if (bytes[at] !== OWN_REPLICA) return -1;
  const head = bytes[at + 1];
  if (head === NULL) return at + 2;
  const length = stringLengthAt(bytes, at + 1);
  if (length < 0 || length > maxBytes) return -1;
  const valueAt = at + 1 + stringHeadSize(bytes, at + 1, length);
  const end = valueAt + length;
  return end <= bytes.length && isText(head!) === allBytes(bytes, valueAt, length) < 0x80 ? end : -1;
}

/** Where a write that was checked ends. */
export function endOfWrite(bytes: Uint8Array, keyEnd: number): number {
  const at = valueAt(bytes, keyEnd);
  if (bytes[at] === NULL) return at + 1;
  const length = stringLengthAt(bytes, at);
  return at + stringHeadSize(bytes, at, length) + length;
}

/** The key state that a write stands for: a new one on each call. */
export function stateOfWrite(bytes: Uint8Array, keyEnd: number, { replica, stamp }: Origin): KeyState {
  const at = valueAt(bytes, keyEnd);
  const length = stringLengthAt(bytes, at);
  let value: ByteString | null = null;
  if (bytes[at] !== NULL) value = stringOfBytes(bytes, at + stringHeadSize(bytes, at, length), length);
  const register = { stamp: stamp - behindAt(bytes, keyEnd), replica, value };
  return { touched: stamp, string: { register, counter: null }, set: null, values: null, expiry: null };
}

/** Says whether joining a write into another one gives just this write. False = perhaps: join their key states. */
export function replacesWrite(
  bytes: Uint8Array,
  keyEnd: number,
  stamp: Stamp,
  others: Uint8Array,
  otherKeyEnd: number,
  otherStamp: Stamp,
): boolean {
  return stamp - behindAt(bytes, keyEnd) > otherStamp - behindAt(others, otherKeyEnd);
}

function behindAt(bytes: Uint8Array, keyEnd: number): number {
  return integerAt(bytes, keyEnd + BEHIND);
}

function valueAt(bytes: Uint8Array, keyEnd: number): number {
  return keyEnd + BEHIND + integerSize(behindAt(bytes, keyEnd)) + 1;
}
