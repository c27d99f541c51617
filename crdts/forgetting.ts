/**
 * When a key that is gone may be forgotten: its tombstones dropped from the state, as if it had never been.
 *
 * A *tombstone* is what a removal leaves behind, so that what it removed isn't taken for new: the stamp of a DEL, the context
 * of a set, the resets of a counter. A key is *dead* when nothing but tombstones is left of it: no value, no count, no member, no
 * deadline.
 *
 * The rule: a dead key may be forgotten once its `touched` is not above the **stable stamp** S, the stamp up to which every
 * member has applied the frames of every replica.
 *
 * Why that is safe. Let X forget the key, whose state is K.
 * 1. All frames that made K are stamped up to `touched` ≤ S. So every member has applied them: every state of the key
 *    elsewhere holds all of K, and none of those frames comes to X again.
 * 2. So a frame that X hasn't seen yet was made by a member that had applied everything up to S: on a state that holds K.
 *    It is also stamped above S, since that member's clock had passed S. It found removed what K removed. It can't continue a count
 *    that K resets, nor name a member by an add that K removed, nor be older than K's DEL: merged into nothing, it gives the
 *    same live data as merged into K.
 * 3. What X writes next, on a state that knows nothing of K, says nothing of K. It needn't: elsewhere nothing of K lives.
 *
 * Step 3 is why an expired key is not dead, nor an emptied set that still has its deadline. They are only judged to be gone, and hold live
 * data. Were X to forget them, its next write would not remove them elsewhere; merged there, it would come back to life beside
 * them, or inherit a deadline that X doesn't have. So they are *swept* first, by a frame that removes all that is left, as
 * DEL does; that makes them dead, for the rule above.
 *
 * When to sweep: when `touched` ≤ S and the deadline is not after S either. An operation judges expiry by its own time, which is
 * at least its replica's clock (transaction.ts, `nowMs`). So whoever operates after S finds the key gone, and nobody can be extending its
 * life at the same time. Before that, one may, and a sweep would undo it.
 *
 * What the caller owes:
 * - **Reports in order.** A member's report of what it has applied counts here only once all frames that it had made before
 *   the report are applied here. (A report that rides on a frame is in order by itself; one in a message of its own must tell the
 *   member's own frame number, and wait for that frame.) A report that overtakes a frame breaks step 2: that frame may continue
 *   a count that K resets, and X shows more than the others for ever.
 * - S is the least over all members *and* all replicas, retired ones included ({@link stableStamp}).
 * - A member that lost what it had reported (an older backup) re-enters as new: it takes the others' states, and never offers
 *   its own. The same goes for a member that was forgotten and returns.
 *
 * Dots don't tell when to forget. They say when something was added; an SREM, and a DEL of a counter, have no dot of their own.
 */
import type { ReplicaId } from './dot.js';
import { isExpired, type KeyState, winningType } from './key-state.js';
import { type Stamp, stampMs } from './stamp.js';

/**
 * The stable stamp: the stamp up to which every member has applied every replica. 0 while a member knows nothing of a replica
 * that another one knows, and with no members.
 *
 * @param applied what each member has applied, this one and its own frames included: replica → stamp of the last frame
 */
export function stableStamp(applied: readonly ReadonlyMap<ReplicaId, Stamp>[]): Stamp {
  let stable = Number.POSITIVE_INFINITY;
  for (const replica of new Set(applied.flatMap((vector) => [...vector.keys()]))) {
    for (const vector of applied) stable = Math.min(stable, vector.get(replica) ?? 0);
  }
  return Number.isFinite(stable) ? stable : 0;
}

function hasDeadline(state: KeyState): boolean {
  return state.expiry !== null && state.expiry.siblings.size > 0;
}

/** Says whether a key may be forgotten at a stable stamp: nothing lives, and every member knows it. Needs no values and no members. */
export function isForgettable(state: KeyState, stable: Stamp): boolean {
  return state.touched <= stable && winningType(state) === 'none' && !hasDeadline(state);
}

/**
 * Says whether a key should be swept at a stable stamp: it is gone for every member, but something of it lives. Any member may
 * do that, and it does no harm when several do.
 */
export function isSweepable(state: KeyState, stable: Stamp): boolean {
  if (state.touched > stable || !hasDeadline(state)) return false;
  return winningType(state) === 'none' || isExpired(state, stampMs(stable));
}
