/**
 * Version vector: for each replica, the stamp up to which everything is known (Parker et al., 1983).
 *
 * It has no gaps, so it is only right where deltas are delivered causally: a replica's operations in their order, and
 * each after what it superseded. The mesh guarantees that; who applies deltas by hand must too.
 */
import type { ReplicaId } from './dot.js';
import type { Stamp } from './stamp.js';

/** Replica → the greatest stamp known of it. A missing replica counts as 0. */
export type VersionVector = Map<ReplicaId, Stamp>;

/** Says whether a vector covers a dot. */
export function covers(vector: ReadonlyMap<ReplicaId, Stamp>, replica: ReplicaId, stamp: Stamp): boolean {
  return (vector.get(replica) ?? 0) >= stamp;
}

/** Says whether `a` covers everything that `b` covers. */
export function dominates(a: ReadonlyMap<ReplicaId, Stamp>, b: ReadonlyMap<ReplicaId, Stamp>): boolean {
  for (const [replica, stamp] of b) if (!covers(a, replica, stamp)) return false;
  return true;
}

/** Raises one replica's entry; says whether it grew. */
export function raise(vector: VersionVector, replica: ReplicaId, stamp: Stamp): boolean {
  if (covers(vector, replica, stamp)) return false;
  vector.set(replica, stamp);
  return true;
}

/** Joins `from` into `into` by taking the greater stamp of each replica; says whether `into` grew. */
export function mergeVectors(into: VersionVector, from: ReadonlyMap<ReplicaId, Stamp>): boolean {
  let grew = false;
  for (const [replica, stamp] of from) if (raise(into, replica, stamp)) grew = true;
  return grew;
}
