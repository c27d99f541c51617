/**
 * Wire form of a document's snapshot: the whole state of every key, and how far each replica's deltas are in it.
 *
 * Positional: [version, stamp, replicas, marks, keys]
 * - stamp: the greatest one that the document knew; all stamps inside are distances below it
 * - marks: [replica, number, stamp, …], in the order of the replica ids
 * - keys: [[key, touched, tag, body, …], …] (key-wire.ts), in the order of the keys
 *
 * Canonical: equal documents, equal trees.
 */
import type { ByteString } from './bytes.js';
import type { ReplicaId } from './dot.js';
import { DecodeError } from './errors.js';
import type { KeyState } from './key-state.js';
import { readKeyState, writeKeyState } from './key-wire.js';
import { isStamp, type Stamp } from './stamp.js';
import { asArray, compareBytes, WireReader, WireWriter } from './wire.js';

const SNAPSHOT_VERSION = 1;

/** How far one replica's deltas have been merged. */
export interface DeltaMark {
  /** Number of the last one. */
  readonly number: number;
  /** Its stamp. */
  readonly stamp: Stamp;
}

/** What a snapshot says. */
export interface SnapshotContent {
  readonly stamp: Stamp;
  readonly marks: ReadonlyMap<ReplicaId, DeltaMark>;
  readonly keys: Iterable<readonly [ByteString, KeyState]>;
}

/** Writes a snapshot as a tree. */
export function writeSnapshot({ stamp, marks, keys }: SnapshotContent): unknown[] {
  const writer = new WireWriter(stamp);
  const flat: number[] = [];
  for (const replica of [...marks.keys()].sort()) {
    const mark = marks.get(replica)!;
    flat.push(writer.replica(replica), mark.number, writer.stamp(mark.stamp));
  }
  const list = [...keys].sort((a, b) => compareBytes(a[0], b[0]));
  const wires = list.map(([key, state]) => {
    const out: unknown[] = [writer.bytes(key), writer.stamp(state.touched)];
    writeKeyState(state, writer, out);
    return out;
  });
  return [SNAPSHOT_VERSION, stamp, writer.replicas, flat, wires];
}

/** Reads and checks a snapshot. Throws DecodeError when the tree is not one. */
export function readSnapshot(tree: unknown, maxValueBytes: number): SnapshotContent {
  const parts = asArray(tree, 'snapshot');
  if (parts.length !== 5 || parts[0] !== SNAPSHOT_VERSION) {
    throw new DecodeError(`this is no snapshot of version ${SNAPSHOT_VERSION}`);
  }
  const [, stamp, replicas, flat, list] = parts;
  if (!isStamp(stamp)) throw new DecodeError("a snapshot's stamp is out of range");
  const reader = new WireReader(stamp, replicas, maxValueBytes);
  return { stamp, marks: readMarks(flat, reader), keys: readKeys(list, reader) };
}

function readMarks(wire: unknown, reader: WireReader): Map<ReplicaId, DeltaMark> {
  const flat = asArray(wire, 'marks');
  if (flat.length % 3 !== 0) throw new DecodeError('marks are not in groups of three');
  const marks = new Map<ReplicaId, DeltaMark>();
  let last = '';
  for (let i = 0; i < flat.length; i += 3) {
    const replica = reader.replica(flat[i]);
    const number = flat[i + 1];
    if (replica <= last) throw new DecodeError('marks are not in the order of their replicas');
    if (!Number.isSafeInteger(number) || (number as number) < 1)
      throw new DecodeError('the number of a mark is not a positive integer');
    marks.set(replica, { number: number as number, stamp: reader.stamp(flat[i + 2]) });
    last = replica;
  }
  return marks;
}

function readKeys(wire: unknown, reader: WireReader): [ByteString, KeyState][] {
  let last: string | null = null;
  return asArray(wire, 'keys of a snapshot').map((item) => {
    const parts = asArray(item, 'key of a snapshot');
    const key = reader.bytes(parts[0]);
    if (last !== null && key <= last) throw new DecodeError('the keys of a snapshot are not in order');
    last = key;
    const state = readKeyState(parts, 2, reader.stamp(parts[1]), reader);
    if (state.set !== null && !state.set.whole) throw new DecodeError('a snapshot holds only part of a set');
    return [key, state];
  });
}
