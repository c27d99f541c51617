/**
 * Plain counts: what a key's record (plain-delta.ts) says behind the key where one replica counted, and nothing else happened: 1, [[], [[0, since, p, n], []]].
 * A count holds all that its replica ever counted, so the next one from there takes its place.
 */
import type { KeyState } from './key-state.js';
import { ARRAY, wholeAt, wholeSize } from './msgpack-bytes.js';
import type { Origin } from './plain-delta.js';
import { registerType } from './register.js';
import type { Stamp } from './stamp.js';

/** Behind the tag: an array of two, of which the first, the register, is empty; an array of two, and in it one of four. */
const HEADS = [ARRAY | 2, ARRAY, ARRAY | 2, ARRAY | 4] as const;
/** The frame's own replica counted. */
const OWN_REPLICA = 0;
const SINCE = 2 + HEADS.length;
/** No resets. */
const TAIL = ARRAY;

/** Checks a count, and gives where it ends; negative when it is none in the usual spelling. */
export function checkCount(bytes: Uint8Array, keyEnd: number, stamp: Stamp): number {
  for (let i = 0; i < HEADS.length; i += 1) if (bytes[keyEnd + 1 + i] !== HEADS[i]) return -1;
  if (bytes[keyEnd + SINCE - 1] !== OWN_REPLICA) return -1;
  let at = keyEnd + SINCE;
  const behind = wholeAt(bytes, at);
  if (behind < 0 || behind >= stamp) return -1;
  at += wholeSize(bytes, at);
  if (wholeAt(bytes, at) < 0) return -1;
  at += wholeSize(bytes, at);
  if (wholeAt(bytes, at) < 0) return -1;
  at += wholeSize(bytes, at);
  return bytes[at] === TAIL ? at + 1 : -1;
}

/** Where a count that was checked ends. */
export function endOfCount(bytes: Uint8Array, keyEnd: number): number {
  const pAt = afterNumber(bytes, keyEnd + SINCE);
  return afterNumber(bytes, afterNumber(bytes, pAt)) + 1;
}

/** The key state that a count stands for: a new one on each call. */
export function stateOfCount(bytes: Uint8Array, keyEnd: number, { replica, stamp }: Origin): KeyState {
  const pAt = afterNumber(bytes, keyEnd + SINCE);
  const count = {
    since: stamp - wholeAt(bytes, keyEnd + SINCE),
    p: wholeAt(bytes, pAt),
    n: wholeAt(bytes, afterNumber(bytes, pAt)),
  };
  const counter = { counts: new Map([[replica, count]]), resets: new Map() };
  const string = { register: registerType.empty(), counter };
  return { touched: stamp, string, set: null, values: null, expiry: null };
}

/** Says whether joining a count into another one of the same replica gives just this count. False = perhaps: join their key states. */
export function replacesCount(
  bytes: Uint8Array,
  keyEnd: number,
  stamp: Stamp,
  others: Uint8Array,
  otherKeyEnd: number,
  otherStamp: Stamp,
): boolean {
  let at = keyEnd + SINCE;
  let otherAt = otherKeyEnd + SINCE;
  const later = stamp - wholeAt(bytes, at) - (otherStamp - wholeAt(others, otherAt));
  if (later !== 0) return later > 0;
  at = afterNumber(bytes, at);
  otherAt = afterNumber(others, otherAt);
  const more = wholeAt(bytes, at) - wholeAt(others, otherAt);
  if (more !== 0) return more > 0;
  return wholeAt(bytes, afterNumber(bytes, at)) > wholeAt(others, afterNumber(others, otherAt));
}

function afterNumber(bytes: Uint8Array, at: number): number {
  return at + wholeSize(bytes, at);
}
