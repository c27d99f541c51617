/**
 * The parts that wire forms are made of. A wire form is a tree of arrays, non-negative integers and byte strings that any
 * msgpack library can write; this file has no codec of its own.
 *
 * Two things keep it small: replica ids are indices into a table that comes once per frame, and stamps are
 * distances below a base stamp (the frame's own), which no stamp inside may exceed.
 *
 * Readers trust nothing: every tree may come from a broken or hostile peer. What they accept is canonical, so decoding
 * and encoding again gives the same bytes.
 */
import { type ByteString, fromUint8Array, isAscii, toUint8Array } from './bytes.js';
import type { Dot, ReplicaId } from './dot.js';
import { ArgumentError, DecodeError, InvariantError } from './errors.js';
import { isStamp, type Stamp } from './stamp.js';
import type { VersionVector } from './version-vector.js';

/** Bytes on the wire: a string when all are ASCII, an array of bytes otherwise, so that no codec mistakes them for text. */
export type WireBytes = string | Uint8Array;

/** Bounds of a single wire form; a reader throws DecodeError beyond them. */
export const WIRE_LIMITS = {
  /** Replicas in one table. */
  replicas: 4096,
  /** Characters of a replica id. */
  replicaIdLength: 64,
  /** Decimal digits of a count. */
  countDigits: 40,
} as const;

/** No spaces: lists of dots are compared as text, and must not read like other lists. */
const REPLICA_ID = new RegExp(`^[!-~]{1,${WIRE_LIMITS.replicaIdLength}}$`);
const BAD_REPLICA_ID = `a replica id is not 1 to ${WIRE_LIMITS.replicaIdLength} printable ASCII characters without spaces`;

/** Collects the replica table while a form is written. */
export class WireWriter {
  readonly #base: Stamp;
  readonly #index = new Map<ReplicaId, number>();

  /** @param base no stamp written may be greater; @param replicas ids that come first in the table */
  constructor(base: Stamp, replicas: readonly ReplicaId[] = []) {
    this.#base = base;
    for (const id of replicas) this.replica(id);
  }

  /** The table so far: position → replica id. */
  get replicas(): ReplicaId[] {
    return [...this.#index.keys()];
  }

  /** The position of a replica id in the table. Throws ArgumentError when no reader would accept it. */
  replica(id: ReplicaId): number {
    let index = this.#index.get(id);
    if (index === undefined) {
      if (!REPLICA_ID.test(id)) throw new ArgumentError(`${BAD_REPLICA_ID}: ${JSON.stringify(id)}`);
      index = this.#index.size;
      this.#index.set(id, index);
    }
    return index;
  }

  /** A stamp as its distance below the base. */
  stamp(stamp: Stamp): number {
    if (stamp > this.#base) throw new InvariantError(`stamp ${stamp} is above its base ${this.#base}`);
    return this.#base - stamp;
  }

  /** A byte string in the form that codecs keep. */
  bytes(value: ByteString): WireBytes {
    return isAscii(value) ? value : toUint8Array(value);
  }

  /** A version vector as [replica, stamp, …], in the order of the replica ids. */
  vector(vector: ReadonlyMap<ReplicaId, Stamp>): number[] {
    const out: number[] = [];
    const ids = vector.size > 1 ? [...vector.keys()].sort() : vector.keys();
    for (const id of ids) out.push(this.replica(id), this.stamp(vector.get(id) ?? 0));
    return out;
  }
}

/** Checks and reads what a {@link WireWriter} wrote. Every method throws DecodeError on anything else. */
export class WireReader {
  readonly #base: Stamp;
  readonly #replicas: readonly ReplicaId[];
  readonly #maxBytes: number;

  /** @param maxBytes the longest byte string accepted */
  constructor(base: Stamp, replicas: unknown, maxBytes: number) {
    if (!isStamp(base)) throw new DecodeError('the base is not a stamp');
    this.#base = base;
    this.#maxBytes = maxBytes;
    const table = asArray(replicas, 'replica table', WIRE_LIMITS.replicas);
    for (const id of table) {
      if (typeof id !== 'string' || !REPLICA_ID.test(id)) throw new DecodeError(BAD_REPLICA_ID);
    }
    if (table.length > 1 && new Set(table).size !== table.length)
      throw new DecodeError('a replica stands twice in its table');
    this.#replicas = table as ReplicaId[];
  }

  replica(wire: unknown): ReplicaId {
    const id = typeof wire === 'number' && !Object.is(wire, -0) ? this.#replicas[wire] : undefined;
    if (id === undefined) throw new DecodeError('a replica index is outside its table');
    return id;
  }

  stamp(wire: unknown): Stamp {
    if (!isDistance(wire) || wire >= this.#base) throw new DecodeError('a stamp is out of range');
    return this.#base - wire;
  }

  bytes(wire: unknown): ByteString {
    if (typeof wire === 'string') {
      if (!isAscii(wire)) throw new DecodeError('a byte string came as text that is not ASCII');
      if (wire.length > this.#maxBytes)
        throw new DecodeError(`a byte string is longer than ${this.#maxBytes} bytes`);
      return wire as ByteString;
    }
    if (!(wire instanceof Uint8Array)) throw new DecodeError('a byte string is missing');
    if (wire.length > this.#maxBytes)
      throw new DecodeError(`a byte string is longer than ${this.#maxBytes} bytes`);
    const value = fromUint8Array(wire);
    if (isAscii(value)) throw new DecodeError('an ASCII byte string came as an array: not canonical');
    return value;
  }

  vector(wire: unknown): VersionVector {
    const vector: VersionVector = new Map();
    for (const { replica, stamp } of this.dots(wire)) vector.set(replica, stamp);
    return vector;
  }

  /** Dots, at most one per replica, in the order of the replica ids: the same form as a vector's. */
  dots(wire: unknown): Dot[] {
    const flat = asArray(wire, 'version vector', 2 * WIRE_LIMITS.replicas);
    if (flat.length % 2 !== 0) throw new DecodeError('a version vector has an odd length');
    const dots: Dot[] = [];
    let last = '';
    for (let i = 0; i < flat.length; i += 2) {
      const replica = this.replica(flat[i]);
      if (replica <= last) throw new DecodeError('a version vector is not in the order of its replicas');
      last = replica;
      dots.push({ replica, stamp: this.stamp(flat[i + 1]) });
    }
    return dots;
  }

  /** Throws unless a context covers a dot: a dot that its own context denies would come and go with the order of merges. */
  requireCovered(context: ReadonlyMap<ReplicaId, Stamp>, dot: Dot): void {
    if ((context.get(dot.replica) ?? 0) < dot.stamp)
      throw new DecodeError('a context does not cover its own dot');
  }
}

/** A whole number from 0 up. Minus zero isn't: it would be written back as zero. Smaller than any base, so it is safe. */
function isDistance(wire: unknown): wire is number {
  return typeof wire === 'number' && wire >= 0 && Number.isInteger(wire) && (wire > 0 || 1 / wire > 0);
}

/** Checks that a wire value is an array of at most `limit` items. */
export function asArray(wire: unknown, what: string, limit = Number.POSITIVE_INFINITY): unknown[] {
  if (!Array.isArray(wire)) throw new DecodeError(`${what}: an array is missing`);
  if (wire.length > limit) throw new DecodeError(`${what}: more than ${limit} items`);
  return wire;
}

/** Compares byte strings byte by byte. */
export function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
