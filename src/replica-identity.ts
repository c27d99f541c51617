/**
 * Replica identity: under which id may this node make dots?
 *
 * Invariant: no dot, count or frame number is ever used twice. A node that was not shut down cleanly, or whose store lost
 * data, can't know what it had already told others: it begins a new *epoch*, that is, a new replica id. An epoch is the
 * time at which it began, so even a node whose store was wiped doesn't repeat one.
 *
 * **When an epoch is continued.** Only after a clean shutdown, and then only if
 * - the store says that it is clean: it was told so last, and can't be an older copy. For Valkey that means that the same server
 *   process still runs (its run id): a restart reads files that may be a backup, or an append-only file that lost its end,
 *   with or without the mark. The mark is consumed before anything else is written;
 * - and every member that is known greets within a moment, and none has more frames of that epoch than the store. For a running
 *   server can be given older data too: REPLICAOF an old copy and back, DEBUG RELOAD of an older file, FLUSHALL and RESTORE, a
 *   machine put back to a snapshot with its memory. A copy from before the last clean start has a mark as well. Operations are taken only after that.
 * Whoever is away may have heard frames that the store has lost, so with a member away there is a new epoch. It costs one more
 * name in every vector; a number that is used twice costs data. What stays open: older data *with a mark*, put under a stopped
 * node in the same server process, when the frames that are lost with it were heard only by members that the older data don't
 * know and that nobody who greets counts.
 *
 * **While it runs** a rollback shows in the store: each commit, and each sign of life that the node asks for when it has nothing to do,
 * finds the writer's record of commit-script.ts behind what was acknowledged. And it shows in others: a member that
 * says that it has more of this node's frames than the node itself proves that their numbers are used up. Either way a new epoch begins
 * before any further frame is made. What was lost is then a retired replica's: this node's memory applies its frames again,
 * and what others have comes by repair (sync/repairs.ts); what nobody has is told in sync/holes.ts.
 *
 * **Several nodes on one store** (sync/siblings.ts) have an identity each, by PeerId, with its own clean mark: only this node's own commits
 * concern it. A rollback may spare this node's frames and take those of another one, that this node has reported as applied: the stored
 * applied vector, read with each heartbeat and each new connection, shows it, and a new epoch begins as well. An identity that another node has
 * taken away, because this one seemed gone, is not there any more: a new epoch again.
 */
import type { ReplicaId } from '../crdts/dot.js';
import { STAMP_EPOCH_MS } from '../crdts/stamp.js';
import { replicaHash } from './mesh/identity.js';
import type { PeerId } from './mesh/mesh.js';
import type { StoredIdentity, StoreFacts } from './store/store.js';

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

/** A node's identity in its store; undefined when it has none there. */
export function identityIn({ identities }: StoreFacts, peer: PeerId): StoredIdentity | undefined {
  return identities.find(({ peerId }) => peerId === peer);
}

/** The id to begin a new epoch with: later than every epoch of this identity that the store has heard of. */
export function newReplicaId(peer: PeerId, facts: StoreFacts, nowMs: number, current?: ReplicaId): ReplicaId {
  const hash = replicaHash(peer);
  let latest = 0;
  const known = [...facts.applied.map((mark) => mark.replica), identityIn(facts, peer)?.replica, current];
  for (const replica of known) {
    if (replica?.startsWith(`${hash}.`) === true) latest = Math.max(latest, epochOf(replica));
  }
  return `${hash}.${Math.max(latest + 1, Math.floor(nowMs) - STAMP_EPOCH_MS).toString(36)}`;
}

/** The id to start with: the last one after a clean shutdown, else a new one. */
export function startReplicaId(peer: PeerId, facts: StoreFacts, nowMs: number): ReplicaId {
  const identity = identityIn(facts, peer);
  if (identity?.clean === true && identity.replica.startsWith(`${replicaHash(peer)}.`))
    return identity.replica;
  return newReplicaId(peer, facts, nowMs);
}

/** Says whether a store that comes back still has everything that this node committed to it. */
export function isIntact(facts: StoreFacts, peer: PeerId, replica: ReplicaId, lastFrame: number): boolean {
  const number = facts.applied.find((mark) => mark.replica === replica)?.number ?? 0;
  const identity = identityIn(facts, peer);
  return identity?.replica === replica && !identity.clean && number >= lastFrame;
}
