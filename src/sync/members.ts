/**
 * Members: what this node knows of the others, from what they say themselves, and who counts as one.
 *
 * Everyone who has introduced itself counts, also while it is away and after a restart, and so does everyone whom a member counts:
 * a newcomer that got its state from one member is known to the others by that member's next report, before anything may be
 * forgotten that it still has. Only an operator's word ends that ({@link Members.forget}).
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { PeerId } from '../mesh/mesh.js';
import type { AppliedMark } from '../store/store.js';
import { ClockOffset } from './clock-offset.js';
import { type Forgotten, type Heartbeat, type HeldRange, MAX_FORGOTTEN, MAX_MEMBERS } from './messages.js';
import { type Report, ReportQueue, type Stability, type Stable } from './stability.js';

/** What is known of one other member. */
export interface Member {
  readonly peerId: PeerId;
  region: string;
  replica: ReplicaId;
  /** The epoch in which its data began; 0 = it hasn't said. */
  born: number;
  connected: boolean;
  /** Replica → number of the last frame that the member has applied. */
  applied: Map<ReplicaId, number>;
  /** Names its store; empty = it hasn't said, or has none now. */
  place: string;
  /** Nodes that share its store, as it says. */
  siblings: readonly PeerId[];
  /** What it holds back. */
  held: readonly HeldRange[];
  /** How far its clock is from this node's. */
  readonly clock: ClockOffset;
  /** Unix milliseconds; 0 = never. */
  heardAtMs: number;
  /** Why nothing is taken from the member, nor given to it, until it says something else of itself; null = it is welcome. */
  refused: string | null;
  /** Whether it counts when it is judged what all have applied. */
  counts: boolean;
  readonly reports: ReportQueue;
}

/** How many members that are not connected and don't count are remembered; the one unheard for longest goes first. */
const MAX_ABSENT_MEMBERS = 256;

export class Members {
  readonly #members = new Map<PeerId, Member>();
  readonly #forgotten = new Map<PeerId, number>();

  /** @param remembered members that counted, and those that were forgotten, before this node was started */
  constructor(
    remembered: { readonly members: readonly Forgotten[]; readonly forgotten: readonly Forgotten[] } = {
      members: [],
      forgotten: [],
    },
  ) {
    for (const { peerId, born } of remembered.forgotten) this.#forgotten.set(peerId, born);
    for (const { peerId, born } of remembered.members)
      if (this.count(peerId)) this.#members.get(peerId)!.born = born;
  }

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

  /** Members that count. */
  counted(): Member[] {
    return this.all().filter((member) => member.counts);
  }

