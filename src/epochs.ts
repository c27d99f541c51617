/**
 * Epochs in a running node: when the last one is continued, when a new one begins, and what is dropped then. Why, and what an epoch is:
 * replica-identity.ts.
 */
import { StoreResetError } from './errors.js';
import type { PeerId } from './mesh/mesh.js';
import type { Logger } from './options.js';
import type { Replica } from './replica/replica.js';
import { identityIn, isIntact, newReplicaId } from './replica-identity.js';
import type { DropReason, Store, StoreFacts } from './store/store.js';
import type { Sync } from './sync/sync.js';
import type { Timers } from './timers.js';

export interface EpochsOptions {
  readonly self: PeerId;
  readonly store: Store;
  readonly replica: Replica;
  readonly sync: Sync;
  readonly timers: Timers;
  readonly logger: Logger;
  /** A new epoch has begun: the log of the last one is of no use any more. */
  readonly onBegun: () => void;
}

/** How long a start waits for the other members to agree that the last epoch can be continued. */
const AGREE_MS = 1_000;
/** Least time between two epochs that are begun because of what another member says: one that is broken must not make more and more of them. */
const OVERTAKEN_MS = 10_000;

export class Epochs {
  readonly #options: EpochsOptions;
  /** An epoch that must not be continued, whatever the store says. */
  #spent: string | null = null;
  #overtakenMs = Number.NEGATIVE_INFINITY;

  constructor(options: EpochsOptions) {
    this.#options = options;
  }

  /** Stores who this node is, beside the others that use the store. */
  save(replica: string, clean: boolean): Promise<void> {
    const { store, self, sync } = this.#options;
    return store.saveIdentity({ peerId: self, replica, born: sync.born, clean });
  }

  /**
   * Goes on under the last epoch, if every other member that is known agrees; else begins a new one. Nothing is written before
   * that. Why: replica-identity.ts.
   */
  async continueLast(facts: StoreFacts): Promise<void> {
    const { timers, replica, sync } = this.#options;
    const { id } = replica;
    if (id !== identityIn(facts, this.#options.self)?.replica) return;
    const deadline = timers.now() + AGREE_MS;
    const pause = (): Promise<void> => new Promise((resolve) => timers.after(10, resolve));
    const silent = (): boolean => sync.silentIdentities(facts.applied).length > 0;
    while (id !== this.#spent && silent() && timers.now() < deadline) await pause();
    if (id === replica.id && id !== this.#spent && silent())
      this.begin('not every member has said that it has no more frames of the last epoch');
    while (this.#spent === id && replica.id === id) await pause();
  }

  /** A member has frames of this epoch that this node has lost. */
  overtaken(peer: string, number: number): void {
    const { replica, timers, logger } = this.#options;
    const now = timers.now();
    const fields = { peer, replica: replica.id, theirs: number, own: replica.lastFrame };
    if (this.#spent === replica.id) return;
    if (now - this.#overtakenMs < OVERTAKEN_MS) {
      logger.error(fields, 'a member claims again to have frames of this node that it has not made');
      return;
    }
    this.#overtakenMs = now;
    logger.error(fields, 'a member has frames of this node that its store has not: it was rolled back');
    this.begin('another member has frames of this epoch that are lost here');
  }

  /** The store has fewer frames than it had, be they this node's or those of another one that uses it. */
  regressed(): void {
    const { replica, logger } = this.#options;
    if (this.#spent === replica.id) return;
    logger.error({ replica: replica.id }, 'the store has fewer frames than it had: it was rolled back');
    this.begin('the store has lost frames that were applied');
  }

  /**
   * The store has lost data. Another node on it may bring this one's frames back before it is opened again, so that nothing seems to be
   * missing; but a frame whose commit was under way may have been read there, and told, and is gone.
   */
  lost(): void {
    this.#spent = this.#options.replica.id;
  }

  /** Makes no further frame under the running epoch. */
  begin(reason: string): void {
    const { replica } = this.#options;
    this.#spent = replica.id;
    replica.reopen(new StoreResetError(reason));
  }

  /** The store is back: gives the replica id to go on with, already stored there. */
  async returned(facts: StoreFacts): Promise<string> {
    const { self, replica, sync, timers, logger } = this.#options;
    let { id } = replica;
    if (id === this.#spent || !isIntact(facts, self, id, replica.lastFrame)) {
      const lost = id;
      id = newReplicaId(self, facts, timers.now(), lost);
      sync.returned(facts, id);
      await this.save(id, false);
      this.#options.onBegun();
      logger.warn(
        { lost, replica: id },
        'the store came back without all that was committed: a new epoch begins',
      );
    } else sync.returned(facts, id);
    return id;
  }

  /**
   * Begins anew, because this region's data can't be merged with the others' any more: drops them, and goes on as after a store that
   * lost everything. `drop` = null: other nodes on the store vouch for the data, and only this one begins anew.
   */
  async beginAnew(reason: string, drop: DropReason | null): Promise<void> {
    const { store, replica, sync, logger } = this.#options;
    const fields = { reason, replica: replica.id, frames: replica.lastFrame };
    if (drop === null) {
      logger.warn(fields, 'this node begins anew, with the data of the other nodes on its store');
      this.begin('this node begins anew');
      return;
    }
    logger.error(fields, "this region's data is dropped, and fetched anew from the other regions");
    try {
      await store.clear(drop);
    } catch (error) {
      // Another node on the store has done it already: then the store is only opened again.
      if (!(error instanceof StoreResetError)) {
        logger.error({ err: error as Error }, "this region's data could not be dropped yet");
        return sync.outcastAgain();
      }
    }
    replica.reopen(new StoreResetError('this region begins anew'));
  }
}
