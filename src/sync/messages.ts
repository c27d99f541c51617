/** What members say to each other besides frames: positional msgpack arrays, strictly checked when decoded. */
import type { ReplicaId } from '../../crdts/dot.js';
import { isStamp } from '../../crdts/stamp.js';
import { asArray, WIRE_LIMITS } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import { pack, unpack } from '../replica/msgpack.js';
import type { AppliedMark, StoreFacts } from '../store/store.js';

/** The version of these messages. Members of different versions refuse each other. */
export const PROTOCOL_VERSION = 2;

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
  /** Questions of a verification; see verify/wire.ts. */
  verify: 'verify',
} as const;

/** Who a member is and how far it has come. Broadcast at intervals, and exchanged on connect. */
export interface Heartbeat {
  readonly version: number;
  readonly region: string;
  readonly replica: ReplicaId;
  /** Fingerprint of the member's rules: members with other rules are refused. */
  readonly rules: string;
  /** How far it has applied each replica, its own frames included. */
  readonly applied: readonly AppliedMark[];
  /** Its clock when it said this, Unix milliseconds. */
  readonly atMs: number;
  /** The epoch in which its data began (replica-identity.ts): one that lost everything, or was forgotten, begins again. */
  readonly born: number;
  /** Frames that it holds back behind a gap. */
  readonly held: readonly HeldRange[];
  /** The members that it counts when it judges what all have applied; itself left out. */
  readonly members: readonly PeerId[];
  /** Members that were forgotten. */
  readonly forgotten: readonly Forgotten[];
  /** Names its store ({@link StoreFacts.place}): members with the same one use one store. Empty: it has none at the moment, or can't tell. */
  readonly place: string;
  /** Other nodes that use its store, or have done so and are not retired; see siblings.ts. */
  readonly siblings: readonly PeerId[];
}

/** Frames of a replica that wait for earlier ones: the least and the greatest number. */
export interface HeldRange {
  readonly replica: ReplicaId;
  readonly first: number;
  readonly last: number;
}

/** A member that is gone for good, by an operator's word. It may only come back as new: born later than this. */
export interface Forgotten {
  readonly peerId: PeerId;
  readonly born: number;
}

/** Members that a node counts, at most; more are refused. */
export const MAX_MEMBERS = 256;
/** Members that a node remembers to have forgotten, the last ones. */
export const MAX_FORGOTTEN = 64;

export function encodeHeartbeat(heartbeat: Heartbeat): Uint8Array {
  const { version, region, replica, rules, applied, atMs, born, held, members, forgotten, place, siblings } =
    heartbeat;
  return pack([
    'h',
    version,
    region,
    replica,
    rules,
    marksToWire(applied),
    atMs,
    born,
    held.flatMap((range) => [range.replica, range.first, range.last]),
    members,
    forgottenToWire(forgotten),
    place,
    siblings,
  ]);
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
  if (parts.length !== 13) throw new DecodeError('a heartbeat has not thirteen parts');
  const [, version, region, replica, rules, marks, atMs, born, held, members, forgotten, place, siblings] =
    parts;
  return {
    version,
    region: label(region, 'region'),
    replica: label(replica, 'replica id'),
    rules: label(rules, 'fingerprint of the rules'),
    applied: marksFromWire(marks),
    atMs: count(atMs),
    born: count(born),
    held: heldFromWire(held),
    members: membersFromWire(members),
    forgotten: forgottenFromWire(forgotten),
    place: place === '' ? '' : label(place, 'place of a store'),
    siblings: membersFromWire(siblings),
  };
}

function heldFromWire(wire: unknown): HeldRange[] {
  return groups(wire, 3, WIRE_LIMITS.replicas, 'held-back frames').map(([replica, first, last]) => ({
    replica: label(replica, 'replica id'),
    first: count(first),
    last: count(last),
  }));
}

/** PeerIds, at most {@link MAX_MEMBERS}. Throws DecodeError. */
export function membersFromWire(wire: unknown): PeerId[] {
  return asArray(wire, 'members', MAX_MEMBERS).map((peerId) => label(peerId, 'peer id'));
}

/** Forgotten members, or others with their epochs, as [peer id, born, …]. */
export function forgottenToWire(forgotten: readonly Forgotten[]): unknown[] {
  return forgotten.flatMap(({ peerId, born }) => [peerId, born]);
}

/** Throws DecodeError unless the tree is a list of at most `most` members with their epochs. Default: {@link MAX_FORGOTTEN}. */
export function forgottenFromWire(wire: unknown, most = MAX_FORGOTTEN): Forgotten[] {
  return groups(wire, 2, most, 'forgotten members').map(([peerId, born]) => ({
    peerId: label(peerId, 'peer id'),
    born: count(born),
  }));
}

/** A floor as [replica, number, …]. */
export function floorToWire(floor: ReadonlyMap<ReplicaId, number>): unknown[] {
  return [...floor].flat();
}

/** Throws DecodeError unless the tree is a floor. */
export function floorFromWire(wire: unknown): Map<ReplicaId, number> {
  return new Map(
    groups(wire, 2, WIRE_LIMITS.replicas, 'floor').map(([replica, number]) => [
      label(replica, 'replica id'),
      count(number),
    ]),
  );
}

function groups(wire: unknown, size: number, most: number, what: string): unknown[][] {
  const flat = asArray(wire, what, size * most);
  if (flat.length % size !== 0) throw new DecodeError(`${what} are not in groups of ${size}`);
  const out: unknown[][] = [];
  for (let i = 0; i < flat.length; i += size) out.push(flat.slice(i, i + size));
  return out;
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
  return groups(wire, 3, WIRE_LIMITS.replicas, 'applied marks').map(([replica, number, stamp]) => {
    if (!isStamp(stamp)) throw new DecodeError('an applied mark has no stamp');
    return { replica: label(replica, 'replica id'), number: count(number), stamp };
  });
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
