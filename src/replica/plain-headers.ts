/**
 * Headers of keys that hold a plain string and nothing else, or held one: most keys, so theirs are short, and written and read
 * without a tree. (Other headers: key-record.ts. Those are msgpack arrays, and none begins as these do.)
 *
 *     1 byte   0 = deleted, 1 = the value stands natively
 *     7 bytes  stamp of the frame that wrote it
 *     6 bytes  the replica's identity, eight characters of a-z and 0-9 as a number to base 36
 *     6 bytes  its epoch, likewise
 *     1–4      how far the write's own stamp is below the frame's, seven bits to a byte, the least first, 128 = more follow
 *
 * All numbers but the last begin with their most significant byte. The form says all that there is to say by itself, without a
 * table of replicas that a store would have to keep: so equal keys have equal headers in every region. What doesn't fit into it
 * (other names of replicas, which only tests have) is a msgpack header, as it was for all keys up to release 0.1.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { Origin } from '../../crdts/plain-delta.js';
import { isStamp } from '../../crdts/stamp.js';
import { DecodeError } from '../errors.js';

const DELETED = 0;
const NATIVE = 1;
/** Where the parts stand. */
const IDENTITY = 8;
const EPOCH = 14;
const BEHIND = 20;
const MAX_BEHIND = 2 ** 28;

const REPLICA_ID = /^([0-9a-z]{8})\.(0|[1-9a-z][0-9a-z]*)$/;
const IDENTITY_LIMIT = 36 ** 8;

const buffer = Buffer.alloc(24);
/** Whose bytes the buffer holds. */
let shared: Origin | null = null;
let sharedReplica: ReplicaId | null = null;
/** The replica that no header can name. */
let refused: ReplicaId | null = null;

/** Encodes a header; null when the form has no place for it. `behind` is the write's distance below the origin's stamp. */
export function plainHeader(origin: Origin, behind: number, deleted: boolean): ByteString | null {
  if (origin !== shared && !share(origin)) return null;
  if (!(behind >= 0 && behind < MAX_BEHIND)) return null;
  buffer[0] = deleted ? DELETED : NATIVE;
  let at = BEHIND;
  let rest = behind;
  for (; rest > 0x7f; rest >>= 7) buffer[at++] = 0x80 | (rest & 0x7f);
  buffer[at++] = rest;
  return buffer.toString('latin1', 0, at) as ByteString;
}

/** Writes what all headers of an origin have in common; says whether it can. */
function share(origin: Origin): boolean {
  if (origin.replica !== sharedReplica && !shareReplica(origin.replica)) return false;
  for (let at = IDENTITY - 1, rest = origin.stamp; at > 0; at -= 1) {
    const higher = Math.floor(rest / 256);
    buffer[at] = rest - higher * 256;
    rest = higher;
  }
  shared = origin;
  return true;
}

/** Most origins that follow one another are of the same replica. */
function shareReplica(replica: ReplicaId): boolean {
  if (replica === refused) return false;
  const [, identity, epoch] = REPLICA_ID.exec(replica) ?? [];
  const began = Number.parseInt(epoch ?? '', 36);
  if (identity === undefined || !(began < 2 ** 48)) {
    refused = replica;
    return false;
  }
  buffer.writeUIntBE(Number.parseInt(identity, 36), IDENTITY, 6);
  buffer.writeUIntBE(began, EPOCH, 6);
  sharedReplica = replica;
  shared = null;
  return true;
}

/** A header, taken apart. */
export interface PlainHeader {
  /** Shared with the header that was read before, if it has the same. */
  readonly origin: Origin;
  readonly behind: number;
  readonly deleted: boolean;
}

let lastBytes = '';
let lastOrigin: Origin = { replica: '', stamp: 0 };

/** Decodes a header; null when it is of the other form. Throws DecodeError when it is damaged. */
export function readPlainHeader(header: ByteString): PlainHeader | null {
  const kind = header.charCodeAt(0);
  if (kind !== DELETED && kind !== NATIVE) return null;
  if (header.length <= BEHIND) throw damaged();
  const bytes = header.slice(1, BEHIND);
  if (bytes !== lastBytes) {
    lastOrigin = readOrigin(header);
    lastBytes = bytes;
  }
  let behind = 0;
  let at = BEHIND;
  for (let shift = 0; ; shift += 7, at += 1) {
    const byte = header.charCodeAt(at);
    // Nothing, a zero that says nothing, or more than there may be.
    if (!(byte >= 0) || (byte === 0 && shift > 0) || shift > 21) throw damaged();
    behind |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  if (at + 1 !== header.length || behind >= lastOrigin.stamp) throw damaged();
  return { origin: lastOrigin, behind, deleted: kind === DELETED };
}

function readOrigin(header: ByteString): Origin {
  const stamp = numberAt(header, 1, 7);
  const identity = numberAt(header, IDENTITY, 6);
  if (!isStamp(stamp) || identity >= IDENTITY_LIMIT) throw damaged();
  const replica: ReplicaId = `${identity.toString(36).padStart(8, '0')}.${numberAt(header, EPOCH, 6).toString(36)}`;
  return { replica, stamp };
}

function numberAt(header: ByteString, from: number, length: number): number {
  let value = 0;
  for (let i = from; i < from + length; i += 1) value = value * 256 + header.charCodeAt(i);
  return value;
}

function damaged(): DecodeError {
  return new DecodeError('a stored header of a plain string is damaged');
}
