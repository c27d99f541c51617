/**
 * Which keys have a header, as far as a store knows: what certainly has none needs neither be looked up before it is written, nor compared
 * when it is. Writing new keys costs half as much so.
 *
 * A slot is *complete* when all keys are known that have a header in it. It becomes so by being read once; from then on, commits tell what they
 * add. That holds only while nobody else commits (an era, slot-digests.ts): then all is forgotten. So slots are read only where it pays:
 * when enough keys were asked for in vain, and more and more of them each time that it was in vain.
 *
 * A key is kept as 32 bits of a seeded hash. Two that are alike do no harm: one that isn't there is then looked up all the same.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { keySlot, SLOTS } from './slots.js';

/** Tables, each for as many slots: growing one is a short pause. */
const TABLES = 128;

const UNKNOWN = 0;
const READING = 1;
const COMPLETE = 2;

export class KnownKeys {
  readonly #seed: number;
  readonly #mostKeys: number;
  readonly #state = new Uint8Array(SLOTS);
  #tables: FingerprintTable[] = [];
  #keys = 0;
  #asked = 0;
  #needed: number;
  /** The first slot that wasn't read yet; none is after the last one. */
  #next = SLOTS;
  /** Counts {@link forget}: an answer that comes after it is too old. */
  #age = 0;

  /**
   * @param random 0 ≤ x < 1; whoever knows what it gave can make keys that slow this down
   * @param leastAsked keys that must be asked for in vain before slots are read. Default: 4,096
   * @param mostKeys keys that are known at most; each takes 8 to 16 bytes. Beyond, everything is forgotten, and no slot is read any more. Default: 2,000,000
   */
  constructor(random: () => number, leastAsked = 4_096, mostKeys = 2_000_000) {
    this.#seed = Math.floor(random() * 2 ** 32) | 0;
    this.#needed = leastAsked;
    this.#mostKeys = mostKeys;
    this.#clear();
  }

  /** Says whether a key certainly has no header. */
  isAbsent(key: ByteString): boolean {
    const slot = keySlot(key);
    if (this.#state[slot] === COMPLETE) return !this.#table(slot).has(this.#fingerprint(key));
    this.#asked += 1;
    if (this.#asked === this.#needed) {
      this.#needed *= 2;
      this.#next = 0;
    }
    return false;
  }

  /** Says whether slots should be read. */
  get isWanted(): boolean {
    return this.#next < SLOTS;
  }

  /** Some slots to read. From now on their commits tell what they add. Gives them and a token for {@link learn}. */
  begin(count: number): { readonly slots: readonly number[]; readonly token: number } {
    const slots: number[] = [];
    for (; this.#next < SLOTS && slots.length < count; this.#next += 1) {
      if (this.#state[this.#next] === COMPLETE) continue;
      this.#state[this.#next] = READING;
      slots.push(this.#next);
    }
    return { slots, token: this.#age };
  }

  /** Learns what keys have a header in a slot that was read; null = it was too large to be. */
  learn(token: number, slot: number, keys: readonly ByteString[] | null): void {
    if (token !== this.#age) return;
    if (keys === null) {
      this.#state[slot] = UNKNOWN;
      return;
    }
    for (const key of keys) {
      this.#add(slot, key);
      if (token !== this.#age) return;
    }
    this.#state[slot] = COMPLETE;
  }

  /** A commit that is called stores the first header of a key. */
  stores(slot: number, key: ByteString): void {
    if (this.#state[slot] !== UNKNOWN) this.#add(slot, key);
  }

  /** Someone else may have committed. */
  forget(): void {
    this.#age += 1;
    this.#asked = 0;
    this.#next = SLOTS;
    if (this.#keys > 0 || this.#state.includes(READING) || this.#state.includes(COMPLETE)) this.#clear();
  }

  #clear(): void {
    this.#state.fill(UNKNOWN);
    this.#tables = Array.from({ length: TABLES }, () => new FingerprintTable());
    this.#keys = 0;
  }

  #add(slot: number, key: ByteString): void {
    if (!this.#table(slot).add(this.#fingerprint(key))) return;
    this.#keys += 1;
    if (this.#keys <= this.#mostKeys) return;
    this.forget();
    this.#needed = Number.POSITIVE_INFINITY;
  }

  #table(slot: number): FingerprintTable {
    return this.#tables[slot % TABLES]!;
  }

  /** FNV-1a, finished as MurmurHash3 is; never 0. */
  #fingerprint(key: ByteString): number {
    let hash = this.#seed ^ key.length;
    for (let i = 0; i < key.length; i += 1) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) >>> 0 || 1;
  }
}

/** A set of numbers from 1 to 2^32-1, by open addressing. */
class FingerprintTable {
  #slots = new Uint32Array(64);
  #size = 0;

  has(value: number): boolean {
    return this.#slots[this.#place(value)] === value;
  }

  /** Says whether it was absent. */
  add(value: number): boolean {
    const at = this.#place(value);
    if (this.#slots[at] === value) return false;
    this.#slots[at] = value;
    this.#size += 1;
    if (this.#size * 2 > this.#slots.length) this.#grow();
    return true;
  }

  /** Where a value is, or belongs. */
  #place(value: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let at = value & mask;
    while (slots[at] !== 0 && slots[at] !== value) at = (at + 1) & mask;
    return at;
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Uint32Array(before.length * 2);
    for (const value of before) if (value !== 0) this.#slots[this.#place(value)] = value;
  }
}
