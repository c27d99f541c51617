/**
 * A bounded cache of key records, with second-chance eviction (clock).
 *
 * Anything may be evicted at any time: a load that is called after a commit was called sees that commit, so a record that
 * comes back is never older than the one that went.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { UNLOADED } from '../../crdts/register.js';
import { type KeyRecord, standsInHeader } from './key-record.js';

/** Strings up to this many bytes stay with their record; longer ones stay in the store. */
const MAX_CACHED_VALUE_BYTES = 256;

/** Headers up to this many bytes stay; they hold the values that aren't native: siblings, and what another type hides. */
const MAX_CACHED_HEADER_BYTES = 16 * 1024;

/** Whole sets up to this many members stay with their record. */
const MAX_CACHED_MEMBERS = 4096;

export class KeyCache {
  readonly #records = new Map<ByteString, KeyRecord>();
  readonly #maxKeys: number;

  /** @param maxKeys how many records are kept. Each takes about 1 KiB, one with a cached set up to 1 MiB. */
  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys;
  }

  get size(): number {
    return this.#records.size;
  }

  get(key: ByteString): KeyRecord | undefined {
    const record = this.#records.get(key);
    if (record !== undefined) record.used = true;
    return record;
  }

  set(record: KeyRecord): void {
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
  release(record: KeyRecord): void {
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
  }

  /** Evicts down to the bound. */
  trim(): void {
    for (const [key, record] of this.#records) {
      if (this.#records.size <= this.#maxKeys) return;
      this.#records.delete(key);
      if (record.used) {
        record.used = false;
        this.#records.set(key, record);
      }
    }
  }
}
