/**
 * Succession: a node that is gone, and whose store another node uses, needn't be waited for. All that it ever made is there.
 *
 * A node has an identity in its store. One that has not been heard for a while, nor has given a sign of life in the store, is retired:
 * its identity goes, and with it its right to commit. The applied vector that is read after that tells its last frame. Then it is forgotten,
 * here and on every member that hears of it. The same goes for an identity that this node's operator has replaced by another one,
 * and for one whose node has moved to another store; that one is no longer named here, and not forgotten.
 *
 * A node that lives shows it in the store now and then, so nobody retires it only because the mesh between the two is broken.
 */
import type { PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import { epochAt } from '../replica-identity.js';
import type { Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Member, Members } from './members.js';
import type { Siblings } from './siblings.js';

export interface SuccessionOptions {
  readonly members: Members;
  readonly siblings: Siblings;
  readonly store: Pick<Store, 'retire'>;
  readonly timers: Timers;
  readonly logger: Logger;
  readonly heartbeatMs: number;
  /** Shows in the store that this node lives. */
  readonly showLife: () => Promise<void>;
  /** Reads what the store holds. */
  readonly refresh: () => Promise<void>;
  /** A node was retired, and the store has been read since. */
  readonly onRetired: () => void;
}

/** Heartbeats for which another node on the store must be unheard. */
const SILENT_HEARTBEATS = 30;
/** A sign of life each so many heartbeats. */
const LIFE_HEARTBEATS = 10;

export class Succession {
  readonly #options: SuccessionOptions;
  /** Since when each of the others is silent. */
  readonly #sinceMs = new Map<PeerId, number>();
  #lifeMs = Number.NEGATIVE_INFINITY;
  #busy = false;

  constructor(options: SuccessionOptions) {
    this.#options = options;
  }

  /** Looks after the others on the store. Never rejects: what fails is tried again with the next heartbeat. */
  async look(): Promise<void> {
    const { siblings, timers, heartbeatMs, showLife } = this.#options;
    const now = timers.now();
    for (const peerId of this.#sinceMs.keys())
      if (!siblings.named.includes(peerId)) this.#sinceMs.delete(peerId);
    for (const peerId of siblings.named) if (this.#isHere(peerId, now)) this.#sinceMs.set(peerId, now);
    if (siblings.named.length === 0 || this.#busy) return;
    this.#busy = true;
    try {
      if (now - this.#lifeMs >= LIFE_HEARTBEATS * heartbeatMs) {
        this.#lifeMs = now;
        await showLife();
      }
      for (const [peerId, sinceMs] of this.#sinceMs)
        if (now - sinceMs >= SILENT_HEARTBEATS * heartbeatMs) await this.#retire(peerId, sinceMs);
    } catch (error) {
      this.#options.logger.debug(
        { err: error as Error },
        'another node on the store could not be looked after',
      );
    } finally {
      this.#busy = false;
    }
  }

  /** Says whether a node was heard since the last look and uses the store, or none at the moment; the first look counts as such. */
  #isHere(peerId: PeerId, now: number): boolean {
    const sinceMs = this.#sinceMs.get(peerId);
    if (sinceMs === undefined) return true;
    const member = this.#options.members.get(peerId);
    if (member === undefined || member.heardAtMs <= sinceMs || member.heardAtMs > now) return false;
    return this.#options.siblings.has(peerId) || member.place === '';
  }

  async #retire(peerId: PeerId, sinceMs: number): Promise<void> {
    const { members, store, timers, logger, heartbeatMs } = this.#options;
    if (!(await store.retire(peerId, SILENT_HEARTBEATS * heartbeatMs))) {
      this.#sinceMs.set(peerId, timers.now());
      return;
    }
    // Only what is read from here on is all that it has made.
    await this.#options.refresh();
    const member = members.get(peerId);
    if (this.#isElsewhere(member, sinceMs)) {
      logger.info({ peer: peerId }, 'a node that used this store before uses another one now');
    } else {
      members.forget({ peerId, born: Math.max(member?.born ?? 0, epochAt(timers.now())) });
      logger.warn(
        { predecessor: peerId },
        'this node goes on for another one that used its store and is gone; should that one return, it is a new member',
      );
    }
    this.#options.onRetired();
  }

  #isElsewhere(member: Member | undefined, sinceMs: number): boolean {
    return member !== undefined && member.heardAtMs > sinceMs;
  }
}
