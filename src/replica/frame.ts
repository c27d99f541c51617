/** Frames as bytes: the unit that is logged and gossiped. Their form is told in crdts/frame-wire.ts; the codec is msgpack. */
import type { ByteString } from '../../crdts/bytes.js';
import { readFrameBytes } from '../../crdts/frame-bytes.js';
import { FRAME_VERSION, type FrameContent, type FrameHead } from '../../crdts/frame-wire.js';
import type { KeyState } from '../../crdts/key-state.js';
import { writeKeyState } from '../../crdts/key-wire.js';
import { type Register, UNLOADED } from '../../crdts/register.js';
import type { Stamp } from '../../crdts/stamp.js';
import { compareBytes, WireWriter } from '../../crdts/wire.js';
import type { KeyChange } from './key-change.js';
import type { KeyRecord } from './key-record.js';
import { pack, unpack } from './msgpack.js';
import { MsgpackWriter, writeDecimal } from './msgpack-writer.js';
import { deltasOfPlain, type FrameDelta, keyStateOf, PlainWrite } from './plain-delta.js';
import { contextOf, type QuickAdd } from './quick-change.js';

export { FRAME_VERSION } from '../../crdts/frame-wire.js';

/** A frame and its bytes. */
export interface Frame extends FrameHead {
  /** One for each key. */
  readonly deltas: readonly FrameDelta[];
  readonly bytes: Uint8Array;
}

/** The key of a delta. */
export function keyOf(delta: FrameDelta): ByteString {
  return delta instanceof PlainWrite ? delta.key : delta[0];
}

/** The deltas of a frame as key states. */
export function keysOf({ deltas }: Pick<Frame, 'deltas'>): (readonly [ByteString, KeyState])[] {
  return deltas.map((delta) =>
    delta instanceof PlainWrite ? ([delta.key, keyStateOf(delta)] as const) : delta,
  );
}

const EMPTY_ARRAY_BYTES = 1;
const NULL = 0xc0;

/** Where the keys of the frame that is being encoded are written. */
const keys = new MsgpackWriter();

/** Encodes a frame: the bytes of what writeFrame gives. Keys come first, since only then the table of replicas is complete. */
export function encodeFrame(frame: FrameContent): Frame {
  const { keys: deltas, ...head } = frame;
  return { ...head, deltas, bytes: frameBytes(frame, [], []) };
}

/** A write that is all there is to say of its key. */
export interface WrittenKey {
  readonly record: { readonly key: ByteString };
  readonly stamp: Stamp;
  readonly value: ByteString | null;
}

/** The bytes of a frame whose own replica writes some keys and changes others quickly, and that besides says what `keys` says. */
export function frameBytes(
  frame: FrameContent,
  written: readonly WrittenKey[],
  quick: readonly KeyChange[],
): Buffer {
  const writer = new WireWriter(frame.stamp, [frame.replica]);
  keys.reset();
  keys.array(written.length + quick.length + frame.keys.length);
  for (const change of quick) {
    if (change.quick?.kind === 'count') writeCount(change.record, frame);
    else if (change.quick !== null) writeAdded(change, change.quick, frame, writer);
  }
  for (const { record, stamp, value } of written) writePlain(record.key, frame.stamp - stamp, value);
  for (const [key, delta] of frame.keys) {
    const write = plainRegister(delta, frame);
    if (write !== null) {
      writePlain(key, frame.stamp - write.stamp, write.value as ByteString | null);
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
  return bytes;
}

/** [key, 1, [[distance, 0, value]]]: most keys, so they are written without a tree. */
function writePlain(key: ByteString, distance: number, value: ByteString | null): void {
  keys.byte(0x93);
  keys.byteString(key);
  keys.byte(1);
  keys.byte(0x91);
  keys.byte(0x93);
  keys.integer(distance);
  keys.byte(0);
  if (value !== null) keys.byteString(value);
  else keys.byte(NULL);
}

/** [key, 1, [[], [[0, distance, p, n], []]]]: this replica's count. */
function writeCount({ key, state }: KeyRecord, { replica, stamp }: FrameContent): void {
  const { since, p, n } = state.string!.counter!.counts.get(replica)!;
  keys.byte(0x93);
  keys.byteString(key);
  keys.byte(1);
  keys.byte(0x92);
  keys.byte(0x90);
  keys.byte(0x92);
  keys.byte(0x94);
  keys.byte(0);
  keys.number(stamp - since);
  writeDecimal(keys, p);
  writeDecimal(keys, n);
  keys.byte(0x90);
}

/** [key, 2, [context, [[0, distance], [member, …]], 0]]: members that this replica added, in the order of their bytes. */
function writeAdded(change: KeyChange, quick: QuickAdd, { stamp }: FrameContent, writer: WireWriter): void {
  const members = [...change.members!.keys()];
  if (members.length > 1) members.sort(compareBytes);
  keys.byte(0x93);
  keys.byteString(change.record.key);
  keys.byte(2);
  keys.byte(0x93);
  const context = writer.vector(contextOf(quick));
  keys.array(context.length);
  for (const part of context) keys.number(part);
  keys.byte(0x92);
  keys.byte(0x92);
  keys.byte(0);
  keys.number(stamp - quick.dots[0]!.stamp);
  keys.array(members.length);
  for (const member of members) keys.byteString(member);
  keys.byte(0);
}

/** The register of a delta that says nothing but that the frame's own replica wrote a string, or deleted it, just now. */
function plainRegister(delta: KeyState, { replica, stamp }: FrameContent): Register | null {
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
  const frame = readFrameBytes(bytes, maxValueBytes, unpack);
  const { replica, number, stamp, deps, full, keys: others } = frame;
  const deltas = 'plain' in frame ? [...deltasOfPlain(frame.plain), ...others] : others;
  return { replica, number, stamp, deps, full, deltas, bytes };
}
