/** Members: what this node knows of the others, from what they say themselves. */
import type { ReplicaId } from '../../crdts/dot.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Heartbeat } from './messages.js';

/** What is known of one other member. */
export interface Member {
  readonly peerId: PeerId;
  region: string;
  replica: ReplicaId;
  connected: boolean;
  /** Replica → number of the last frame that the member has applied. */
  applied: Map<ReplicaId, number>;
  /** Unix milliseconds; 0 = never. */
  heardAtMs: number;
  /** Why nothing is taken from the member, nor given to it, until it says something else of itself; null = it is welcome. */
  refused: string | null;
}

/** How many members that are not connected are remembered; the one unheard for longest goes first. */
const MAX_ABSENT_MEMBERS = 256;

export class Members {
  readonly #members = new Map<PeerId, Member>();

  get(peerId: PeerId): Member | undefined {
    return this.#members.get(peerId);
  }

  all(): Member[] {
    return [...this.#members.values()];
  }

  /** Members that are connected and have introduced themselves. */
  present(): Member[] {
    return this.all().filter((member) => member.connected && member.heardAtMs > 0 && member.refused === null);
  }

  setConnected(peerId: PeerId, connected: boolean): void {
    const member = this.#at(peerId);
    member.connected = connected;
    if (!connected && member.heardAtMs === 0) this.#members.delete(peerId);
  }

  /** Takes in what a member says of itself. */
  heard(peerId: PeerId, heartbeat: Heartbeat, nowMs: number): Member {
    const member = this.#at(peerId);
    member.region = heartbeat.region;
    member.replica = heartbeat.replica;
    member.heardAtMs = nowMs;
    member.refused = null;
    // A member that lost data and began again has applied less than it said before: believe the latest word.
    member.applied = new Map(heartbeat.applied.map((mark) => [mark.replica, mark.number]));
    return member;
  }

  /** Takes note of a member that doesn't fit; {@link heard} lifts it. */
  refuse(peerId: PeerId, heartbeat: Heartbeat, reason: string): void {
    const member = this.#at(peerId);
    member.region = heartbeat.region;
    member.replica = heartbeat.replica;
    member.applied = new Map();
    member.refused = reason;
  }

  /** The region of a replica: of a member that goes by it now, or went by another epoch of the same identity. */
  regionOf(replica: ReplicaId): string | undefined {
    const identity = replica.slice(0, replica.indexOf('.') + 1);
    for (const member of this.#members.values())
      if (member.replica.startsWith(identity)) return member.region;
    return undefined;
  }

  #at(peerId: PeerId): Member {
    let member = this.#members.get(peerId);
    if (member === undefined) {
      member = {
        peerId,
        region: '',
        replica: '',
        connected: false,
        applied: new Map(),
        heardAtMs: 0,
        refused: null,
      };
      this.#trim();
      this.#members.set(peerId, member);
    }
    return member;
  }

  #trim(): void {
    const absent = this.all().filter((member) => !member.connected);
    if (absent.length < MAX_ABSENT_MEMBERS) return;
    absent.sort((a, b) => a.heardAtMs - b.heardAtMs);
    this.#members.delete(absent[0]!.peerId);
  }
}
