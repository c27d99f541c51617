/**
 * The forgetter: drops what is left of keys that are gone, once every member knows that they are. Why that is safe, and what it takes: crdts/forgetting.ts.
 *
 * It keeps one number for each slot: the least stable stamp at which a visit may find something to do. Commits lower it where a key
 * dies or gets a deadline; a visit reads the slot's headers and sets it anew. So nothing is held per key, and a slot in which
 * everything lives isn't visited again. After a start every slot is visited once.
 *
 * Expired keys are swept first, by a frame. Any member may, but one does it first and the others wait for their turn.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { deadlineOf } from '../../crdts/expiry.js';
import { isForgettable, isSweepable } from '../../crdts/forgetting.js';
import { type KeyState, winningType } from '../../crdts/key-state.js';
import { MAX_STAMP, STAMP_EPOCH_MS, STAMPS_PER_MS, type Stamp, stampAt, stampMs } from '../../crdts/stamp.js';
import type { Logger } from '../options.js';
import type { CachedKey } from '../replica/key-cache.js';
import { readHeader } from '../replica/key-record.js';
import type { Operation } from '../replica/operation.js';
import { PlainRecord } from '../replica/plain-record.js';
import type { Replica } from '../replica/replica.js';
import { keySlot, SLOTS } from '../store/slots.js';
import type { Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Stable } from './stability.js';

export interface ForgetterOptions {
  readonly replica: Pick<Replica, 'merge' | 'submit' | 'available' | 'id' | 'applied'>;
  readonly store: Pick<Store, 'headers'>;
  readonly timers: Timers;
  readonly logger: Logger;
  /** What has been stable for long enough. */
  readonly stable: () => Stable;
  /** How many members sweep before this one does. */
  readonly turn: () => number;
  /** Stores that something may be forgotten that was stable then. Called before that is done; nothing is when it rejects. */
  readonly raiseFloor: (stable: Stable) => Promise<void>;
  /** How long a member waits for the one before it to sweep. */
  readonly turnMs: number;
}

/** Keys in one batch. */
const BATCH_KEYS = 1_000;
/** See {@link Forgetter.unsure}. To visit every slot is to read every header. */
const UNSURE_MS = 10_000;
/** Slots that are read at once, at most, and bytes of their headers, about. */
const READ_SLOTS = 1_024;
const READ_BYTES = 1024 * 1024;

export class Forgetter {
  readonly #options: ForgetterOptions;
  readonly #due = new Float64Array(SLOTS);
  /** Not above any of them. */
  #least = 0;
  /** The greatest of them that isn't after a time, as it was last looked up, and until when that holds; 0 = look it up. */
  #demand = { stamp: 0, until: 0 };
  #running = false;
  #next = 0;
  /** When keys were last changed that this node doesn't know; null = it has visited every slot since. */
  #unsureSinceMs: number | null = null;
  /** Keys that were forgotten, and swept, since the start. */
  readonly counters = { forgotten: 0, swept: 0 };

  constructor(options: ForgetterOptions) {
    this.#options = options;
  }

  /** The store was away: every slot is visited again. */
  restart(): void {
    this.#due.fill(0);
    this.#least = 0;
    this.#demand.until = 0;
  }

  /**
   * Another node on the store has changed keys, and it isn't known which: every slot is visited again, once nothing of the kind has
   * happened for {@link UNSURE_MS}.
   */
  unsure(): void {
    this.#unsureSinceMs = this.#options.timers.now();
  }

  /** It isn't known what these keys are: their slots are visited again. */
  doubt(keys: Iterable<ByteString>): void {
    for (const key of keys) this.#lower(keySlot(key), 0);
  }

  /** A commit has changed these keys. Their records may be ahead of it, by commits under way; see {@link doubt}. */
  note(records: Iterable<CachedKey>): void {
    for (const record of records) {
      // Most keys: what lives and has no deadline is never due.
      if (record instanceof PlainRecord && record.value !== null) continue;
      const due = dueStamp(record.state);
      if (due !== Number.POSITIVE_INFINITY) this.#lower(keySlot(record.key), due);
    }
  }

