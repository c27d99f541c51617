/** Native values in this process: strings and sets with an expiry, as Valkey would hold them, and a SCAN over them. */
import type { ByteString } from '../../crdts/bytes.js';
import { globMatches } from '../../crdts/glob.js';
import { type ScanOptions, WRONG_TYPE, type WrongType } from './store.js';

/** One native value. */
export interface Native {
  value: ByteString | Set<ByteString>;
  /** Unix milliseconds; null = none. */
  expireAtMs: number | null;
  /** Place in the order of creation; what SCAN's cursor counts. */
  readonly place: number;
}

/** Native values by key. Expired ones are gone, as of the time that each call is given. */
export class MemoryNatives {
  readonly #values = new Map<ByteString, Native>();
  /** Keys in the order of their places; those that are gone stay until there are too many of them. */
  #order: { readonly place: number; readonly key: ByteString }[] = [];
  #places = 0;

  /** What a key holds; undefined when it is absent or expired. */
  get(key: ByteString, now: number): Native | undefined {
    const native = this.#values.get(key);
    if (native === undefined || native.expireAtMs === null || now <= native.expireAtMs) return native;
    this.#values.delete(key);
    return undefined;
  }

  /** Replaces a value; its expiry is cleared. */
  set(key: ByteString, value: Native['value'], now: number): Native {
    const known = this.get(key, now);
    if (known !== undefined) {
      known.value = value;
      known.expireAtMs = null;
      return known;
    }
    this.#places += 1;
    const native: Native = { value, expireAtMs: null, place: this.#places };
    this.#values.set(key, native);
    this.#order.push({ place: native.place, key });
    if (this.#order.length > 64 && this.#order.length > 2 * this.#values.size) {
      this.#order = this.#order.filter((entry) => this.#values.get(entry.key)?.place === entry.place);
    }
    return native;
  }

  delete(key: ByteString): void {
    this.#values.delete(key);
  }

  /** Sets or clears (null) an expiry; a time that isn't ahead deletes. */
  expire(key: ByteString, atMs: number | null, now: number): void {
    const native = this.get(key, now);
    if (native === undefined) return;
    if (atMs !== null && atMs <= now) this.#values.delete(key);
    else native.expireAtMs = atMs;
  }

  string(key: ByteString, now: number): ByteString | null | WrongType {
    const value = this.get(key, now)?.value;
    return value === undefined ? null : typeof value === 'string' ? value : WRONG_TYPE;
  }

  members(key: ByteString, now: number): ReadonlySet<ByteString> | WrongType {
    const value = this.get(key, now)?.value;
    return value === undefined ? new Set() : typeof value === 'string' ? WRONG_TYPE : value;
  }

  count(now: number): number {
    let count = 0;
    for (const key of [...this.#values.keys()]) if (this.get(key, now) !== undefined) count += 1;
    return count;
  }

  /** Goes through the keys in the order of their creation: what was there all along is found, and once. */
  scan(
    cursor: string,
    { match, count = 10, type }: ScanOptions,
    now: number,
  ): { cursor: string; keys: ByteString[] } {
    const after = Number(cursor);
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#order[middle]?.place ?? 0) <= after) low = middle + 1;
      else high = middle;
    }
    const keys: ByteString[] = [];
    let seen = 0;
    for (; low < this.#order.length && seen < count; low += 1) {
      const entry = this.#order[low];
      if (entry === undefined) break;
      const native = this.get(entry.key, now);
      if (native === undefined || native.place !== entry.place) continue;
      seen += 1;
      if (type !== undefined && type !== (typeof native.value === 'string' ? 'string' : 'set')) continue;
      if (match === undefined || globMatches(match, entry.key)) keys.push(entry.key);
    }
    const last = this.#order[low - 1];
    return { cursor: low >= this.#order.length || last === undefined ? '0' : String(last.place), keys };
  }
}
