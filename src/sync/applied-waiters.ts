/** Waiters: who wants to know when a replica's frame has been applied here. */
import type { ReplicaId } from '../../crdts/dot.js';
import { LimitError } from '../errors.js';
import type { AppliedMark } from '../store/store.js';
import type { Timers } from '../timers.js';

/** How many may wait at once. */
const MAX_WAITERS = 10_000;

interface Waiter {
  readonly replica: ReplicaId;
  readonly number: number;
  readonly finish: () => void;
}

export class AppliedWaiters {
  readonly #waiters = new Set<Waiter>();
  readonly #timers: Timers;
  readonly #applied: () => ReadonlyMap<ReplicaId, AppliedMark>;

  constructor(timers: Timers, applied: () => ReadonlyMap<ReplicaId, AppliedMark>) {
    this.#timers = timers;
    this.#applied = applied;
  }

  /** Gives the number applied at the end: at least `number`, unless the time ran out or the signal aborted. `timeoutMs` 0 = no limit. */
  wait(replica: ReplicaId, number: number, timeoutMs: number, signal?: AbortSignal): Promise<number> {
    const current = (): number => this.#applied().get(replica)?.number ?? 0;
    if (current() >= number || signal?.aborted === true) return Promise.resolve(current());
    if (this.#waiters.size >= MAX_WAITERS) {
      return Promise.reject(new LimitError(`more than ${MAX_WAITERS} requests wait for frames`));
    }
    return new Promise((resolve) => {
      let cancel = (): void => {};
      const finish = (): void => {
        this.#waiters.delete(waiter);
        cancel();
        signal?.removeEventListener('abort', finish);
        resolve(current());
      };
      const waiter: Waiter = { replica, number, finish };
      this.#waiters.add(waiter);
      if (timeoutMs > 0) cancel = this.#timers.after(timeoutMs, finish);
      signal?.addEventListener('abort', finish);
    });
  }

  /** Something was applied: lets those go who waited for it. */
  check(): void {
    if (this.#waiters.size === 0) return;
    const applied = this.#applied();
    for (const waiter of [...this.#waiters]) {
      if ((applied.get(waiter.replica)?.number ?? 0) >= waiter.number) waiter.finish();
    }
  }

  /** Lets everyone go. */
  stop(): void {
    for (const waiter of [...this.#waiters]) waiter.finish();
  }
}
