/**
 * Reads sets' deltas from their msgpack bytes.
 *
 * Each operation has a dot of its own, so a batch of adds is one group [[replica, stamp], [member]] per member: reading the tree took
 * several times longer than joining it. What is read here is what adds and removes make, each member with one dot or with none;
 * all else is left to {@link setType}'s `fromWire`, which also says what is wrong.
 */
import type { ByteString } from './bytes.js';
import type { Dot, ReplicaId } from './dot.js';
import {
  ARRAY,
  arrayHeadSize,
  arrayLengthAt,
  endOf,
  integerAt,
  integerSize,
  listAt,
  stringBefore,
  stringHeadSize,
  stringLengthAt,
  wholeAt,
} from './msgpack-bytes.js';
import type { Dots, SetState } from './or-set.js';
import type { Stamp } from './stamp.js';
import type { WireReader } from './wire.js';

/** What all keys of a frame have in common. */
export interface FrameOfKeys {
  /** Reads and checks what isn't on the way of every member. */
  readonly reader: WireReader;
  /** The table of replica ids. */
  readonly replicas: readonly ReplicaId[];
  /** The frame's stamp. */
  readonly stamp: Stamp;
  /** The longest byte string accepted. */
  readonly maxBytes: number;
}

/**
 * Reads the set that stands from one position to another; null when it isn't one in the usual spelling. Throws DecodeError when
 * its context is malformed.
 */
export function readSetBytes(
  bytes: Uint8Array,
  from: number,
  end: number,
  frame: FrameOfKeys,
): SetState | null {
  if (bytes[from] !== (ARRAY | 3)) return null;
  const flat = listAt(bytes, from + 1, wholeAt);
  if (flat === null || flat.length === 0) return null;
  const context = frame.reader.vector(flat);
  const groupsAt = endOf(bytes, from + 1);
  const length = arrayLengthAt(bytes, groupsAt);
  if (length < 0 || length % 2 !== 0) return null;
  const whole = bytes[end - 1];
  if (whole !== 0 && whole !== 1) return null;
  const at = groupsAt + arrayHeadSize(length);
  const entries = readGroups(
    bytes,
    at,
    end - 1,
    length / 2,
    context,
    frame.replicas,
    frame.stamp,
    frame.maxBytes,
  );
  if (entries === null || (whole === 1 && bytes[at] === ARRAY && length > 0)) return null;
  return { context, entries, whole: whole === 1, size: whole === 1 ? entries.size : 0 };
}

/**
 * Reads so many groups of members up to a position. One loop: it is on the way of every member. It isn't given the frame, which holds a
 * reader: V8 drops the code that it optimized for objects that hold an instance of a class when the last such instance is gone.
 */
function readGroups(
  bytes: Uint8Array,
  from: number,
  end: number,
  groups: number,
  context: ReadonlyMap<ReplicaId, Stamp>,
  replicas: readonly ReplicaId[],
  base: Stamp,
  maxBytes: number,
): Map<ByteString, Dots> | null {
  const entries = new Map<ByteString, Dots>();
  let at = from;
  let count = 0;
  let last: Dot | null = null;
  for (let group = 0; group < groups; group += 1) {
    let dots: Dots = [];
    if (bytes[at] === (ARRAY | 2)) {
      const index = integerAt(bytes, at + 1);
      if (index < 0 || index >= replicas.length) return null;
      at += 1 + integerSize(index);
      const behind = integerAt(bytes, at);
      if (behind < 0 || behind >= base) return null;
      at += integerSize(behind);
      const dot: Dot = { replica: replicas[index]!, stamp: base - behind };
      if (last !== null && !isBefore(last, dot)) return null;
      if ((context.get(dot.replica) ?? 0) < dot.stamp) return null;
      last = dot;
      dots = [dot];
    } else if (bytes[at] === ARRAY && group === 0) at += 1;
    else return null;
    let members = arrayLengthAt(bytes, at);
    if (members < 1) return null;
    at += arrayHeadSize(members);
    let before = '';
    for (let first = true; members > 0; members -= 1, first = false) {
      const head = bytes[at]!;
      const length = stringLengthAt(bytes, at);
      if (length < 0 || length > maxBytes) return null;
      at += stringHeadSize(bytes, at, length) + length;
      const member = stringBefore(bytes, at, length, head);
      if (member === null || (!first && member <= before)) return null;
      before = member;
      entries.set(member, dots);
      count += 1;
    }
  }
  return at === end && entries.size === count ? entries : null;
}

function isBefore(a: Dot, b: Dot): boolean {
  return a.replica === b.replica ? a.stamp < b.stamp : a.replica < b.replica;
}
