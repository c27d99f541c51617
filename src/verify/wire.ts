/**
 * What members say to each other in a verification: positional msgpack arrays, strictly checked when decoded.
 *
 *     look                      → stable, total, keys, marks     digests of this moment; stable: nothing was committed meanwhile
 *     hold, token, ms           → 1, marks | 0, reason, waitMs   no frame is made from now on
 *     cut, token, replica, number, …
 *                               → 'at', total, keys | 'past', marks | 'late', replica, …
 *     slots, token              → slot, digest, …                as they were at the cut
 *     keys, token, slot, …      → more, key, digest, …           from the headers
 *     states, token, key, …     → explanation (JSON) or nil, …
 *     release, token            → throughout, heldMs
 */
import type { ByteString } from '../../crdts/bytes.js';
import { fromUint8Array, toUint8Array } from '../../crdts/bytes.js';
import { DIGEST_MODULUS } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { asArray, WIRE_LIMITS } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from '../replica/msgpack.js';
import { SLOTS } from '../store/slots.js';
import { count } from '../sync/messages.js';

/** Replica → number of the last frame. */
export type Numbers = ReadonlyMap<ReplicaId, number>;

export const encode = (...parts: readonly unknown[]): Uint8Array => pack(parts);

export function decode(bytes: Uint8Array): unknown[] {
  return asArray(unpack(bytes), 'message of a verification');
}

export function toBytes(value: ByteString): Uint8Array {
  return toUint8Array(value);
}

export function bytesFrom(wire: unknown, what: string): ByteString {
  if (!(wire instanceof Uint8Array)) throw new DecodeError(`a ${what} is not bytes`);
  return fromUint8Array(wire);
}

/** Text of so many characters at most. */
export function textFrom(wire: unknown, what: string, limit = 256): string {
  if (typeof wire !== 'string' || wire.length > limit)
    throw new DecodeError(`a ${what} is not a text of up to ${limit} characters`);
  return wire;
}

export function numbersToWire(numbers: Iterable<readonly [ReplicaId, number]>): unknown[] {
  return [...numbers].flat();
}

export function numbersFrom(wire: unknown): Map<ReplicaId, number> {
  const flat = asArray(wire, 'applied numbers', 2 * WIRE_LIMITS.replicas);
  const numbers = new Map<ReplicaId, number>();
  for (let i = 0; i < flat.length; i += 2)
    numbers.set(textFrom(flat[i], 'replica id', 64), count(flat[i + 1]));
  return numbers;
}

export function slotFrom(wire: unknown): number {
  const slot = count(wire);
  if (slot >= SLOTS) throw new DecodeError(`there is no slot ${slot}`);
  return slot;
}

export function digestFrom(wire: unknown): number {
  const digest = count(wire);
  if (digest >= DIGEST_MODULUS) throw new DecodeError('a digest is not below 2^48');
  return digest;
}

/** Slot → digest. */
export function digestsFrom(flat: readonly unknown[]): Map<number, number> {
  if (flat.length > 2 * SLOTS) throw new DecodeError('there are more digests than slots');
  const digests = new Map<number, number>();
  for (let i = 0; i < flat.length; i += 2) digests.set(slotFrom(flat[i]), digestFrom(flat[i + 1]));
  return digests;
}
