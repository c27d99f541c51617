/**
 * Holes: which missing frames does nobody have any more?
 *
 * A store that lost its tail can leave a hole in the frames of a *retired* replica: frame 7 was heard by nobody who still
 * has it, frame 8 is held back somewhere. What is behind a hole would wait for ever. It is applied, in order, once it is
 * certain that nobody has what is missing. Skipping earlier would lose what a member still had.
 *
 * **When a hole is certain.** After `after`, the last frame that is applied, nothing is there up to `next`, the first that is held:
 * 1. The replica is retired: its owner runs a later epoch. It makes no more frames.
 * 2. Every member that counts is present and says so: it has applied exactly as far as this node, and it holds none before
 *    `next`. What a member says it holds includes what it is committing just now. A member that is away may have the
 *    frame, so it is waited for, until an operator forgets it.
 * 3. That has been so without a change for a while, and each has said it again since: no copy is on its way any more.
 * 4. Each was then asked for the missing frames, had none, and its whole state was compared and merged: what the
 *    lost frames did is kept where anyone's state has it.
 * Should a copy turn up all the same, it comes too late here; what it did comes with the state of whoever applied it.
 *
 * **Why every member ends alike.** Nothing can undo 1 to 4, so every other member finds the same by itself; and one that doesn't
 * (it was cut off) sees this one ahead, asks it for the missing frames, gets none, and merges its whole state and marks.
 *
 * **Why causality holds.** Of a retired replica's dots with stamps between the two frames, none will ever come. So
 * dependencies on them count as met; with no frame held anywhere, those on all its later dots (`next` = null). Without that, a
 * frame that superseded a lost dot would wait for ever, and with it all of its replica. The frame behind a hole has
 * dependencies that were told in the lost frames only (a frame tells what changed since the one before it). They are
 * frames that existed then, with lesser stamps. So it is let through last of all: when this node has applied
 * everything that anyone has reported, and holds no other frame with a lesser stamp. The held frame with the least stamp of all can
 * always go on, so holes never wait for each other in a circle. Its own frame raises the mark's stamp over the lost ones.
 *
 * Pure: decisions only. Who asks and who delivers: repairs.ts, replica/causal-delivery.ts.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { PeerId } from '../mesh/mesh.js';
import { isLaterEpoch } from '../replica-identity.js';
import type { AppliedMark } from '../store/store.js';

/** What another member says. */
export interface Witness {
  readonly peerId: PeerId;
  readonly replica: ReplicaId;
  readonly applied: ReadonlyMap<ReplicaId, number>;
  readonly held: readonly { readonly replica: ReplicaId; readonly first: number; readonly last: number }[];
  readonly heardAtMs: number;
}

/** What this node has. */
export interface Evidence {
  /** The id under which it makes frames. */
  readonly replica: ReplicaId;
  /** What is committed. */
  readonly applied: ReadonlyMap<ReplicaId, AppliedMark>;
  /** What has been let through; more than is committed for a moment. */
  readonly delivered: ReadonlyMap<ReplicaId, AppliedMark>;
  /** What it holds back: by replica, the first. */
  readonly held: ReadonlyMap<ReplicaId, { readonly number: number; readonly stamp: Stamp }>;
  /** Replicas whose dots are what a held frame waits for. */
  readonly awaited: ReadonlySet<ReplicaId>;
  /** Members that are gone for good, as their replica ids begin (mesh/identity.ts): all that they made is retired. */
  readonly forgotten: ReadonlySet<string>;
}

/** A hole: nothing is there between two frames of a replica. `next` = null: nor behind it. */
export interface Hole {
  readonly replica: ReplicaId;
  readonly after: number;
  readonly next: number | null;
  /** The stamp of the frame behind it; infinite when there is none. */
  readonly before: Stamp;
}

/** What to do about holes now. */
export interface HoleSteps {
  /** Members to ask for the frames of a hole, and then for their state. */
  readonly ask: readonly { readonly hole: Hole; readonly peer: PeerId }[];
  /** Certain holes: dependencies on what they swallowed are met. */
  readonly certain: readonly Hole[];
  /** Those of them whose next frame may be let through. */
  readonly skip: readonly Hole[];
}

