/**
 * Standing: which members are forgotten, and what this node does when it is one of them, or its data are too old to be merged.
 *
 * A member that is gone for good is forgotten by an operator's word, or by a node that goes on for it (succession.ts). It spreads with
 * heartbeats. Should the member return, what it still has may bring back what the others have deleted and forgotten since; so it drops its
 * data and begins anew, later than the epoch up to which it was forgotten. Where other nodes use the same store that are not
 * forgotten, the data stay: those were counted all the time. Then only the node itself begins anew.
 */
import { ArgumentError, PeerError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { RecentFrames } from '../replica/recent-frames.js';
import type { Replica } from '../replica/replica.js';
import { epochAt, epochOf, identityIn } from '../replica-identity.js';
import type { DropReason, StoreFacts } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Members } from './members.js';
import type { Heartbeat } from './messages.js';
import type { Siblings } from './siblings.js';

export interface StandingOptions {
  readonly self: PeerId;
  readonly members: Members;
  readonly siblings: Siblings;
  readonly replica: Pick<Replica, 'id'>;
  readonly recent: RecentFrames;
  readonly timers: Timers;
  readonly logger: Logger;
  /** The epoch in which this node began to use its data. */
  readonly born: number;
  /** Name of the data; see StoreFacts.dataset. */
  readonly dataset: string;
  /** This node must begin anew. `drop`: why its data must be dropped; null = they stay. */
  readonly onOutcast: (reason: string, drop: DropReason | null) => void;
  /** A member was forgotten. */
  readonly onForgotten: (peerId: PeerId) => void;
}

export class Standing {
  readonly #options: StandingOptions;
  #born: number;
  #dataset: string;
  /** While this node begins anew: it must be later than this epoch. -1 = it doesn't. */
  #bound = -1;

  constructor(options: StandingOptions) {
    this.#options = options;
    this.#born = options.born;
    this.#dataset = options.dataset;
  }

  /** The epoch in which this node began to use its data. */
  get born(): number {
    return this.#born;
  }

  /**
   * Forgets a member that is gone for good: nothing waits for it any more, and should it return, it begins anew.
   * Throws ArgumentError when it is this node, unknown, or connected.
   */
  forget(peerId: PeerId): void {
    const { self, members, timers, logger } = this.#options;
    const member = members.get(peerId);
    if (peerId === self) throw new ArgumentError('a node can not forget itself: say it to another one');
    if (member === undefined || (!member.counts && member.refused === null))
      throw new ArgumentError(`${peerId} is no member: MESH PEERS lists them`);
    if (member.connected)
      throw new ArgumentError(
        `${peerId} is connected: stop it first; only a member that is gone can be forgotten`,
      );
    // Whatever it was until now is forgotten.
    members.forget({ peerId, born: Math.max(member.born, epochAt(timers.now())) });
    logger.warn(
      { peer: peerId, region: member.region },
      'a member is forgotten: if it returns, it begins anew',
    );
  }

  /** Takes in whom another member has forgotten. Throws PeerError when its sender is itself forgotten, or this node is. */
  hear(from: PeerId, heartbeat: Heartbeat): void {
    const { self, members, logger } = this.#options;
    const bound = boundOf(heartbeat, self);
    const outcast = this.#born <= bound;
    if (members.isForgotten(from, heartbeat.born)) {
      const reason = outcast
        ? 'it and this node have each forgotten the other: start one of them with an empty store'
        : 'it was forgotten, and has not begun anew yet';
      members.refuse(from, heartbeat, reason);
      this.#options.onForgotten(from);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    if (outcast) this.#castOut(from, heartbeat, bound);
    for (const forgotten of heartbeat.forgotten) {
      if (forgotten.peerId === self || !members.forget(forgotten)) continue;
      logger.warn(
        { peer: forgotten.peerId, by: from },
        'a member was forgotten: if it returns, it begins anew',
      );
      this.#options.onForgotten(forgotten.peerId);
    }
  }

  #castOut(from: PeerId, heartbeat: Heartbeat, bound: number): never {
    const { siblings, replica, recent } = this.#options;
    const reason = `${from} says that this node was forgotten`;
    // Others on the store were counted all the time, and so was all that is there.
    if (siblings.named.some((peerId) => boundOf(heartbeat, peerId) < 0)) this.#outcast(reason, bound, null);
    // What only this node had was written without the others waiting for it: merging it could bring back what they have deleted. Not
    // so what an epoch wrote that began after it was forgotten: it continues nothing.
    recent.keepOnly(epochOf(replica.id) > bound ? replica.id : null);
    this.#outcast(reason, bound, 'forgotten');
  }

  /** This node's data are behind what `peer` has forgotten. Throws PeerError. */
  outdated(peer: PeerId): never {
    this.#outcast(`${peer} has forgotten deletions that this node has not seen`, -1, 'outdated');
  }

  /** Begins anew, unless it is at it. Throws PeerError. */
  #outcast(reason: string, bound: number, drop: DropReason | null): never {
    const begun = this.#bound >= 0;
    this.#bound = Math.max(this.#bound, bound, this.#born);
    if (!begun) this.#options.onOutcast(reason, drop);
    throw new PeerError(`${reason}: it begins anew`);
  }

  /** The data could not be dropped: it is tried again when the next member says so. */
  outcastAgain(): void {
    this.#bound = -1;
  }

  /** The store is back; `id` is what this node goes on as. */
  returned(facts: StoreFacts, id: string): void {
    const { self, members, recent } = this.#options;
    const own = identityIn(facts, self);
    // Another node has dropped the data because they were forgotten: nor must they come back out of this node's memory.
    const { dropped } = facts;
    if (this.#bound < 0 && dropped?.dataset === this.#dataset && dropped.reason === 'forgotten')
      recent.keepOnly(null);
    if (own === undefined || this.#bound >= 0) {
      this.#born = Math.max(epochOf(id), this.#bound + 1);
      this.#bound = -1;
    }
    if (facts.notes === null) members.forgiveAll();
    this.#dataset = facts.dataset;
  }
}

/** The epoch up to which a member is forgotten; -1 = it isn't. */
function boundOf({ forgotten }: Heartbeat, peer: PeerId): number {
  return forgotten.find(({ peerId }) => peerId === peer)?.born ?? -1;
}
