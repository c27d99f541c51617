/**
 * What other nodes do to this node's store (siblings.ts): reads the facts again, with each heartbeat, after a commit that was stale, and
 * soon when something waits for it.
 */
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, Store, StoreFacts } from '../store/store.js';
import type { Timers } from '../timers.js';

export interface StoreViewOptions {
  readonly store: Pick<Store, 'refresh'>;
  readonly replica: Pick<Replica, 'applied' | 'available' | 'learn'>;
  readonly timers: Timers;
  /** The facts as they are now, and which marks are new. */
  readonly onFacts: (facts: StoreFacts, news: readonly AppliedMark[]) => void;
  /** The store has fewer frames than it had. */
  readonly onRegress: () => void;
}

/** Least time between two reads that are wanted soon. */
const SOON_MS = 20;

export class StoreView {
  readonly #options: StoreViewOptions;
  #reading: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #planned = false;

  constructor(options: StoreViewOptions) {
    this.#options = options;
  }

  /** Reads the facts; what they tell is taken in when it resolves. Rejects as the store does. */
  refresh(): Promise<void> {
    if (this.#reading === null) return this.#begin();
    // What is being read may be older than what the caller has heard of.
    this.#next ??= this.#reading.then(
      () => this.#begin(),
      () => this.#begin(),
    );
    return this.#next;
  }

  /** Reads them before long. */
  soon(): void {
    if (this.#planned) return;
    this.#planned = true;
    this.#options.timers.after(SOON_MS, () => {
      this.#planned = false;
      if (this.#options.replica.available) this.refresh().catch(() => {});
    });
  }

  #begin(): Promise<void> {
    this.#next = null;
    const reading = this.#read().finally(() => {
      if (this.#reading === reading) this.#reading = null;
    });
    this.#reading = reading;
    return reading;
  }

  async #read(): Promise<void> {
    const { store, replica, onFacts, onRegress } = this.#options;
    const before = new Map(replica.applied);
    const facts = await store.refresh();
    // Should it have been opened again meanwhile, it has said all anew.
    if (!replica.available) return;
    const news = replica.learn(facts.applied, before);
    if (news === null) onRegress();
    else onFacts(facts, news);
  }
}
