/**
 * Bootstrap: when is a node *loading*, that is, known to lack what other members had before it came? Decisions only, no IO.
 *
 * Loading begins
 * - when the store is opened, at the start or again after it was away, with nothing applied in it, and there is somebody
 *   to join: peers are configured, or members are known;
 * - when a member comes that has applied something, while nothing is applied here. (Who was told of no peers can't know
 *   before that it isn't the first of a mesh.)
 *
 * Its goal is fixed by what the members say of themselves: of each, the applied vector that it names first after the store was
 * opened (or, where a member's coming made it begin, has named last), or a later, lesser one, should it lose data. A vector is reached by a whole state transfer, which raises
 * marks only when it is complete, or by frames; both are merged in causal order, so nothing below it is missing then.
 *
 * Loading ends
 * - when the goals of all members that are present are reached, each has spoken, and so has every configured peer; those
 *   that have not are waited for no longer than {@link GREETING_MS} once anyone has spoken. Members of a new mesh are all empty,
 *   and say so: their goals are reached at once;
 * - a goal of a member that has gone meanwhile counts only as long as nobody present has anything;
 * - when nothing has moved for `patienceMs`: nobody can be reached, or who can doesn't give. Then the node serves what it has.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { PeerId } from '../mesh/mesh.js';

/** What the decision needs of a member. */
export interface Source {
  readonly peerId: PeerId;
  /** Replica → number of the last frame that it has applied. */
  readonly applied: ReadonlyMap<ReplicaId, number>;
  /** When it last said so. */
  readonly heardAtMs: number;
}

/** How far a replica's frames are applied here. */
export type Applied = ReadonlyMap<ReplicaId, { readonly number: number }>;

/** 'caught up': with somebody who had something; 'nothing there': nobody has anything; 'gave up': out of patience. */
export type Outcome = 'loading' | 'caught up' | 'nothing there' | 'gave up';

export interface BootstrapOptions {
  readonly self: PeerId;
  /** Configured multiaddrs of members. */
  readonly peers: readonly string[];
  /** How long nothing may move before loading is given up; 0 = never. */
  readonly patienceMs: number;
}

/** How long members that have said nothing yet are waited for, once another has. */
export const GREETING_MS = 3_000;

export class Bootstrap {
  readonly #patienceMs: number;
  readonly #named: readonly PeerId[];
  readonly #unnamed: number;
  /** Member → the vector to reach. */
  readonly #goals = new Map<PeerId, ReadonlyMap<ReplicaId, number>>();
  #sinceMs: number | null = null;
  /** Words from before this moment don't count. */
  #heardSinceMs = 0;
  #movedMs = 0;
  #turn = 0;

  constructor(options: BootstrapOptions) {
    this.#patienceMs = options.patienceMs;
    const ids = options.peers.map((address) => /\/p2p\/([^/]+)$/.exec(address)?.[1]);
    this.#named = [...new Set(ids.filter((id): id is string => id !== undefined && id !== options.self))];
    this.#unnamed = ids.filter((id) => id === undefined).length;
  }

  /** When loading began, Unix milliseconds; null = it isn't under way. */
  get sinceMs(): number | null {
    return this.#sinceMs;
  }

  /** The store was opened; says whether loading begins. `members`: how many are known. */
  opened(empty: boolean, members: number, nowMs: number): boolean {
    if (!empty || (members === 0 && this.#named.length + this.#unnamed === 0)) return false;
    this.#begin(nowMs);
    // Who lost its data may not be the only one: what was said before may be true no more.
    this.#heardSinceMs = nowMs;
    return true;
  }

  /** A member has come; says whether loading begins. */
  met(source: Source, own: Applied, nowMs: number): boolean {
    if (this.#sinceMs !== null || own.size > 0 || source.applied.size === 0) return false;
    this.#begin(nowMs);
    return true;
  }

  /** Something was received or merged. */
  moved(nowMs: number): void {
    this.#movedMs = nowMs;
  }

  /** Judges where loading stands; any outcome but 'loading' ends it. */
  judge(present: readonly Source[], own: Applied, nowMs: number): Outcome {
    const since = this.#sinceMs;
    if (since === null) return 'nothing there';
    const spoken = present.filter((source) => source.heardAtMs >= this.#heardSinceMs);
    for (const { peerId, applied } of spoken) {
      const goal = this.#goals.get(peerId);
      if (goal === undefined || !reaches(applied, goal)) this.#goals.set(peerId, new Map(applied));
    }
    const outcome = this.#outcome(present, spoken, own, nowMs - since);
    if (outcome === null && (this.#patienceMs === 0 || nowMs - this.#movedMs < this.#patienceMs))
      return 'loading';
    this.#sinceMs = null;
    this.#goals.clear();
    return outcome ?? 'gave up';
  }

  /** The member to ask for its state: of those present whose goals are not reached, each in turn; null = nobody. */
  next(present: readonly Source[], own: Applied): PeerId | null {
    const having = present.filter((source) => this.#isBehind(source.peerId, own));
    this.#turn += 1;
    return having[this.#turn % having.length]?.peerId ?? null;
  }

  #begin(nowMs: number): void {
    this.#sinceMs = nowMs;
    this.#movedMs = nowMs;
    this.#heardSinceMs = 0;
    this.#goals.clear();
  }

  #outcome(
    present: readonly Source[],
    spoken: readonly Source[],
    own: Applied,
    tookMs: number,
  ): Outcome | null {
    if (spoken.length === 0 || spoken.some((source) => this.#isBehind(source.peerId, own))) return null;
    if (tookMs < GREETING_MS && (spoken.length < present.length || this.#awaitsMore())) return null;
    if (spoken.some((source) => source.applied.size > 0)) return 'caught up';
    return [...this.#goals.keys()].some((peerId) => this.#isBehind(peerId, own)) ? null : 'nothing there';
  }

  /** Says whether a configured peer hasn't spoken yet. An address that doesn't name its peer may be anyone's. */
  #awaitsMore(): boolean {
    if (this.#named.some((peerId) => !this.#goals.has(peerId))) return true;
    return this.#goals.size - this.#named.length < this.#unnamed;
  }

  #isBehind(peerId: PeerId, own: Applied): boolean {
    const goal = this.#goals.get(peerId);
    if (goal === undefined) return false;
    for (const [replica, number] of goal) if ((own.get(replica)?.number ?? 0) < number) return true;
    return false;
  }
}

function reaches(vector: ReadonlyMap<ReplicaId, number>, goal: ReadonlyMap<ReplicaId, number>): boolean {
  for (const [replica, number] of goal) if ((vector.get(replica) ?? 0) < number) return false;
  return true;
}
