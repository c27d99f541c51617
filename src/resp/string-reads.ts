/**
 * Joins GETs. Those of all connections that arrive in one turn of the event loop become one question to the store, as
 * writes become one commit; a GET that comes alone waits for nothing but the end of its turn.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { WrongTypeError } from '../errors.js';
import type { NativeReads } from '../store/store.js';

/** Most keys of one question: bounds the memory that its answer takes. */
const MAX_KEYS = 512;

/** Takes one answer. */
export type TakeString = (error: unknown, value: ByteString | null) => void;

/** Asks for strings, many at once. */
export class StringReads {
  readonly #reads: NativeReads;
  #keys: ByteString[] = [];
  #takers: TakeString[] = [];
  #scheduled = false;

  constructor(reads: NativeReads) {
    this.#reads = reads;
  }

  /** Reads one string; a key of another type is a WrongTypeError. Answers never come before this returns. */
  get(key: ByteString, take: TakeString): void {
    this.#keys.push(key);
    this.#takers.push(take);
    if (this.#keys.length >= MAX_KEYS) this.#ask();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      // After this turn's input has been read, from whichever connection.
      setImmediate(() => {
        this.#scheduled = false;
        if (this.#keys.length > 0) this.#ask();
      });
    }
  }

  #ask(): void {
    const keys = this.#keys;
    const takers = this.#takers;
    this.#keys = [];
    this.#takers = [];
    this.#strings(keys).then(
      (values) => {
        for (let i = 0; i < takers.length; i += 1) {
          const value = values[i] ?? null;
          if (typeof value === 'symbol') takers[i]?.(new WrongTypeError(), null);
          else takers[i]?.(null, value);
        }
      },
      (error: unknown) => {
        for (const take of takers) take(error, null);
      },
    );
  }

  /** A store that throws instead of rejecting is treated alike. */
  async #strings(keys: readonly ByteString[]): ReturnType<NativeReads['strings']> {
    return this.#reads.strings(keys);
  }
}