  /** Members that were forgotten, the last ones. */
  forgotten(): Forgotten[] {
    return [...this.#forgotten].map(([peerId, born]) => ({ peerId, born }));
  }

  /** Says whether a member that was born then has been forgotten. */
  isForgotten(peerId: PeerId, born: number): boolean {
    return born <= (this.#forgotten.get(peerId) ?? -1);
  }

  /** This node begins anew: whom it had forgotten is for the others to say. */
  forgiveAll(): void {
    this.#forgotten.clear();
  }

  setConnected(peerId: PeerId, connected: boolean): void {
    const member = this.#at(peerId);
    member.connected = connected;
    if (!connected && member.heardAtMs === 0 && !member.counts) this.#members.delete(peerId);
  }

  /** Counts a member from now on; says whether that is new. One that was forgotten, or is one too many, isn't counted. */
  count(peerId: PeerId): boolean {
    if (this.#members.get(peerId)?.counts === true || this.#forgotten.has(peerId)) return false;
    if (this.counted().length >= MAX_MEMBERS) return false;
    this.#at(peerId).counts = true;
    return true;
  }

  /** Says whether one more member would be too many. */
  isFull(peerId: PeerId): boolean {
    return this.#members.get(peerId)?.counts !== true && this.counted().length >= MAX_MEMBERS;
  }

  /**
   * Takes in what a member says of itself. It speaks for its store together with the others that use it, so its report counts only where
   * theirs are waited for too, or they are retired (siblings.ts); `self` is this node.
   */
  heard(peerId: PeerId, heartbeat: Heartbeat, nowMs: number, self: PeerId): Member {
    const member = this.#at(peerId);
    if (member.born !== heartbeat.born) member.reports.clear();
    member.region = heartbeat.region;
    member.replica = heartbeat.replica;
    member.born = heartbeat.born;
    member.heardAtMs = nowMs;
    member.clock.heard(heartbeat.atMs, nowMs);
    member.refused = null;
    // A member that lost data and began again has applied less than it said before: believe the latest word.
    member.applied = new Map(heartbeat.applied.map((mark) => [mark.replica, mark.number]));
    member.held = heartbeat.held;
    member.place = heartbeat.place;
    member.siblings = heartbeat.siblings;
    for (const sibling of heartbeat.siblings) if (sibling !== self) this.count(sibling);
    if (
      heartbeat.siblings.every((sibling) => sibling === self || this.#members.get(sibling)?.counts === true)
    )
      member.reports.add(reportOf(heartbeat.replica, heartbeat.applied, heartbeat.held));
    // It has come back as new.
    if (!this.isForgotten(peerId, heartbeat.born)) this.#forgotten.delete(peerId);
    return member;
  }

  /** Takes note of a member that doesn't fit; {@link heard} lifts it. */
  refuse(peerId: PeerId, heartbeat: Heartbeat, reason: string): void {
    const member = this.#at(peerId);
    member.region = heartbeat.region;
    member.replica = heartbeat.replica;
    member.applied = new Map();
    member.held = [];
    member.place = '';
    member.refused = reason;
  }

  /** Forgets a member that is gone for good, as it was until then; says whether that is new. It may come back when it is born later. */
  forget({ peerId, born }: Forgotten): boolean {
    if (born <= (this.#forgotten.get(peerId) ?? -1)) return false;
    const member = this.#members.get(peerId);
    // It has come back already.
    if (member !== undefined && member.born > born) return false;
    this.#forgotten.delete(peerId);
    if (this.#forgotten.size >= MAX_FORGOTTEN) this.#forgotten.delete(this.#forgotten.keys().next().value!);
    this.#forgotten.set(peerId, born);
    if (member !== undefined) {
      member.counts = false;
      member.reports.clear();
      if (!member.connected) this.#members.delete(peerId);
    }
    // Who shares its store must first say that nothing more comes of it.
    for (const other of this.#members.values()) if (other.siblings.includes(peerId)) other.reports.clear();
    return true;
  }

  /** What all that count have applied; see stability.ts. */
  stable(
    stability: Stability,
    own: Report,
    applied: ReadonlyMap<ReplicaId, AppliedMark>,
    nowMs: number,
  ): Stable {
    const reports = this.counted().map(({ reports: queue }) => {
      queue.settle(applied);
      return queue.current;
    });
    return stability.look(own, reports, nowMs);
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
        born: 0,
        connected: false,
        applied: new Map(),
        place: '',
        siblings: [],
        held: [],
        clock: new ClockOffset(),
        heardAtMs: 0,
        refused: null,
        counts: false,
        reports: new ReportQueue(),
      };
      this.#trim();
      this.#members.set(peerId, member);
    }
    return member;
  }

  #trim(): void {
    const absent = this.all().filter((member) => !member.connected && !member.counts);
    if (absent.length < MAX_ABSENT_MEMBERS) return;
    absent.sort((a, b) => a.heardAtMs - b.heardAtMs);
    this.#members.delete(absent[0]!.peerId);
  }
}

/** A report, from what a heartbeat says. */
export function reportOf(
  replica: ReplicaId,
  applied: readonly AppliedMark[],
  held: readonly HeldRange[],
): Report {
  return { replica, applied: new Map(applied.map((mark) => [mark.replica, mark])), held };
}
