/**
 * A bounded cache of key records, with second-chance eviction (clock).
 *
 * Anything may be evicted at any time: a load that is called after a commit was called sees that commit, so a record that
 * comes back is never older than the one that went.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { UNLOADED } from '../../crdts/register.js';
import { type KeyRecord, standsInHeader } from './key-record.js';
import { MAX_CACHED_VALUE_BYTES, PlainRecord } from './plain-record.js';

/** What is in memory of a key. */
export type CachedKey = KeyRecord | PlainRecord;

/** Headers up to this many bytes stay; they hold the values that aren't native: siblings, and what another type hides. */
const MAX_CACHED_HEADER_BYTES = 16 * 1024;

/** Whole sets up to this many members stay with their record. */
const MAX_CACHED_MEMBERS = 4096;

export class KeyCache {
  readonly #records = new Map<ByteString, CachedKey>();
  readonly #maxKeys: number;
  /** Where eviction goes on: a walk that began anew each time would pass all that was evicted before. */
  #hand: Iterator<CachedKey> | null = null;

  /** @param maxKeys how many records are kept. A plain string's takes about 300 bytes, others about 1 KiB, one with a cached set up to 1 MiB. */
  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys;
  }

  get size(): number {
    return this.#records.size;
  }

  get(key: ByteString): CachedKey | undefined {
    const record = this.#records.get(key);
    if (record !== undefined) record.used = true;
    return record;
  }

  set(record: CachedKey): void {
    this.#records.set(record.key, record);
  }

  /** Forgets one key. */
  delete(key: ByteString): void {
    this.#records.delete(key);
  }

  /** Forgets everything: what was assumed of commits under way didn't come true. */
  clear(): void {
    this.#records.clear();
  }

  /** Lets go of what a record needn't hold, once a batch is done with it. */
  release(record: CachedKey): void {
    if (record instanceof PlainRecord) return;
    const { string, set } = record.state;
    const members = set?.entries.size ?? 0;
    if (members > MAX_CACHED_MEMBERS || (record.header?.length ?? 0) > MAX_CACHED_HEADER_BYTES) {
      this.#records.delete(record.key);
      return;
    }
    if (string === null || (record.header !== null && standsInHeader(record.state))) return;
    const { value } = string.register;
    if (typeof value === 'string' && value.length > MAX_CACHED_VALUE_BYTES) {
      string.register.value = UNLOADED;
    }
    // One object holds the same, where that is all; but not if the header is of the form of an older release.
    const plain = record.nativeMissing ? null : PlainRecord.fromState(record.key, record.state, record.era);
    if (plain?.header === record.header && this.#records.get(record.key) === record)
      this.#records.set(record.key, plain!);
  }

  /** Evicts down to the bound. */
  trim(): void {
    while (this.#records.size > this.#maxKeys) {
      this.#hand ??= this.#records.values();
      const next = this.#hand.next();
      if (next.done === true) {
        this.#hand = null;
        continue;
      }
      const record = next.value;
      this.#records.delete(record.key);
      if (!record.used) continue;
      record.used = false;
      this.#records.set(record.key, record);
    }
  }
}
