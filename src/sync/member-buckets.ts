/**
 * Member buckets: how two members find the few elements in which a big set differs.
 *
 * Members fall by a hash of their bytes into {@link FINE} fine buckets, of which {@link FINE_PER_COARSE} make a coarse one. A bucket's digest is the sum
 * of its members' digests (crdts/digest.ts), so a coarse one's is the sum of its fine ones'. Two levels, because one would cost more:
 * of a set of 100,000 members with 10 different, 512 coarse digests, 10 × 32 fine ones and some 60 members travel.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, memberDigest } from '../../crdts/digest.js';
import type { Dots } from '../../crdts/or-set.js';

export const COARSE = 512;
export const FINE_PER_COARSE = 32;
export const FINE = COARSE * FINE_PER_COARSE;

/** A hash of bytes, 32 bits (MurmurHash3's finish over a multiplicative sum). Both sides must agree on it. */
export function hash32(bytes: ByteString): number {
  let hash = 0x811c9dc5 ^ bytes.length;
  for (let i = 0; i < bytes.length; i += 1) hash = Math.imul(hash ^ bytes.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The fine bucket of a member. */
export function fineBucket(member: ByteString): number {
  return hash32(member) % FINE;
}

/** The coarse bucket that a fine one belongs to. */
export function coarseOf(fine: number): number {
  return Math.floor(fine / FINE_PER_COARSE);
}

/** Digests of the fine buckets of one set, summed up as its entries come by. 128 KiB. */
export class BucketDigests {
  readonly fine = new Float64Array(FINE);
  readonly #key: ByteString;

  constructor(key: ByteString) {
    this.#key = key;
  }

  add(member: ByteString, dots: Dots): void {
    const bucket = fineBucket(member);
    this.fine[bucket] = addDigests(this.fine[bucket]!, memberDigest(this.#key, member, dots));
  }

  /** Digests of the coarse buckets. */
  coarse(): number[] {
    return Array.from({ length: COARSE }, (_, coarse) => {
      let sum = 0;
      const end = (coarse + 1) * FINE_PER_COARSE;
      for (let i = coarse * FINE_PER_COARSE; i < end; i += 1) sum = addDigests(sum, this.fine[i]!);
      return sum;
    });
  }

  /** Digests of the fine buckets of a coarse one. */
  finesOf(coarse: number): number[] {
    return [...this.fine.subarray(coarse * FINE_PER_COARSE, (coarse + 1) * FINE_PER_COARSE)];
  }

  /** Sum over all coarse buckets that aren't listed. */
  rest(listed: ReadonlySet<number>): number {
    let sum = 0;
    for (const [coarse, digest] of this.coarse().entries())
      if (!listed.has(coarse)) sum = addDigests(sum, digest);
    return sum;
  }
}
