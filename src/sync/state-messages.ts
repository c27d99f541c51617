/**
 * What the two sides of a state transfer say to each other, as positional msgpack arrays. A transfer is a conversation of three requests:
 *
 *     digests   [1, groups]                          → a {@link StateHead}, then the digests of the slots of those groups that differ
 *     keys      [2, token, since, slots, counts, digests]   → states of the keys that differ; a big set that both sides hold is only announced
 *     members   [3, token, [key, rest, coarse, fine], …]  → of each big set, what lies in the buckets that differ
 *
 * Each answer is a stream of messages, so each side holds one at a time; a request is bounded by the mesh, hence one of each kind for
 * some 200,000 keys compared.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, DIGEST_MODULUS } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { isStamp, type Stamp } from '../../crdts/stamp.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from '../replica/msgpack.js';
import { SLOTS } from '../store/slots.js';
import type { AppliedMark } from '../store/store.js';
import { COARSE, FINE_PER_COARSE } from './member-buckets.js';
import { count, floorFromWire, floorToWire, marksFromWire, marksToWire } from './messages.js';
import { fields, packRecords, requireAscending, unpackRecords } from './packed.js';

/** What comes first in the answer to a request for digests. */
export interface StateHead {
  /** The giver's applied marks before it read anything. */
  readonly marks: readonly AppliedMark[];
  /** Keys that it has, about. */
  readonly keys: number;
  /** What all members had applied when the giver last forgot something: replica → number. */
  readonly floor: ReadonlyMap<ReplicaId, number>;
  /** Names the giver's data as they are; a request with another one is refused, since the marks might not be true of them any more. */
  readonly token: string;
}

/** Positional, and open to more fields behind. */
export function encodeStateHead(
  { marks, keys, token, floor }: Omit<StateHead, 'floor'> & { readonly floor?: StateHead['floor'] },
  ...more: unknown[]
): Uint8Array {
  return pack([marksToWire(marks), keys, token, floorToWire(floor ?? new Map()), ...more]);
}

export function decodeStateHead(bytes: Uint8Array): StateHead {
  const head = fields(unpack(bytes), 'head of a state transfer', 4);
  return {
    marks: marksFromWire(head[0]),
    keys: count(head[1]),
    token: tokenOf(head[2]),
    floor: floorFromWire(head[3]),
  };
}

/** A hash of a key, and its digest: that of its live data, or that of its header, see `since` of {@link StateRequest}. */
export interface KeyDigest {
  readonly hash: number;
  readonly digest: number;
}

/** Slots are compared by groups first, so that finding nothing costs a kilobyte and not the digests of all slots. */
export const GROUPS = 128;

/** The group of a slot. */
export function groupOf(slot: number): number {
  return Math.floor((slot * GROUPS) / SLOTS);
}

/** The digests of all groups: the sums of their slots'. */
export function groupDigests(slots: ReadonlyMap<number, number>): number[] {
  const groups = new Array<number>(GROUPS).fill(0);
  for (const [slot, digest] of slots) groups[groupOf(slot)] = addDigests(groups[groupOf(slot)]!, digest);
  return groups;
}

/** A big set in the buckets that differ; `coarse: null` asks for all of it. */
export interface SetRequest {
  readonly key: ByteString;
  /** Sum of the digests of the coarse buckets that aren't listed, as the giver told them: they must still be so. */
  readonly rest: number;
  readonly coarse: readonly number[] | null;
  /** The asker's fine digests of the listed buckets. */
  readonly fine: readonly number[];
}

export type StateRequest =
  | {
      readonly kind: 'digests';
      /** The asker's digests of all groups; null asks for the slots of all of them. */
      readonly groups: readonly number[] | null;
    }
  | {
      readonly kind: 'keys';
      readonly token: string;
      /** null: live data are compared. Else headers are, and of what is dead, only what was touched after this stamp comes. */
      readonly since: Stamp | null;
      /** What the asker has in each slot that it asks for, in ascending order. */
      readonly slots: ReadonlyMap<number, readonly KeyDigest[]>;
    }
  | { readonly kind: 'members'; readonly token: string; readonly sets: readonly SetRequest[] };

const DIGESTS = 1;
const KEYS = 2;
const MEMBERS = 3;
/** Bytes of a hash of a key, a digest, a slot or bucket, a number of keys. */
const HASH = 4;
const DIGEST = 6;
const SLOT = 2;
const COUNT = 4;
/** Sets in one request, at most. */
export const MAX_SETS = 1024;

