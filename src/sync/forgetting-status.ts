/**
 * What an operator sees of forgetting: up to when all is stable, and whom it waits for. A member that is away keeps every other from
 * dropping what is left of deleted keys, until it is back or an operator has it forgotten (MESH FORGET).
 */
import type { ReplicaId } from '../../crdts/dot.js';
import { type Stamp, stampMs } from '../../crdts/stamp.js';
import type { ForgettingStatus } from '../engine.js';
import type { AppliedMark } from '../store/store.js';
import type { Member } from './members.js';

export interface ForgettingFacts {
  /** The members that count. */
  readonly counted: readonly Member[];
  readonly stable: Stamp;
  /** What this node has applied. */
  readonly applied: ReadonlyMap<ReplicaId, AppliedMark>;
  readonly counters: { readonly forgotten: number; readonly swept: number };
  readonly nowMs: number;
  /** A member that is unheard for as long is away. What lags by less is on its way. */
  readonly silentMs: number;
}

export function forgettingStatus(facts: ForgettingFacts): ForgettingStatus {
  const { counted, stable, counters } = facts;
  return {
    stableMs: stable === 0 ? null : stampMs(stable),
    members: counted.map(({ peerId }) => peerId),
    waitingFor: counted.filter((member) => holdsBack(member, facts)).map(({ peerId }) => peerId),
    forgotten: counters.forgotten,
    swept: counters.swept,
  };
}

function holdsBack(member: Member, { applied, stable, nowMs, silentMs }: ForgettingFacts): boolean {
  const { connected, heardAtMs, refused, reports } = member;
  if (!connected || refused !== null || heardAtMs === 0 || nowMs - heardAtMs > silentMs) return true;
  if (reports.current === null) return true;
  if (stable > 0 && nowMs - stampMs(stable) <= silentMs) return false;
  const has = reports.current.applied;
  return [...applied.values()].some(({ replica, number }) => (has.get(replica)?.number ?? 0) < number);
}
