/**
 * Wire form of a frame: one batch of one replica's deltas, numbered without gaps.
 *
 * Positional: [version, number, stamp, replicas, deps, full, keys]
 * - replicas: the table of replica ids that the rest refers to by position; the first is the frame's own
 * - deps: [replica, stamp, …]: what must have been applied before; only what changed since the previous frame, or, where
 *   `full` is 1, everything
 * - keys: [[key, tag, body, …], …] (key-wire.ts); a key that stands twice is joined twice
 *
 * All stamps inside are distances below the frame's own stamp. This is a tree; any msgpack library makes bytes of it.
 */
import type { ByteString } from './bytes.js';
import type { ReplicaId } from './dot.js';
import { DecodeError } from './errors.js';
import type { KeyState } from './key-state.js';
import { readKeyState, writeKeyState } from './key-wire.js';
import { isStamp, type Stamp } from './stamp.js';
import type { VersionVector } from './version-vector.js';
import { asArray, WireReader, WireWriter } from './wire.js';

/** The version of the wire form that is written and read here. */
export const FRAME_VERSION = 1;

/** What a frame says, but for its keys. */
export interface FrameHead {
  readonly replica: ReplicaId;
  /** Counted from 1, without gaps. */
  readonly number: number;
  /** The greatest stamp inside; greater than every earlier frame's of this replica. */
  readonly stamp: Stamp;
  readonly deps: VersionVector;
  /** True: `deps` holds all that the replica had applied, not only what changed since its previous frame. */
  readonly full: boolean;
}

/** What a frame says. */
export interface FrameContent extends FrameHead {
  /** One delta per key. */
  readonly keys: readonly (readonly [ByteString, KeyState])[];
}

/** Writes a frame as a tree. */
export function writeFrame(frame: FrameContent): unknown[] {
  const writer = new WireWriter(frame.stamp, [frame.replica]);
  const keys = frame.keys.map(([key, delta]) => {
    const out: unknown[] = [writer.bytes(key)];
    writeKeyState(delta, writer, out);
    return out;
  });
  const deps = writer.vector(frame.deps);
  return [FRAME_VERSION, frame.number, frame.stamp, writer.replicas, deps, frame.full ? 1 : 0, keys];
}

/**
 * Reads and checks a frame; `maxValueBytes` bounds each key, value and member in it.
 * Throws DecodeError when the tree is not a frame, or one of another version.
 */
export function readFrame(tree: unknown, maxValueBytes: number): FrameContent {
  const parts = asArray(tree, 'frame');
  if (parts[0] !== FRAME_VERSION) {
    throw new DecodeError(
      `frame version ${String(parts[0])} is unknown, this node speaks ${FRAME_VERSION}: run the same release everywhere`,
    );
  }
  if (parts.length !== 7) throw new DecodeError('a frame has not seven parts');
  const { head, reader } = readFrameHead(parts, maxValueBytes);
  const { replica, number, stamp, deps, full } = head;
  return { replica, number, stamp, deps, full, keys: readKeys(parts[6], stamp, reader) };
}

/** Reads and checks the parts of a frame before its keys. Throws DecodeError as {@link readFrame} does. */
export function readFrameHead(
  parts: readonly unknown[],
  maxValueBytes: number,
): { head: FrameHead; reader: WireReader } {
  const [, number, stamp, replicas, deps, full] = parts;
  if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 1) {
    throw new DecodeError('a frame number is not a positive integer');
  }
  if (!isStamp(stamp) || stamp === 0) throw new DecodeError("a frame's stamp is out of range");
  if ((full !== 0 || Object.is(full, -0)) && full !== 1)
    throw new DecodeError('a frame does not say whether its dependencies are complete');
  const reader = new WireReader(stamp, replicas, maxValueBytes);
  return {
    head: { replica: reader.replica(0), number, stamp, deps: reader.vector(deps), full: full === 1 },
    reader,
  };
}

function readKeys(list: unknown, stamp: Stamp, reader: WireReader): [ByteString, KeyState][] {
  return asArray(list, 'keys of a frame').map((item) => readKey(item, stamp, reader));
}

/** Reads and checks a key of a frame, and its delta. Throws DecodeError as {@link readFrame} does. */
export function readKey(item: unknown, stamp: Stamp, reader: WireReader): [ByteString, KeyState] {
  const wire = asArray(item, 'key of a frame');
  return [reader.bytes(wire[0]), readKeyState(wire, 1, stamp, reader)];
}