export function encodeStateRequest(request: StateRequest): Uint8Array {
  if (request.kind === 'digests')
    return pack([DIGESTS, request.groups && packRecords([DIGEST], request.groups)]);
  if (request.kind === 'keys') {
    const slots = [...request.slots.keys()];
    const counts = [...request.slots.values()].map((digests) => digests.length);
    const flat: number[] = [];
    for (const digests of request.slots.values())
      for (const { hash, digest } of digests) flat.push(hash, digest);
    return pack([
      KEYS,
      request.token,
      request.since,
      packRecords([SLOT], slots),
      packRecords([COUNT], counts),
      packRecords([HASH, DIGEST], flat),
    ]);
  }
  const writer = new WireWriter(1);
  const sets = request.sets.map(({ key, rest, coarse, fine }) =>
    coarse === null
      ? [writer.bytes(key)]
      : [writer.bytes(key), rest, packRecords([SLOT], coarse), packRecords([DIGEST], fine)],
  );
  return pack([MEMBERS, request.token, ...sets]);
}

/** Throws DecodeError on anything but a request. */
export function decodeStateRequest(bytes: Uint8Array): StateRequest {
  const parts = asArray(unpack(bytes), 'state request', MAX_SETS + 2);
  if (parts[0] === DIGESTS) {
    const groups = parts[1] == null ? null : unpackRecords(parts[1], [DIGEST], 'digests of groups', GROUPS);
    if (groups !== null && groups.length !== GROUPS) throw new DecodeError('digests of groups are missing');
    return { kind: 'digests', groups };
  }
  if (parts[0] === KEYS) {
    const slots = unpackRecords(parts[3], [SLOT], 'slots', SLOTS);
    requireAscending(slots, SLOTS, 'slots');
    const counts = unpackRecords(parts[4], [COUNT], 'numbers of keys', SLOTS);
    const digests = unpackRecords(parts[5], [HASH, DIGEST], 'digests of keys', Number.MAX_SAFE_INTEGER);
    const asked = new Map<number, KeyDigest[]>();
    let at = 0;
    if (counts.length !== slots.length) throw new DecodeError('a slot has no number of keys');
    for (const [i, slot] of slots.entries()) {
      const end = at + 2 * counts[i]!;
      if (end > digests.length) throw new DecodeError('digests of keys are missing');
      const list: KeyDigest[] = [];
      for (; at < end; at += 2) list.push({ hash: digests[at]!, digest: digests[at + 1]! });
      asked.set(slot, list);
    }
    if (at !== digests.length) throw new DecodeError('digests of keys belong to no slot');
    const since = parts[2];
    if (since !== null && !isStamp(since)) throw new DecodeError('a state request does not say since when');
    return { kind: 'keys', token: tokenOf(parts[1]), since, slots: asked };
  }
  if (parts[0] === MEMBERS) {
    return { kind: 'members', token: tokenOf(parts[1]), sets: parts.slice(2).map(setRequest) };
  }
  throw new DecodeError('this is no state request: run the same release everywhere');
}

function setRequest(wire: unknown): SetRequest {
  const parts = fields(wire, 'request for a set', 1);
  const key = new WireReader(1, [], Number.MAX_SAFE_INTEGER).bytes(parts[0]);
  if (parts.length === 1) return { key, rest: 0, coarse: null, fine: [] };
  const rest = count(parts[1]);
  if (rest >= DIGEST_MODULUS) throw new DecodeError('a digest is out of range');
  const coarse = unpackRecords(parts[2], [SLOT], 'buckets', COARSE);
  requireAscending(coarse, COARSE, 'buckets');
  const fine = unpackRecords(parts[3], [DIGEST], 'digests of buckets', coarse.length * FINE_PER_COARSE);
  if (fine.length !== coarse.length * FINE_PER_COARSE)
    throw new DecodeError('digests of buckets are missing');
  return { key, rest, coarse, fine };
}

export function encodeSlotDigests(digests: ReadonlyMap<number, number>): Uint8Array {
  const flat: number[] = [];
  for (const slot of [...digests.keys()].sort((a, b) => a - b)) {
    flat.push(slot, digests.get(slot)!);
  }
  return pack(packRecords([SLOT, DIGEST], flat));
}

export function decodeSlotDigests(bytes: Uint8Array): Map<number, number> {
  const flat = unpackRecords(unpack(bytes), [SLOT, DIGEST], 'digests', SLOTS);
  requireAscending(
    flat.filter((_, i) => i % 2 === 0),
    SLOTS,
    'slots',
  );
  const digests = new Map<number, number>();
  for (let i = 0; i < flat.length; i += 2) digests.set(flat[i]!, flat[i + 1]!);
  return digests;
}

const TOKEN = /^[\x20-\x7e]{1,200}$/;

function tokenOf(wire: unknown): string {
  if (typeof wire !== 'string' || !TOKEN.test(wire)) throw new DecodeError('a state transfer has no token');
  return wire;
}
