/**
 * Frames: the unit that is logged and gossiped. A frame holds one batch of one replica's deltas, numbered without gaps.
 *
 * Wire form, positional: [version, number, stamp, replicas, deps, full, keys]
 * - replicas: the table of replica ids that the rest refers to by position; the first is the frame's own
 * - deps: [replica, stamp, …]: what must have been applied before; only what changed since the previous frame, or, where
 *   `full` is 1, everything
 * - keys: [[key, tag, body, …], …] (crdts/key-wire.ts)
 *
 * All stamps inside are distances below the frame's own stamp.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import { readKeyState, writeKeyState } from '../../crdts/key-wire.js';
import { isStamp, type Stamp } from '../../crdts/stamp.js';
import type { VersionVector } from '../../crdts/version-vector.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from './msgpack.js';

/** The version of the wire form that this node speaks. */
export const FRAME_VERSION = 1;

export interface Frame {
  readonly replica: ReplicaId;
  /** Counted from 1, without gaps. */
  readonly number: number;
  /** The greatest stamp inside; greater than every earlier frame's of this replica. */
  readonly stamp: Stamp;
  readonly deps: VersionVector;
  /** True: `deps` holds all that the replica had applied, not only what changed since its previous frame. */
  readonly full: boolean;
  readonly keys: readonly (readonly [ByteString, KeyState])[];
  readonly bytes: Uint8Array;
}

/** Encodes a frame. */
export function encodeFrame(frame: Omit<Frame, 'bytes'>): Frame {
  const writer = new WireWriter(frame.stamp, [frame.replica]);
  const keys = frame.keys.map(([key, delta]) => {
    const out: unknown[] = [writer.bytes(key)];
    writeKeyState(delta, writer, out);
    return out;
  });
  const deps = writer.vector(frame.deps);
  const tree = [FRAME_VERSION, frame.number, frame.stamp, writer.replicas, deps, frame.full ? 1 : 0, keys];
  return { ...frame, bytes: pack(tree) };
}

/**
 * Decodes and checks a frame; `maxValueBytes` bounds each key, value and member in it.
 * Throws DecodeError when the bytes are not a frame, or one of another version.
 */
export function decodeFrame(bytes: Uint8Array, maxValueBytes: number): Frame {
  const parts = asArray(unpack(bytes), 'frame');
  if (parts[0] !== FRAME_VERSION) {
    throw new DecodeError(
      `frame version ${String(parts[0])} is unknown, this node speaks ${FRAME_VERSION}: run the same release everywhere`,
    );
  }
  if (parts.length !== 7) throw new DecodeError('a frame has not seven parts');
  const [, number, stamp, replicas, deps, full, list] = parts;
  if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 1) {
    throw new DecodeError('a frame number is not a positive integer');
  }
  if (!isStamp(stamp) || stamp === 0) throw new DecodeError("a frame's stamp is out of range");
  if (full !== 0 && full !== 1)
    throw new DecodeError('a frame does not say whether its dependencies are complete');
  const reader = new WireReader(stamp, replicas, maxValueBytes);
  const keys: [ByteString, KeyState][] = [];
  const seen = new Set<ByteString>();
  for (const item of asArray(list, 'keys of a frame')) {
    const wire = asArray(item, 'key of a frame');
    const key = reader.bytes(wire[0]);
    if (seen.has(key)) throw new DecodeError('a key stands twice in a frame');
    seen.add(key);
    keys.push([key, readKeyState(wire, 1, stamp, reader)]);
  }
  return {
    replica: reader.replica(0),
    number,
    stamp,
    deps: reader.vector(deps),
    full: full === 1,
    keys,
    bytes,
  };
}