/** Finds the holes that all agree on (1 and 2 above). `witnesses`: every member that counts, each of them present. */
export function findHoles(own: Evidence, witnesses: readonly Witness[]): Hole[] {
  const holes: Hole[] = [];
  for (const replica of new Set([...own.held.keys(), ...own.awaited])) {
    const after = own.applied.get(replica)?.number ?? 0;
    const first = own.held.get(replica);
    if ((own.delivered.get(replica)?.number ?? 0) !== after) continue;
    if (first !== undefined && first.number === after + 1) continue;
    if (!isRetired(replica, own, witnesses)) continue;
    const next = first?.number ?? null;
    const agreed = witnesses.every((witness) => {
      const range = witness.held.find((each) => each.replica === replica);
      return (
        (witness.applied.get(replica) ?? 0) === after &&
        (range === undefined || (next !== null && range.first >= next))
      );
    });
    if (agreed) holes.push({ replica, after, next, before: first?.stamp ?? Number.POSITIVE_INFINITY });
  }
  return holes;
}

function isRetired(replica: ReplicaId, own: Evidence, witnesses: readonly Witness[]): boolean {
  const isOld = (current: ReplicaId): boolean => isLaterEpoch(current, replica);
  return (
    isOld(own.replica) ||
    witnesses.some((witness) => isOld(witness.replica)) ||
    own.forgotten.has(replica.slice(0, replica.indexOf('.')))
  );
}

/** Says whether everything is applied here that anyone has reported and that the frame behind a hole may depend on. */
export function isNext(hole: Hole, own: Evidence, witnesses: readonly Witness[]): boolean {
  for (const [replica, { stamp }] of own.held)
    if (replica !== hole.replica && stamp < hole.before) return false;
  return witnesses.every((witness) => {
    for (const [replica, number] of witness.applied)
      if (number > (own.applied.get(replica)?.number ?? 0)) return false;
    // Behind what is held here, stamps are greater still.
    return witness.held.every(({ replica, first, last }) => {
      const applied = own.applied.get(replica)?.number ?? 0;
      const held = own.held.get(replica)?.number ?? Number.POSITIVE_INFINITY;
      return last <= applied || held <= Math.max(first, applied + 1);
    });
  });
}

interface Watched {
  readonly hole: Hole;
  readonly sinceMs: number;
  readonly asked: Set<PeerId>;
}

/** Follows holes from the first sign until they are certain (3 and 4 above). */
export class HoleWatch {
  readonly #graceMs: number;
  readonly #watched = new Map<ReplicaId, Watched>();

  /** @param graceMs how long a hole must stay as it is, before anyone is asked */
  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** Replicas with a hole that isn't certain yet, or whose frames behind it aren't let through yet. */
  get open(): number {
    return this.#watched.size;
  }

  /** Takes in how things stand. `witnesses`: null when a member that counts is away, or hasn't said anything yet. */
  look(own: Evidence, witnesses: readonly Witness[] | null, nowMs: number): HoleSteps {
    const holes = witnesses === null ? [] : findHoles(own, witnesses);
    const still = new Set(holes.map(({ replica }) => replica));
    for (const replica of this.#watched.keys()) if (!still.has(replica)) this.#watched.delete(replica);
    const ask: { hole: Hole; peer: PeerId }[] = [];
    const certain: Hole[] = [];
    for (const hole of holes) {
      let watched = this.#watched.get(hole.replica);
      if (watched === undefined || watched.hole.after !== hole.after || watched.hole.next !== hole.next) {
        watched = { hole, sinceMs: nowMs, asked: new Set() };
        this.#watched.set(hole.replica, watched);
      }
      const { sinceMs, asked } = watched;
      if (nowMs - sinceMs < this.#graceMs) continue;
      if (witnesses!.some(({ heardAtMs }) => heardAtMs <= sinceMs)) continue;
      const unasked = witnesses!.filter(({ peerId }) => !asked.has(peerId));
      if (unasked.length > 0) ask.push({ hole, peer: unasked[0]!.peerId });
      else certain.push(hole);
    }
    return {
      ask,
      certain,
      skip: certain.filter((hole) => hole.next !== null && isNext(hole, own, witnesses!)),
    };
  }

  /** A member was asked, had nothing, and its state is merged. */
  answered(hole: Hole, peer: PeerId): void {
    const watched = this.#watched.get(hole.replica);
    if (watched?.hole.after === hole.after && watched.hole.next === hole.next) watched.asked.add(peer);
  }

  /** The store was away: what was found before says nothing. */
  restart(): void {
    this.#watched.clear();
  }
}
