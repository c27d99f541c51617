/**
 * The commits of a cluster store that wait for their turn. They run one after the other; when one fails, so do those that were called
 * before that was known. A caller is told in time, also when its commit goes on until its outcome is certain.
 */
import { StaleCommitError, StoreUnavailableError } from '../errors.js';
import type { Timers } from '../timers.js';
import type { Part } from './cluster-parts.js';
import { keySlot } from './slots.js';
import type { Commit, CommitResult } from './store.js';

/** A commit, from its call until its outcome is certain. */
export interface Waiting {
  readonly commit: Commit;
  /** The part to tell marks; null = an ordinary commit. */
  readonly only: Part | null;
  readonly slots: ReadonlySet<number>;
  readonly calledAtMs: number;
  readonly tell: (error: Error | null) => void;
  /** Resolves when its outcome is certain. */
  readonly settled: Promise<void>;
  readonly settle: () => void;
  told: boolean;
  /** Another writer's commit failed because of it. */
  crowded: boolean;
}

/** What a queue needs of its surroundings. */
export interface QueueOptions {
  readonly timers: Timers;
  /** How long a caller waits. */
  readonly answerTimeoutMs: number;
  /** Runs one; rejects when it failed. */
  readonly execute: (waiting: Waiting) => Promise<void>;
}

export class CommitQueue {
  readonly #options: QueueOptions;
  readonly #queue: Waiting[] = [];
  #running = false;
  #ended: (() => Error) | null = null;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** What everything is rejected with, since {@link end}; null before. */
  get ended(): Error | null {
    return this.#ended?.() ?? null;
  }

  /** Adds a commit; its caller's answer. */
  add(commit: Commit, only: Part | null): Promise<CommitResult> {
    const slots = new Set<number>();
    for (const { key } of commit.writes) slots.add(keySlot(key));
    return new Promise((resolve, reject) => {
      let settle: () => void = () => {};
      const settled = new Promise<void>((done) => {
        settle = done;
      });
      const waiting: Waiting = {
        commit,
        only,
        slots,
        calledAtMs: performance.now(),
        settled,
        settle,
        told: false,
        crowded: false,
        tell: (error) => {
          if (waiting.told) return;
          waiting.told = true;
          if (error === null) resolve({ crowded: waiting.crowded });
          else reject(error);
        },
      };
      this.#queue.push(waiting);
      if (this.#queue.length > 1 || this.#running) this.#expire(waiting);
      void this.#run();
    });
  }

  /** Resolves when the commits that were called so far and touch any of some slots (null: all) have come to an end. Rejects with StoreUnavailableError. */
  async settled(slots: readonly number[] | null): Promise<void> {
    for (let at = this.#queue.length - 1; at >= 0; at -= 1) {
      const waiting = this.#queue[at]!;
      if (slots !== null && !slots.some((slot) => waiting.slots.has(slot))) continue;
      await this.#inTime(waiting.settled);
      return;
    }
  }

  /** Nothing more is committed: what waits is rejected. */
  end(error: () => Error): void {
    this.#ended ??= error;
    for (const waiting of this.#queue.splice(0)) {
      waiting.tell(error());
      waiting.settle();
    }
  }

  #inTime(done: Promise<void>): Promise<void> {
    const { timers, answerTimeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const cancel = timers.after(answerTimeoutMs, () => reject(this.#late()));
      void done.then(() => {
        cancel();
        resolve();
      });
    });
  }

  #late(): StoreUnavailableError {
    return new StoreUnavailableError(
      `an earlier commit has not come to an end within ${this.#options.answerTimeoutMs} ms: a server of the cluster doesn't answer`,
    );
  }

  /** Gives up what waits behind others for too long. */
  #expire(waiting: Waiting): void {
    const { timers, answerTimeoutMs } = this.#options;
    const cancel = timers.after(answerTimeoutMs, () => {
      const at = this.#queue.indexOf(waiting);
      if (at <= 0) return;
      waiting.tell(this.#late());
      waiting.settle();
      this.#failAll(this.#queue.splice(at).slice(1));
    });
    void waiting.settled.then(cancel);
  }

  #failAll(all: readonly Waiting[]): void {
    for (const waiting of all) {
      waiting.tell(new StaleCommitError('an earlier commit, which this one was built on, failed'));
      waiting.settle();
    }
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      for (;;) {
        const waiting = this.#queue[0];
        if (waiting === undefined) return;
        let failure: Error | null = null;
        try {
          await this.#options.execute(waiting);
        } catch (error) {
          failure = error instanceof Error ? error : new Error(String(error));
        }
        if (this.#queue[0] !== waiting) return;
        this.#queue.shift();
        waiting.tell(failure);
        waiting.settle();
        // One that was called after its caller was told doesn't build on it; those called before do.
        if (failure !== null && waiting.only === null) this.#failAll(this.#queue.splice(0));
      }
    } finally {
      this.#running = false;
    }
  }
}
