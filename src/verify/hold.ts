/**
 * Hold: a member's promise to make no frame for a moment, so that all members can come to one common cut.
 *
 * It ends when whoever asked for it lets go, and by the member's own timer whatever that one does. After it comes a cool-down
 * in which nobody is granted another, so that a hostile member can slow operations down by a fifth, and never stop them.
 */
import type { PeerId } from '../mesh/mesh.js';
import type { Cancel, Timers } from '../timers.js';
import { COOL_DOWN_FACTOR, MAX_HOLD_MS, MIN_COOL_DOWN_MS } from './limits.js';

/** What is held. */
export interface Holdable {
  /** Resolves when nothing of its own is under way any more. */
  holdOperations(): Promise<void>;
  resumeOperations(): void;
}

export type HoldAnswer =
  | { readonly granted: true }
  | { readonly granted: false; readonly reason: string; readonly waitMs: number };

/** How a hold ended: whether it was in force until it was let go, and how long it was. */
export interface HoldEnd {
  readonly throughout: boolean;
  readonly heldMs: number;
}

interface Running {
  readonly owner: PeerId;
  readonly token: string;
  readonly startedMs: number;
  readonly endsMs: number;
  readonly cancel: Cancel;
}

export class Hold {
  readonly #held: Holdable;
  readonly #timers: Timers;
  #running: Running | null = null;
  /** Unix milliseconds at which the cool-down is over; a timer ends it, since clocks may jump. */
  #coolUntilMs: number | null = null;

  constructor(held: Holdable, timers: Timers) {
    this.#held = held;
    this.#timers = timers;
  }

  /** Begins a hold of `ms`, at most {@link MAX_HOLD_MS}; resolves when nothing is under way any more, or it was refused. */
  async take(owner: PeerId, token: string, ms: number): Promise<HoldAnswer> {
    const now = this.#timers.now();
    if (this.#running !== null) {
      const waitMs = Math.max(1, this.#running.endsMs - now);
      return { granted: false, reason: 'another verification holds its operations', waitMs };
    }
    if (this.#coolUntilMs !== null) {
      const waitMs = Math.max(1, this.#coolUntilMs - now);
      return { granted: false, reason: 'it has just held its operations for a verification', waitMs };
    }
    const holdMs = Math.min(ms, MAX_HOLD_MS);
    const running: Running = {
      owner,
      token,
      startedMs: now,
      endsMs: now + holdMs,
      cancel: this.#timers.after(holdMs, () => this.#end()),
    };
    this.#running = running;
    await this.#held.holdOperations();
    if (this.#running === running) return { granted: true };
    return { granted: false, reason: 'its store did not commit in time what was under way', waitMs: 0 };
  }

  /** Says whether this hold is in force. */
  inForce(owner: PeerId, token: string): boolean {
    return this.#running?.owner === owner && this.#running.token === token;
  }

  /** Lets go. */
  release(owner: PeerId, token: string): HoldEnd {
    if (!this.inForce(owner, token)) return { throughout: false, heldMs: 0 };
    return { throughout: true, heldMs: this.#end() };
  }

  /** Ends whatever is held, for good. */
  stop(): void {
    if (this.#running !== null) this.#end();
  }

  #end(): number {
    const running = this.#running!;
    running.cancel();
    this.#running = null;
    const heldMs = Math.min(Math.max(0, this.#timers.now() - running.startedMs), MAX_HOLD_MS);
    const coolMs = Math.max(MIN_COOL_DOWN_MS, heldMs * COOL_DOWN_FACTOR);
    this.#coolUntilMs = this.#timers.now() + coolMs;
    this.#timers.after(coolMs, () => {
      this.#coolUntilMs = null;
    });
    this.#held.resumeOperations();
    return heldMs;
  }
}
