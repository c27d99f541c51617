/**
 * Digests: numbers that are equal where live data are equal, and that can be kept up to date without reading anything
 * but what changed.
 *
 * The digest of a key is a sum, modulo 2^48, of one hash for each live part: the register's dot, each uncovered count, each
 * member with its dots, each deadline. (A multiset hash, after Bellare and Micciancio's AdHash, 1997; it finds differences, it
 * does not withstand forgers.) Values are not hashed: a dot names the one write that it came from. Dead data are left out, so
 * that regions which forget tombstones at different times don't differ.
 */
import type { ByteString } from './bytes.js';
import { uncovered } from './counter.js';
import type { Decimal } from './decimal.js';
import type { Dot } from './dot.js';
import type { KeyState } from './key-state.js';
import { winningType } from './key-state.js';
import type { Dots } from './or-set.js';
import { isPresent } from './register.js';
import { isStringLive } from './string-key.js';

/** Digests are integers from 0 to 2^48-1. */
export const DIGEST_MODULUS = 2 ** 48;

/** Adds two digests. */
export function addDigests(a: number, b: number): number {
  return (a + b) % DIGEST_MODULUS;
}

/** Takes one digest from another. */
export function subtractDigests(a: number, b: number): number {
  return (a - b + DIGEST_MODULUS) % DIGEST_MODULUS;
}

/** Two lanes of 32 bits, multiplied and mixed per unit; the finish is MurmurHash3's. Reused, so that hashing allocates nothing. */
let lane1 = 0;
let lane2 = 0;

function begin(kind: number, key: string): void {
  lane1 = 0x9747b28c ^ kind;
  lane2 = 0x3c6ef372 + kind;
  hashText(key);
}

function hashUnit(unit: number): void {
  lane1 = Math.imul(lane1 ^ unit, 0x85ebca6b);
  lane1 ^= lane1 >>> 13;
  lane2 = Math.imul(lane2 ^ unit, 0xc2b2ae35);
  lane2 ^= lane2 >>> 16;
}

function hashText(value: string): void {
  for (let i = 0; i < value.length; i += 1) hashUnit(value.charCodeAt(i));
  hashUnit(0x10000 + value.length);
}

/** As {@link hashText} of `${p} ${n}`, which most counts needn't be made into. */
function hashCount(p: Decimal, n: Decimal): void {
  if (!isShort(p) || !isShort(n)) {
    hashText(`${p} ${n}`);
    return;
  }
  const digits = hashDigits(p);
  hashUnit(0x20);
  hashUnit(0x10000 + digits + 1 + hashDigits(n));
}

const isShort = (value: Decimal): value is number =>
  typeof value === 'number' && value >= 0 && value < 1e15 && Number.isInteger(value);

/** Hashes the decimal digits of a whole number below 10^15; gives how many there are. */
function hashDigits(value: number): number {
  let power = 1;
  let digits = 1;
  for (; power * 10 <= value; power *= 10) digits += 1;
  for (; power >= 1; power /= 10) {
    const digit = Math.floor(value / power);
    value -= digit * power;
    hashUnit(48 + digit);
  }
  return digits;
}

function hashNumber(value: number): void {
  hashUnit(value >>> 0);
  hashUnit(Math.floor(value / 0x100000000));
}

function finish(): number {
  let a = lane1 ^ (lane2 >>> 15);
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b);
  a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  a = (a ^ (a >>> 16)) >>> 0;
  let b = lane2 ^ Math.imul(a, 0x27d4eb2f);
  b = Math.imul(b ^ (b >>> 15), 0x2c1b3c6d);
  b = (b ^ (b >>> 16)) >>> 16;
  return b * 0x100000000 + a;
}

/** The digest of one member of a set; 0 when it has no dots. */
export function memberDigest(key: ByteString, member: ByteString, dots: Dots): number {
  if (dots.length === 0) return 0;
  begin(2, key);
  hashText(member);
  for (const dot of dots) {
    hashNumber(dot.stamp);
    hashText(dot.replica);
  }
  return finish();
}

/** The digest of a key's stored form: equal where its bytes are. */
export function storedDigest(key: ByteString, bytes: ByteString): number {
  begin(6, key);
  hashText(bytes);
  return finish();
}

/** The digest of a register that holds a value, named by its dot. */
export function registerDigest(key: ByteString, { stamp, replica }: Dot): number {
  begin(1, key);
  hashNumber(stamp);
  hashText(replica);
  return finish();
}

/** The digest of everything in a key but the members of its set: string, deadlines. 0 when nothing lives. */
export function bodyDigest(key: ByteString, state: KeyState): number {
  let sum = 0;
  const { string, expiry, values } = state;
  if (string !== null && isStringLive(string)) {
    if (isPresent(string.register)) sum = registerDigest(key, string.register);
    if (string.counter !== null) {
      for (const [replica, { since }] of string.counter.counts) {
        const { p, n } = uncovered(string.counter, replica);
        begin(3, key);
        hashText(replica);
        hashNumber(since);
        hashCount(p, n);
        sum = addDigests(sum, finish());
      }
    }
  }
  if (values !== null) {
    for (const [replica, { stamp }] of values.siblings) {
      begin(5, key);
      hashText(replica);
      hashNumber(stamp);
      sum = addDigests(sum, finish());
    }
  }
  if (expiry !== null && expiry.siblings.size > 0 && winningType(state) !== 'none') {
    for (const [replica, { stamp, value }] of expiry.siblings) {
      begin(4, key);
      hashText(replica);
      hashNumber(stamp);
      hashNumber(value ?? 0);
      sum = addDigests(sum, finish());
    }
  }
  return sum;
}

/** The digest of a key whose set, if any, is whole. */
export function keyDigest(key: ByteString, state: KeyState): number {
  let sum = bodyDigest(key, state);
  if (state.set !== null) {
    for (const [member, dots] of state.set.entries) sum = addDigests(sum, memberDigest(key, member, dots));
  }
  return sum;
}
