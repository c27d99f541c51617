/**
 * Siblings: nodes that use one store, so that a region stays there when one of them dies.
 *
 * **Who is one.** Every store has a name for its data at the place where they are (StoreFacts.place); members tell theirs in their
 * heartbeats, and those with the same one are siblings. Nothing is configured. A backup that was loaded into another server has another
 * place, so who uses that is no sibling. Each node keeps an identity in the store, which stays when it dies.
 *
 * **What they share** is all that is in the store: keys, applied vector, logs, notes. Each makes its own frames under its own replica id,
 * with its own number, stamp and log. Every commit compares what it was built on, so whatever the two believe of each other, nothing is
 * applied twice and nothing is overwritten unseen. All that follows only keeps them from doing work twice.
 *
 * **Who applies what other regions send.** Of the siblings that are present, the one with the least PeerId *leads*: it applies frames, repairs
 * gaps, transfers states, compares digests. The others *follow*: they hold frames back until the store says that they are applied
 * (store-view.ts). When the leader is gone, or silent, the next one leads at once, with what it holds. Two who can't hear
 * each other both lead; then one of every two commits is stale, and the store stays right. Between siblings nothing is transferred.
 *
 * **A sibling's own frames** are committed in the store before they are sent, so they are never merged: they tell which keys to load anew,
 * and how far causal delivery is. The applied vector that a node reports is only ever raised by its own commits and by what it reads in the
 * store. Where that is less than it was, the store has lost data: the node begins a new epoch, though its own frames may all be there.
 *
 * **When one dies.** It is waited for like any member, since it may have made frames that nobody has heard. But those are in
 * the store, so another node on it can say so in its place: it *retires* the dead one. That takes its identity from the store, and its right to
 * commit; only then is the applied vector read that tells its last frame, and the member forgotten (succession.ts). Who is retired by
 * mistake, or returns, begins a new epoch and is a new member, with all data there. A member's report is
 * taken for its store only together with those of all whom it names as siblings (Members.heard). So from the moment in which a sibling is
 * forgotten until it is retired, no report of that store counts.
 *
 * **Whether to drop data.** Data that are behind what others have forgotten are dropped by whichever finds out first, once: the store refuses
 * the second (Store.clear). A node that was forgotten by the others drops the data only if it is alone on them; else the others vouch for
 * them, and it only begins anew itself.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { PeerId } from '../mesh/mesh.js';
import type { StoreFacts } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Member, Members } from './members.js';

export interface SiblingsOptions {
  readonly self: PeerId;
  readonly members: Members;
  readonly timers: Timers;
  readonly heartbeatMs: number;
}

/** A sibling that is unheard for as many heartbeats doesn't lead. */
const LEADS_HEARTBEATS = 5;

export class Siblings {
  readonly #options: SiblingsOptions;
  #place = '';
  #named: readonly PeerId[] = [];

  constructor(options: SiblingsOptions) {
    this.#options = options;
  }

  /** Takes in what the store says. */
  read({ place, identities }: Pick<StoreFacts, 'place' | 'identities'>): void {
    this.#place = place;
    this.#named = identities.map(({ peerId }) => peerId).filter((peerId) => peerId !== this.#options.self);
  }

  /** Names this node's store. */
  get place(): string {
    return this.#place;
  }

  /** Other nodes that use this store, or have done so and are not retired. */
  get named(): readonly PeerId[] {
    return this.#named;
  }

  /** Says whether a member uses the same store now. */
  has(peerId: PeerId): boolean {
    return this.#isOne(this.#options.members.get(peerId));
  }

  /** Says whether other nodes use the store, or may. */
  get any(): boolean {
    return this.#named.length > 0 || this.#options.members.all().some((member) => this.#isOne(member));
  }

  /** Says whether this node is the one that applies what others send. */
  get leads(): boolean {
    const { self, members, timers, heartbeatMs } = this.#options;
    const sinceMs = timers.now() - LEADS_HEARTBEATS * heartbeatMs;
    return !members
      .present()
      .some((member) => member.peerId < self && member.heardAtMs >= sinceMs && this.#isOne(member));
  }

  /** Says whether a replica is one under which a sibling makes frames now. */
  makes(replica: ReplicaId): boolean {
    return this.#options.members.all().some((member) => member.replica === replica && this.#isOne(member));
  }

  #isOne(member: Member | undefined): boolean {
    return (
      member !== undefined && member.refused === null && this.#place !== '' && member.place === this.#place
    );
  }
}
