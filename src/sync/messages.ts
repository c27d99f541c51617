/** What members say to each other besides frames: positional msgpack arrays, strictly checked when decoded. */
import type { ReplicaId } from '../../crdts/dot.js';
import { isStamp } from '../../crdts/stamp.js';
import { asArray, WIRE_LIMITS } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from '../replica/msgpack.js';
import type { AppliedMark } from '../store/store.js';

/** The version of these messages. Members of different versions refuse each other. */
export const PROTOCOL_VERSION = 1;

/** The names of the request protocols. */
export const PROTOCOLS = {
  /** Introduction when two members connect: a {@link Heartbeat} each way. */
  hello: 'hello',
  /** Frames of a replica, by number. */
  frames: 'frames',
  /** Whole states of the slots that differ. */
  state: 'state',
  /** Waits until a frame has been applied. */
  applied: 'applied',
} as const;

/** Who a member is and how far it has come. Broadcast at intervals, and exchanged on connect. */
export interface Heartbeat {
  readonly version: number;
  readonly region: string;
  readonly replica: ReplicaId;
  /** Fingerprint of the member's rules: members with other rules are refused. */
  readonly rules: string;
  readonly applied: readonly AppliedMark[];
}

export function encodeHeartbeat(heartbeat: Heartbeat): Uint8Array {
  const { version, region, replica, rules, applied } = heartbeat;
  return pack(['h', version, region, replica, rules, marksToWire(applied)]);
}

/** Says whether a broadcast is a heartbeat; the others are frames. */
export function isHeartbeat(bytes: Uint8Array): boolean {
  return bytes[1] === 0xa1 && bytes[2] === 0x68;
}

/** Throws DecodeError unless the bytes are a heartbeat of this version. */
export function decodeHeartbeat(bytes: Uint8Array): Heartbeat {
  const parts = asArray(unpack(bytes), 'heartbeat');
  if (parts[0] !== 'h') throw new DecodeError('this is not a heartbeat');
  if (parts[1] !== PROTOCOL_VERSION) {
    throw new DecodeError(
      `protocol version ${String(parts[1])} is unknown, this node speaks ${PROTOCOL_VERSION}: run the same release everywhere`,
    );
  }
  const [, version, region, replica, rules, marks] = parts;
  return {
    version,
    region: label(region, 'region'),
    replica: label(replica, 'replica id'),
    rules: label(rules, 'fingerprint of the rules'),
    applied: marksFromWire(marks),
  };
}

export interface FramesRequest {
  readonly replica: ReplicaId;
  readonly from: number;
  readonly to: number;
}

export function encodeFramesRequest(request: FramesRequest): Uint8Array {
  return pack([request.replica, request.from, request.to]);
}

export function decodeFramesRequest(bytes: Uint8Array): FramesRequest {
  const [replica, from, to] = asArray(unpack(bytes), 'frames request', 3);
  return { replica: label(replica, 'replica id'), from: count(from), to: count(to) };
}

/** Frames travel several to a chunk. */
export function encodeFrameChunk(frames: readonly Uint8Array[]): Uint8Array {
  return pack(frames);
}

export function decodeFrameChunk(bytes: Uint8Array): Uint8Array[] {
  return asArray(unpack(bytes), 'frames').map((frame) => {
    if (!(frame instanceof Uint8Array)) throw new DecodeError('a frame is not bytes');
    return frame;
  });
}

export interface AppliedRequest {
  readonly replica: ReplicaId;
  readonly number: number;
  readonly timeoutMs: number;
}

export function encodeAppliedRequest(request: AppliedRequest): Uint8Array {
  return pack([request.replica, request.number, request.timeoutMs]);
}

export function decodeAppliedRequest(bytes: Uint8Array): AppliedRequest {
  const [replica, number, timeoutMs] = asArray(unpack(bytes), 'applied request', 3);
  return { replica: label(replica, 'replica id'), number: count(number), timeoutMs: count(timeoutMs) };
}

/** Marks as [replica, number, stamp, …]. */
export function marksToWire(marks: Iterable<AppliedMark>): unknown[] {
  const out: unknown[] = [];
  for (const { replica, number, stamp } of marks) out.push(replica, number, stamp);
  return out;
}

export function marksFromWire(wire: unknown): AppliedMark[] {
  const flat = asArray(wire, 'applied marks', 3 * WIRE_LIMITS.replicas);
  if (flat.length % 3 !== 0) throw new DecodeError('applied marks are not in groups of three');
  const marks: AppliedMark[] = [];
  for (let i = 0; i < flat.length; i += 3) {
    const stamp = flat[i + 2];
    if (!isStamp(stamp)) throw new DecodeError('an applied mark has no stamp');
    marks.push({ replica: label(flat[i], 'replica id'), number: count(flat[i + 1]), stamp });
  }
  return marks;
}

export function count(wire: unknown): number {
  if (typeof wire !== 'number' || !Number.isSafeInteger(wire) || wire < 0)
    throw new DecodeError('a number is not a count');
  return wire;
}

const LABEL = /^[\x21-\x7e]{1,64}$/;

function label(wire: unknown, what: string): string {
  if (typeof wire !== 'string' || !LABEL.test(wire))
    throw new DecodeError(`a ${what} is not 1 to 64 printable characters`);
  return wire;
}
