/**
 * Gap repair: which frames are missing here, who has them, and when is it time to ask?
 *
 * A frame that was pushed usually arrives by itself; asking at once would fetch most of them twice. So a replica that is
 * behind must have been so for a while, without progress, before it is repaired. Pure: decisions only, no IO.
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
  /** Too far behind to go frame by frame: ask for whole states. */
  readonly far: boolean;
}

interface Behind {
  /** The last delivered number when it was noticed. */
  at: number;
  sinceMs: number;
}

export interface GapRepairOptions {
  /** How long a replica must have been behind without progress. Default: 200. */
  readonly graceMs?: number;
  /** More missing frames than this are fetched as states. Default: 5,000. */
  readonly maxFrames?: number;
}

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

  /** What to ask for now: at most one range per replica, of the member that made it where that is present. */
  due(
    delivered: ReadonlyMap<ReplicaId, AppliedMark>,
    present: readonly Member[],
    own: ReplicaId,
    nowMs: number,
  ): Repair[] {
    const heads = new Map<ReplicaId, { member: Member; number: number }>();
    for (const member of present) {
      for (const [replica, number] of member.applied) {
        const best = heads.get(replica);
        const better =
          best === undefined ||
          (member.replica === replica && best.member.replica !== replica) ||
          (number > best.number && best.member.replica !== replica);
        if (better) heads.set(replica, { member, number });
      }
    }
    const repairs: Repair[] = [];
    for (const [replica, { member, number }] of heads) {
      const at = delivered.get(replica)?.number ?? 0;
      if (number <= at || replica === own) {
        this.#behind.delete(replica);
        continue;
      }
      const behind = this.#behind.get(replica);
      if (behind === undefined || behind.at !== at) {
        this.#behind.set(replica, { at, sinceMs: nowMs });
        if (number - at <= this.#maxFrames) continue;
      } else if (nowMs - behind.sinceMs < this.#graceMs) continue;
      repairs.push({
        peer: member.peerId,
        replica,
        from: at + 1,
        to: number,
        far: number - at > this.#maxFrames,
      });
    }
    return repairs;
  }
}
