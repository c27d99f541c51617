/** Frames as bytes: the unit that is logged and gossiped. Their form is told in crdts/frame-wire.ts; the codec is msgpack. */
import { FRAME_VERSION, type FrameContent, readFrame } from '../../crdts/frame-wire.js';
import type { KeyState } from '../../crdts/key-state.js';
import { writeKeyState } from '../../crdts/key-wire.js';
import { type Register, UNLOADED } from '../../crdts/register.js';
import { WireWriter } from '../../crdts/wire.js';
import { pack, unpack } from './msgpack.js';
import { MsgpackWriter } from './msgpack-writer.js';

export { FRAME_VERSION } from '../../crdts/frame-wire.js';

/** A frame and its bytes. */
export interface Frame extends FrameContent {
  readonly bytes: Uint8Array;
}

const EMPTY_ARRAY_BYTES = 1;
const NULL = 0xc0;

/** Where the keys of the frame that is being encoded are written. */
const keys = new MsgpackWriter();

/** Encodes a frame: the bytes of what writeFrame gives. Keys come first, since only then the table of replicas is complete. */
export function encodeFrame(frame: FrameContent): Frame {
  const writer = new WireWriter(frame.stamp, [frame.replica]);
  keys.reset();
  keys.array(frame.keys.length);
  for (const [key, delta] of frame.keys) {
    const write = plainWrite(delta, frame);
    if (write !== null) {
      // [key, 1, [[distance, 0, value]]]: most keys, so they are written without a tree.
      keys.byte(0x93);
      keys.byteString(key);
      keys.byte(1);
      keys.byte(0x91);
      keys.byte(0x93);
      keys.integer(frame.stamp - write.stamp);
      keys.byte(0);
      if (typeof write.value === 'string') keys.byteString(write.value);
      else keys.byte(NULL);
    } else {
      const tree: unknown[] = [writer.bytes(key)];
      writeKeyState(delta, writer, tree);
      keys.raw(pack(tree));
    }
  }
  const deps = writer.vector(frame.deps);
  const { number, stamp, full } = frame;
  const head = pack([FRAME_VERSION, number, stamp, writer.replicas, deps, full ? 1 : 0, []]);
  const at = head.length - EMPTY_ARRAY_BYTES;
  const body = keys.bytes();
  const bytes = Buffer.allocUnsafeSlow(at + body.length);
  head.copy(bytes, 0, 0, at);
  body.copy(bytes, at);
  return { ...frame, bytes };
}

/** The register of a delta that says nothing but that the frame's own replica wrote a string, or deleted it, just now. */
function plainWrite(delta: KeyState, { replica, stamp }: FrameContent): Register | null {
  const { string, set, values, expiry } = delta;
  if (string === null || set !== null || values !== null || expiry !== null || string.counter !== null)
    return null;
  const { register } = string;
  const fits = register.stamp > 0 && register.stamp <= stamp && stamp - register.stamp < 2 ** 32;
  return fits && register.replica === replica && register.value !== UNLOADED ? register : null;
}

/**
 * Decodes and checks a frame; `maxValueBytes` bounds each key, value and member in it.
 * Throws DecodeError when the bytes are not a frame, or one of another version.
 */
export function decodeFrame(bytes: Uint8Array, maxValueBytes: number): Frame {
  return { ...readFrame(unpack(bytes), maxValueBytes), bytes };
}
