/** Frames as bytes: the unit that is logged and gossiped. Their form is told in crdts/frame-wire.ts; the codec is msgpack. */
import { type FrameContent, readFrame, writeFrame } from '../../crdts/frame-wire.js';
import { pack, unpack } from './msgpack.js';

export { FRAME_VERSION } from '../../crdts/frame-wire.js';

/** A frame and its bytes. */
export interface Frame extends FrameContent {
  readonly bytes: Uint8Array;
}

/** Encodes a frame. */
export function encodeFrame(frame: FrameContent): Frame {
  return { ...frame, bytes: pack(writeFrame(frame)) };
}

/**
 * Decodes and checks a frame; `maxValueBytes` bounds each key, value and member in it.
 * Throws DecodeError when the bytes are not a frame, or one of another version.
 */
export function decodeFrame(bytes: Uint8Array, maxValueBytes: number): Frame {
  return { ...readFrame(unpack(bytes), maxValueBytes), bytes };
}
