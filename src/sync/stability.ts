/**
 * Stability: up to which stamp has every member applied every replica? What that is for, and why it is safe: crdts/forgetting.ts.
 *
 * Reports in order: what a member says it has applied counts only once all frames that it had made before it said so are
 * applied here, those of its earlier epochs included. A report that overtook such a frame would let this node forget what the frame builds on.
 * The same goes for the frames of others that use, or used, the member's store (siblings.ts). So it is simply all that it names.
 *
 * A retired replica (an earlier epoch of a member, or one of a member that was forgotten) makes no frames any more, so its last stamp would
 * hold the stable stamp back for ever. It stops doing so when all members have applied the same frames of it, none holds
 * one back, and that has been so for a while: long enough for a copy that is still on its way to arrive.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import { stableStamp } from '../../crdts/forgetting.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { AppliedMark } from '../store/store.js';
import type { HeldRange } from './messages.js';

/** What one member had applied when it said so. */
export interface Report {
  /** The replica that it was then. */
  readonly replica: ReplicaId;
  readonly applied: ReadonlyMap<ReplicaId, AppliedMark>;
  readonly held: readonly HeldRange[];
}

/** Says whether all frames that a report names are applied here. */
export function isInOrder(report: Report, applied: ReadonlyMap<ReplicaId, AppliedMark>): boolean {
  for (const [replica, { number }] of report.applied)
    if ((applied.get(replica)?.number ?? 0) < number) return false;
  return true;
}

/** A member's reports: the last one that counts, and two that may come to. */
export class ReportQueue {
  readonly #waiting: Report[] = [];
  /** The last report in order; null = none yet. */
  current: Report | null = null;

  /** Takes in what the member says now. */
  add(report: Report): void {
    // The first that waits stays, or under steady writes none would ever come in order.
    if (this.#waiting.length < 2) this.#waiting.push(report);
    else this.#waiting[1] = report;
  }

  /** Moves on as far as the applied frames allow. */
  settle(applied: ReadonlyMap<ReplicaId, AppliedMark>): void {
    while (this.#waiting.length > 0 && isInOrder(this.#waiting[0]!, applied))
      this.current = this.#waiting.shift()!;
  }

  /** The member has begun anew: nothing that it said before counts. */
  clear(): void {
    this.#waiting.length = 0;
    this.current = null;
  }
}

/** What all members have applied: the stamp up to which, and which frames. */
export interface Stable {
  /** 0 = nothing is stable. */
  readonly stamp: Stamp;
  /** Replica → the number of the last frame that all have; that includes every frame up to the stamp. */
  readonly numbers: ReadonlyMap<ReplicaId, number>;
}

/** Nothing is stable. */
export const NOTHING_STABLE: Stable = { stamp: 0, numbers: new Map() };

export class Stability {
  readonly #retiredAfterMs: number;
  /** Since when all agree on a retired replica, and on which frame. */
  readonly #agreed = new Map<ReplicaId, { readonly number: number; readonly sinceMs: number }>();

  /** @param retiredAfterMs how long all must agree on a retired replica before it stops holding the stable stamp back */
  constructor(retiredAfterMs: number) {
    this.#retiredAfterMs = retiredAfterMs;
  }

  /** What is stable, given this node's own report and those of all other members; null = one has said nothing that counts. */
  look(own: Report, others: readonly (Report | null)[], nowMs: number): Stable {
    const reports = [own];
    for (const report of others) {
      if (report === null) return NOTHING_STABLE;
      reports.push(report);
    }
    const known = new Set(reports.flatMap(({ applied }) => [...applied.keys()]));
    const numbers = new Map<ReplicaId, number>();
    for (const replica of known)
      numbers.set(replica, Math.min(...reports.map(({ applied }) => applied.get(replica)?.number ?? 0)));
    return { stamp: this.#stamp(reports, nowMs), numbers };
  }

  #stamp(reports: readonly Report[], nowMs: number): Stamp {
    const ignored = this.#settledReplicas(reports, nowMs);
    // All that was ever made is known to all, and every clock is past it.
    if (reports.every(({ applied }) => [...applied.keys()].every((replica) => ignored.has(replica))))
      return Math.max(0, ...[...reports[0]!.applied.values()].map(({ stamp }) => stamp));
    return stableStamp(
      reports.map(({ applied }) => {
        const stamps = new Map<ReplicaId, Stamp>();
        for (const [replica, mark] of applied) if (!ignored.has(replica)) stamps.set(replica, mark.stamp);
        return stamps;
      }),
    );
  }

  /** Retired replicas that all members have long agreed on. */
  #settledReplicas(reports: readonly Report[], nowMs: number): Set<ReplicaId> {
    const current = new Set(reports.map(({ replica }) => replica));
    const held = new Set(reports.flatMap((report) => report.held.map(({ replica }) => replica)));
    const settled = new Set<ReplicaId>();
    const known = new Set(reports.flatMap(({ applied }) => [...applied.keys()]));
    for (const replica of this.#agreed.keys()) if (!known.has(replica)) this.#agreed.delete(replica);
    for (const replica of known) {
      const number = reports[0]!.applied.get(replica)?.number ?? 0;
      const same = reports.every(({ applied }) => (applied.get(replica)?.number ?? 0) === number);
      if (current.has(replica) || held.has(replica) || !same) {
        this.#agreed.delete(replica);
        continue;
      }
      const agreed = this.#agreed.get(replica);
      if (agreed?.number !== number) this.#agreed.set(replica, { number, sinceMs: nowMs });
      else if (nowMs - agreed.sinceMs >= this.#retiredAfterMs) settled.add(replica);
    }
    return settled;
  }
}

/** What has been stable for a while, as it was then. */
export class StableHistory {
  readonly #graceMs: number;
  /** In the order of time; the first is old enough, or the only one that may become so. */
  #looks: { readonly atMs: number; readonly stable: Stable }[] = [];

  /** @param graceMs how long */
  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** Takes in what is stable now, and gives what has been for long enough. */
  add(stable: Stable, nowMs: number): Stable {
    const last = this.#looks.at(-1);
    if (last === undefined || nowMs - last.atMs >= this.#graceMs / HISTORY)
      this.#looks.push({ atMs: nowMs, stable });
    while (this.#looks.length > 1 && this.#looks[1]!.atMs <= nowMs - this.#graceMs) this.#looks.shift();
    const first = this.#looks[0]!;
    return first.atMs <= nowMs - this.#graceMs ? first.stable : NOTHING_STABLE;
  }

  /** What was stable before is of no use: the store was away. */
  clear(): void {
    this.#looks = [];
  }
}

/** How many looks a grace period is followed by. */
const HISTORY = 8;

/** Says whether all that was stable when something was forgotten has been applied. */
export function coversFloor(
  applied: ReadonlyMap<ReplicaId, { readonly number: number }>,
  floor: ReadonlyMap<ReplicaId, number>,
): boolean {
  for (const [replica, number] of floor) if ((applied.get(replica)?.number ?? 0) < number) return false;
  return true;
}
