/**
 * Replica identity: under which id may this node make dots?
 *
 * Invariant: no dot, count or frame number is ever used twice. A node that was not shut down cleanly, or whose store lost
 * data, can't know what it had already told others: it begins a new *epoch*, that is, a new replica id. An epoch is the
 * time at which it began, so even a node whose store was wiped doesn't repeat one.
 */
import type { ReplicaId } from '../crdts/dot.js';
import { STAMP_EPOCH_MS } from '../crdts/stamp.js';
import { replicaHash } from './mesh/identity.js';
import type { PeerId } from './mesh/mesh.js';
import type { StoreFacts } from './store/store.js';

/** The epoch that begins at a Unix time. */
export function epochAt(nowMs: number): number {
  return Math.max(0, Math.floor(nowMs) - STAMP_EPOCH_MS);
}

/** The epoch of a replica id, in milliseconds since 2020; 0 when it has none. */
export function epochOf(replica: ReplicaId): number {
  const epoch = Number.parseInt(replica.slice(replica.indexOf('.') + 1), 36);
  return Number.isSafeInteger(epoch) ? epoch : 0;
}

/** Says whether two ids belong to one identity, and the first to the later epoch: then the other one is retired. */
export function isLaterEpoch(replica: ReplicaId, than: ReplicaId): boolean {
  const identity = replica.slice(0, replica.indexOf('.') + 1);
  return identity !== '' && than.startsWith(identity) && epochOf(replica) > epochOf(than);
}

/** The id to begin a new epoch with: later than every epoch of this identity that the store has heard of. */
export function newReplicaId(peer: PeerId, facts: StoreFacts, nowMs: number, current?: ReplicaId): ReplicaId {
  const hash = replicaHash(peer);
  let latest = 0;
  const known = [...facts.applied.map((mark) => mark.replica), facts.identity?.replica, current];
  for (const replica of known) {
    if (replica?.startsWith(`${hash}.`) === true) latest = Math.max(latest, epochOf(replica));
  }
  return `${hash}.${Math.max(latest + 1, Math.floor(nowMs) - STAMP_EPOCH_MS).toString(36)}`;
}

/** The id to start with: the last one after a clean shutdown, else a new one. */
export function startReplicaId(peer: PeerId, facts: StoreFacts, nowMs: number): ReplicaId {
  const { identity } = facts;
  if (
    identity?.clean === true &&
    identity.peerId === peer &&
    identity.replica.startsWith(`${replicaHash(peer)}.`)
  ) {
    return identity.replica;
  }
  return newReplicaId(peer, facts, nowMs);
}

/** Says whether a store that comes back still has everything that this node committed to it. */
export function isIntact(facts: StoreFacts, replica: ReplicaId, lastFrame: number): boolean {
  const number = facts.applied.find((mark) => mark.replica === replica)?.number ?? 0;
  return facts.identity?.replica === replica && !facts.identity.clean && number >= lastFrame;
}