  /**
   * The stamp that this node's clock must tell the others of, so that what waits can be forgotten: they can't know that an idle
   * node has nothing older to say. 0 = nothing waits.
   */
  get demand(): Stamp {
    const now = stampAt(this.#options.timers.now());
    if (this.#least > now) return 0;
    if (now >= this.#demand.until) {
      this.#demand = { stamp: 0, until: Number.POSITIVE_INFINITY };
      for (const due of this.#due) this.#consider(due, now);
    }
    return this.#demand.stamp;
  }

  /** Visits slots that are due, unless it is at it already. Never rejects: what fails is tried again with the next round. */
  async round(): Promise<void> {
    const { replica, timers } = this.#options;
    if (this.#running || !replica.available) return;
    if (this.#unsureSinceMs !== null && timers.now() - this.#unsureSinceMs >= UNSURE_MS) {
      this.#unsureSinceMs = null;
      this.restart();
    }
    const stable = this.#options.stable();
    if (stable.stamp === 0) return;
    this.#running = true;
    try {
      for (;;) {
        const slots = this.#dueSlots(stable.stamp);
        if (slots.length === 0 || !(await this.#visit(slots, stable))) return;
      }
    } finally {
      this.#running = false;
    }
  }

  /** The next slots that are due, all around. */
  #dueSlots(stable: Stamp): number[] {
    const slots: number[] = [];
    if (this.#least > stable) return slots;
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < SLOTS; i += 1) {
      const due = this.#due[this.#next]!;
      if (due <= stable) slots.push(this.#next);
      else if (due < least) least = due;
      this.#next = (this.#next + 1) % SLOTS;
      if (slots.length === READ_SLOTS) return slots;
    }
    this.#least = least;
    return slots;
  }

  /** Says whether it went through. */
  async #visit(slots: readonly number[], stable: Stable): Promise<boolean> {
    // What is committed from here on lowers them again.
    for (const slot of slots) this.#due[slot] = Number.POSITIVE_INFINITY;
    this.#demand.until = 0;
    try {
      const found = await this.#options.store.headers(slots, READ_BYTES);
      for (const slot of slots.slice(found.length)) this.#lower(slot, 0);
      const forget: ByteString[] = [];
      const sweep: ByteString[] = [];
      for (const [i, headers] of found.entries()) {
        for (const [key, header] of headers) this.#judge(slots[i]!, key, header, stable.stamp, forget, sweep);
      }
      if (forget.length > 0) await this.#options.raiseFloor(stable);
      await this.#forget(forget, stable.stamp);
      await this.#sweep(sweep, stable.stamp);
      return true;
    } catch (error) {
      for (const slot of slots) this.#lower(slot, 0);
      this.#options.logger.debug(
        { err: error as Error },
        'what is left of deleted keys could not be dropped',
      );
      return false;
    }
  }

  #judge(
    slot: number,
    key: ByteString,
    header: ByteString,
    stable: Stamp,
    forget: ByteString[],
    sweep: ByteString[],
  ): void {
    const { turn, turnMs } = this.#options;
    const { state } = readHeader(key, header);
    const due = dueStamp(state);
    if (isForgettable(state, stable)) forget.push(key);
    else if (!isSweepable(state, stable)) this.#lower(slot, due > stable ? due : Number.POSITIVE_INFINITY);
    else {
      const mine = due + turn() * turnMs * STAMPS_PER_MS;
      if (mine <= stable) sweep.push(key);
      else this.#lower(slot, mine);
    }
  }

  async #forget(keys: readonly ByteString[], stable: Stamp): Promise<void> {
    for (let start = 0; start < keys.length; start += BATCH_KEYS) {
      const some = keys.slice(start, start + BATCH_KEYS);
      await new Promise<void>((resolve, reject) => {
        this.#options.replica.merge({
          frames: [],
          states: [],
          marks: [],
          forget: { keys: some, stable },
          done: (error) => (error === null ? resolve() : reject(error)),
        });
      });
      this.counters.forgotten += some.length;
    }
  }

  async #sweep(keys: readonly ByteString[], stable: Stamp): Promise<void> {
    for (let start = 0; start < keys.length; start += BATCH_KEYS) {
      const some = keys.slice(start, start + BATCH_KEYS);
      this.counters.swept += await this.#submit({
        needs: some.map((key) => ({ key })),
        run: (tx) => some.reduce((count, key) => count + Number(tx.sweep(key, stable)), 0),
      });
    }
  }

  #submit<T>(operation: Operation<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#options.replica.submit(operation, {
        settled: (error, value) => (error === null ? resolve(value as T) : reject(error)),
      });
    });
  }

  #lower(slot: number, due: Stamp): void {
    if (due >= this.#due[slot]!) return;
    // The one that it replaces was perhaps the greatest.
    if (this.#due[slot] === this.#demand.stamp) this.#demand.until = 0;
    this.#due[slot] = due;
    if (due < this.#least) this.#least = due;
    this.#consider(due, stampAt(this.#options.timers.now()));
  }

  #consider(due: Stamp, now: Stamp): void {
    if (due > now) this.#demand.until = Math.min(this.#demand.until, due);
    else if (due > this.#demand.stamp) this.#demand.stamp = due;
  }
}

/** The least stable stamp at which something may be done about a key: infinite while it lives and has no deadline. */
export function dueStamp(state: KeyState): Stamp {
  const { expiry, touched } = state;
  const waits = expiry !== null && expiry.siblings.size > 0;
  if (winningType(state) === 'none') return touched;
  const deadline = waits ? deadlineOf(expiry) : null;
  if (deadline === null || deadline > LAST_MS) return Number.POSITIVE_INFINITY;
  return Math.max(touched, stampAt(Math.max(deadline, STAMP_EPOCH_MS)));
}

/** A deadline after the last stamp never comes. */
const LAST_MS = stampMs(MAX_STAMP);
