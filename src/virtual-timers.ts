/**
 * Virtual time: a clock that stands still until it is told to move, so that a simulation of minutes runs in milliseconds
 * and the same seed gives the same run.
 *
 * Between two timers the whole queue of microtasks is drained, by waiting for one turn of `setImmediate`: every promise
 * chain that a timer set off has come to rest before the next timer runs. The run is deterministic as long as the code
 * waits for nothing but promises and these timers; real IO, `setTimeout` and threads take real time and escape it.
 */
import type { Cancel, Timers } from './timers.js';

interface Pending {
  readonly dueMs: number;
  /** Breaks ties: what was scheduled first runs first. */
  readonly order: number;
  readonly fn: () => void;
  state: 'waiting' | 'cancelled' | 'done';
}

/** What ends a run that would not end by itself. */
export interface RunLimits {
  /** Virtual time that may pass. Default: 10 minutes. */
  readonly withinMs?: number;
  /** Timers that may run. Default: 1,000,000. */
  readonly maxEvents?: number;
}

/** Implements `Timers` on virtual time. */
export class VirtualTimers implements Timers {
  #nowMs: number;
  #order = 0;
  /** A binary heap, the earliest first. */
  readonly #heap: Pending[] = [];
  #waiting = 0;

  /** Starts the clock at `startMs`, in Unix milliseconds. Default: 2025-01-01. */
  constructor(startMs: number = Date.UTC(2025, 0, 1)) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fn: () => void): Cancel {
    const pending: Pending = {
      dueMs: this.#nowMs + Math.max(0, delayMs),
      order: this.#order++,
      fn,
      state: 'waiting',
    };
    this.#push(pending);
    this.#waiting += 1;
    return () => {
      if (pending.state === 'waiting') this.#end(pending, 'cancelled');
    };
  }

  /** Timers that wait to run. */
  get pending(): number {
    return this.#waiting;
  }

  /** Lets all promise chains come to rest, without moving the clock. */
  async settle(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /** Moves the clock to the next timer and runs it; false when there is none. */
  async step(): Promise<boolean> {
    await this.settle();
    const next = this.#pop();
    if (next === undefined) return false;
    await this.#run(next);
    return true;
  }

  /** Moves the clock by `ms`, running what falls due on the way. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await this.settle();
    for (let next = this.#peek(); next !== undefined && next.dueMs <= endMs; next = this.#peek()) {
      await this.#run(this.#pop()!);
    }
    this.#nowMs = endMs;
  }

  /** Runs until no timer is left. Throws when a limit is reached first (periodic timers never leave it idle). */
  async runUntilIdle(limits: RunLimits = {}): Promise<void> {
    await this.#runUntil(() => false, 'nothing was left to run', limits, true);
  }

  /** Runs timers until `condition` holds. Throws when none is left, or when a limit is reached first; `what` names the condition then. */
  async runUntil(
    condition: () => boolean | Promise<boolean>,
    what: string,
    limits: RunLimits = {},
  ): Promise<void> {
    await this.#runUntil(condition, what, limits, false);
  }

  /** Runs timers until `promise` settles, and returns its value. Throws as it does, or when a limit is reached first. */
  async runToEnd<T>(promise: Promise<T>, limits: RunLimits = {}): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    await this.runUntil(() => settled, 'the promise settled', limits);
    return promise;
  }

  async #runUntil(
    condition: () => boolean | Promise<boolean>,
    what: string,
    limits: RunLimits,
    idleIsEnough: boolean,
  ): Promise<void> {
    const endMs = this.#nowMs + (limits.withinMs ?? 600_000);
    const maxEvents = limits.maxEvents ?? 1_000_000;
    await this.settle();
    for (let events = 0; !(await condition()); events += 1) {
      const next = this.#peek();
      if (next === undefined) {
        if (idleIsEnough) return;
        throw new Error(`no timer is left and still not: ${what}`);
      }
      if (events >= maxEvents) throw new Error(`${maxEvents} timers ran and still not: ${what}`);
      if (next.dueMs > endMs) {
        throw new Error(`${limits.withinMs ?? 600_000} ms of virtual time passed and still not: ${what}`);
      }
      await this.#run(this.#pop()!);
    }
  }

  async #run(pending: Pending): Promise<void> {
    this.#nowMs = Math.max(this.#nowMs, pending.dueMs);
    this.#end(pending, 'done');
    pending.fn();
    await this.settle();
  }

  #end(pending: Pending, state: 'cancelled' | 'done'): void {
    pending.state = state;
    this.#waiting -= 1;
  }

  #peek(): Pending | undefined {
    // Cancelled timers stay in the heap until they reach its root.
    while (this.#heap[0]?.state === 'cancelled') this.#removeRoot();
    return this.#heap[0];
  }

  #pop(): Pending | undefined {
    const next = this.#peek();
    if (next !== undefined) this.#removeRoot();
    return next;
  }

  #push(pending: Pending): void {
    const heap = this.#heap;
    let index = heap.push(pending) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isEarlier(pending, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = pending;
  }

  #removeRoot(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isEarlier(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isEarlier(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

function isEarlier(a: Pending, b: Pending): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}
