/**
 * Gap repair: which frames are missing here, who has them, and when is it time to ask?
 *
 * A frame that was pushed usually arrives by itself; asking at once would fetch most of them twice. So a replica that is
 * behind must have been so for a while, without progress, before it is repaired. What doesn't help is tried again, of
 * each member that has the frames in turn, at growing distances; and as whole states, should frames not do: one may be
 * impossible to merge. Pure: decisions only, no IO.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { PeerId } from '../mesh/mesh.js';
import type { AppliedMark } from '../store/store.js';
import type { Member } from './members.js';

/** What to ask of whom. */
export interface Repair {
  readonly peer: PeerId;
  readonly replica: ReplicaId;
  readonly from: number;
  readonly to: number;
  /** Too far behind to go frame by frame, or frames did not help: ask for whole states. */
  readonly far: boolean;
}

/** What has come of each replica, whether it could be delivered yet or not. */
export interface Arrived {
  /** The first number that hasn't. */
  nextMissing(replica: ReplicaId): number;
  /** The greatest number that has. */
  lastKnown(replica: ReplicaId): number;
}

interface Behind {
  /** The first missing number when it was noticed. */
  readonly from: number;
  tries: number;
  nextMs: number;
}

export interface GapRepairOptions {
  /** How long a replica must have been behind without progress, doubled with each try that did not help. Default: 200. */
  readonly graceMs?: number;
  /** More missing frames than this are fetched as states. Default: 5,000. */
  readonly maxFrames?: number;
}

/** After so many tries for frames, every other one is for states. */
const FRAME_TRIES = 4;
/** The pause is doubled so often at most. */
const MAX_DOUBLINGS = 6;

export class GapRepair {
  readonly #graceMs: number;
  readonly #maxFrames: number;
  readonly #behind = new Map<ReplicaId, Behind>();

  constructor(options: GapRepairOptions = {}) {
    this.#graceMs = options.graceMs ?? 200;
    this.#maxFrames = options.maxFrames ?? 5_000;
  }

  /** How many frames of a replica are known to exist and are not delivered here. */
  static missing(
    replica: ReplicaId,
    delivered: ReadonlyMap<ReplicaId, AppliedMark>,
    members: readonly Member[],
  ): number {
    let head = 0;
    for (const member of members) head = Math.max(head, member.applied.get(replica) ?? 0);
    return Math.max(0, head - (delivered.get(replica)?.number ?? 0));
  }

  /** When something may be due next; null = nothing is behind. */
  get nextMs(): number | null {
    let next: number | null = null;
    for (const { nextMs } of this.#behind.values()) next = Math.min(next ?? nextMs, nextMs);
    return next;
  }

  /**
   * What to ask for now: at most one range per replica, first of the member that made it. `isHere`: replicas whose frames are all in
   * this node's store; `busy`: those that are being repaired already. What is given counts as tried.
   */
  due(
    arrived: Arrived,
    present: readonly Member[],
    isHere: (replica: ReplicaId) => boolean,
    busy: ReadonlySet<ReplicaId>,
    nowMs: number,
  ): Repair[] {
    const heads = new Map<ReplicaId, number>();
    for (const member of present) {
      const held = member.held.map((range) => range.replica);
      for (const replica of [member.replica, ...member.applied.keys(), ...held])
        heads.set(replica, Math.max(heads.get(replica) ?? 0, lastOf(member, replica, arrived)));
    }
    for (const replica of this.#behind.keys()) if (!heads.has(replica)) this.#behind.delete(replica);
    const repairs: Repair[] = [];
    for (const [replica, head] of heads) {
      const from = arrived.nextMissing(replica);
      if (from > head || isHere(replica)) {
        this.#behind.delete(replica);
        continue;
      }
      const behind = this.#notice(replica, from, head, nowMs);
      if (nowMs < behind.nextMs || busy.has(replica)) continue;
      const having = present.filter((member) => lastOf(member, replica, arrived) >= from);
      having.sort((a, b) => rank(b, replica) - rank(a, replica));
      const member = having[behind.tries % having.length]!;
      behind.tries += 1;
      behind.nextMs = nowMs + this.#graceMs * 2 ** Math.min(behind.tries, MAX_DOUBLINGS);
      const to = lastOf(member, replica, arrived);
      const far = to - from >= this.#maxFrames || (behind.tries > FRAME_TRIES && behind.tries % 2 === 1);
      repairs.push({ peer: member.peerId, replica, from, to, far });
    }
    return repairs;
  }

  #notice(replica: ReplicaId, from: number, head: number, nowMs: number): Behind {
    let behind = this.#behind.get(replica);
    if (behind === undefined || behind.from !== from) {
      const graceMs = head - from >= this.#maxFrames ? 0 : this.#graceMs;
      behind = { from, tries: 0, nextMs: nowMs + graceMs };
      this.#behind.set(replica, behind);
    }
    return behind;
  }
}

/** The last frame of a replica that a member says it has, applied or held back. */
export function lastClaimed(member: Member, replica: ReplicaId): number {
  const held = member.held.find((range) => range.replica === replica)?.last ?? 0;
  return Math.max(member.applied.get(replica) ?? 0, held);
}

/** The last frame of a replica that a member has: of its own it has what it sent, whatever it has told of them. */
function lastOf(member: Member, replica: ReplicaId, arrived: Arrived): number {
  const last = lastClaimed(member, replica);
  return member.replica === replica ? Math.max(last, arrived.lastKnown(replica)) : last;
}

/** Who made a replica's frames has them longest: in its log; then a former epoch's maker; then anyone. */
function rank(member: Member, replica: ReplicaId): number {
  if (member.replica === replica) return 2;
  const identity = member.replica.slice(0, member.replica.indexOf('.') + 1);
  return identity !== '' && replica.startsWith(identity) ? 1 : 0;
}
