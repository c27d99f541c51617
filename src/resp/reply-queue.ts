/** Replies in the order of the requests, whatever the order in which their results come. */

import type { Waiter } from '../replica/operation.js';
import type { Call, Reply } from './command.js';
import type { ReplyWriter } from './encoder.js';
import { INTERNAL_ERROR } from './errors.js';

/** Who is told when an operation's outcome has come for a slot. */
export interface SlotOwner {
  answered(slot: Slot, error: Error | null, value: unknown, frameNumber: number): void;
}

/** The place of one reply. */
export class Slot implements Waiter<unknown> {
  done = false;
  readonly #owner: SlotOwner;
  /** The client asked for silence. */
  readonly silent: boolean;
  /** What the request weighs while it is under way. */
  readonly bytes: number;
  /** Set when the result is an operation's. */
  call: Call<unknown> | null = null;
  value: unknown = undefined;
  /** Null with no call: nothing is sent. */
  reply: Reply | null = null;

  constructor(owner: SlotOwner, silent: boolean, bytes: number) {
    this.#owner = owner;
    this.silent = silent;
    this.bytes = bytes;
  }

  settled(error: Error | null, value: unknown, frameNumber: number): void {
    this.#owner.answered(this, error, value, frameNumber);
  }
}

/** Slots in order; those at the front that are done are written out. */
export class ReplyQueue {
  #slots: (Slot | undefined)[] = [];
  #head = 0;
  #bytes = 0;

  /** Requests whose reply hasn't been written. */
  get length(): number {
    return this.#slots.length - this.#head;
  }

  /** Bytes of these requests. */
  get bytes(): number {
    return this.#bytes;
  }

  push(slot: Slot): void {
    this.#slots.push(slot);
    this.#bytes += slot.bytes;
  }

  /** Writes what is done, up to about `maxBytes` in the writer; `failed` is told of a reply that could not be written. */
  drain(out: ReplyWriter, maxBytes: number, failed: (error: unknown) => void): void {
    const slots = this.#slots;
    while (this.#head < slots.length && out.length < maxBytes) {
      const slot = slots[this.#head] as Slot;
      if (!slot.done) break;
      slots[this.#head] = undefined;
      this.#head += 1;
      this.#bytes -= slot.bytes;
      if (!slot.silent) write(out, slot, failed);
    }
    if (this.#head === slots.length) {
      slots.length = 0;
      this.#head = 0;
    } else if (this.#head > 1024 && this.#head * 2 > slots.length) {
      this.#slots = slots.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Forgets everything; the connection is gone. */
  clear(): void {
    this.#slots = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}

function write(out: ReplyWriter, slot: Slot, failed: (error: unknown) => void): void {
  const before = out.length;
  try {
    if (slot.call !== null) slot.call.reply(out, slot.value);
    else slot.reply?.(out);
  } catch (error) {
    // Half a reply would put every later one out of place.
    out.truncate(before);
    out.error(INTERNAL_ERROR);
    failed(error);
  }
}
