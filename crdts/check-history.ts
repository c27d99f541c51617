/**
 * One random history of a data type under check: a few replicas with a state each, operations, deltas delivered causally in
 * any order and some twice, whole states merged, old ones too. Every step is checked as it is made. A step that is not
 * possible where it stands is left out, so that any part of a history is a history.
 */
import { show } from './check-report.js';
import { expectLaw, formOf, throughWire } from './check-wire.js';
import type { DataType } from './data-type.js';
import type { Site } from './dot.js';

/** A step of a history. `choice` says which of the things that are possible. */
export type HistoryStep<Op> =
  | { readonly kind: 'do'; readonly at: number; readonly op: Op }
  | { readonly kind: 'deliver' | 'again' | 'merge'; readonly at: number; readonly choice: number };

/** Names that are ordered otherwise than they are numbered: an order by number shows. */
const NAMES = ['b', 'a', 'c'] as const;

/** The number of replicas in a history. */
export const REPLICAS: number = NAMES.length;

/** A delta that was made, by whom, and after what. */
interface Made<State> {
  readonly origin: number;
  readonly site: Site;
  readonly delta: State;
  readonly form: string;
  /** Deltas of each replica that its maker had merged. */
  readonly after: readonly number[];
  /** Changes with every merge at its maker. */
  readonly era: number;
}

/** A replica in a history. */
interface Member<State> {
  state: State;
  clock: number;
  merged: number[];
  era: number;
}

/** A whole state as it was, and what had been merged into it. */
interface Snapshot<State> {
  readonly state: State;
  readonly of: string;
  readonly clock: number;
  readonly merged: readonly number[];
}

/** A history as it is played. */
export class CheckedHistory<State, Op> {
  readonly #type: DataType<State, Op>;
  readonly #made: Made<State>[][] = NAMES.map(() => []);
  readonly members: Member<State>[];
  readonly snapshots: Snapshot<State>[] = [];
  /** What happened, a line for each step that was possible. */
  readonly log: string[] = [];
  /** Operations that were done, in order. */
  readonly done: Op[] = [];

  constructor(type: DataType<State, Op>) {
    this.#type = type;
    this.members = NAMES.map(() => ({ state: type.empty(), clock: 0, merged: NAMES.map(() => 0), era: 0 }));
  }

  /** Every delta that was made. */
  get made(): readonly Made<State>[] {
    return this.#made.flat();
  }

  /** Does a step, if it is possible. Throws LawBroken. */
  step(step: HistoryStep<Op>): void {
    const member = this.members[step.at]!;
    const name = NAMES[step.at];
    if (step.kind === 'do') {
      this.#operate(step.at, step.op);
    } else if (step.kind === 'deliver') {
      const ready = this.#ready(step.at);
      if (ready.length === 0) return;
      this.deliver(step.at, ready[step.choice % ready.length]!);
    } else if (step.kind === 'again') {
      const known = this.made.filter(
        ({ origin, site }) =>
          this.#made[origin]!.findIndex((made) => made.site === site) < member.merged[origin]!,
      );
      if (known.length === 0) return;
      const made = known[step.choice % known.length]!;
      this.log.push(`${name} merges the delta of ${made.site.replica} at ${made.site.stamp} again`);
      this.join(step.at, made.delta);
    } else {
      const from = this.snapshots[step.choice % this.snapshots.length];
      if (from === undefined) return;
      this.log.push(`${name} merges the whole state of ${from.of} as it was at ${from.clock}`);
      this.join(step.at, from.state);
      member.merged = member.merged.map((count, i) => Math.max(count, from.merged[i]!));
      member.clock = Math.max(member.clock, from.clock);
      member.era += 1;
    }
    this.snapshots.push({
      state: this.#type.clone(member.state),
      of: name!,
      clock: member.clock,
      merged: [...member.merged],
    });
  }

  #operate(at: number, op: Op): void {
    const type = this.#type;
    const member = this.members[at]!;
    const site = { replica: NAMES[at]!, stamp: member.clock + 1 };
    const before = formOf(type, member.state);
    let delta: State;
    try {
      delta = type.mutate(member.state, op, site);
    } catch (error) {
      const after = formOf(type, member.state);
      expectLaw(
        after === before,
        'pure',
        () => `${show(op)} was refused (${String(error)}), but changed the state`,
      );
      return;
    }
    member.clock += 1;
    this.log.push(`${site.replica} does ${show(op)} at ${site.stamp}`);
    const after = formOf(type, member.state);
    expectLaw(after === before, 'pure', () => `mutate changed its state from ${before} to ${after}`);
    const form = formOf(type, delta);
    const again = formOf(type, type.mutate(member.state, op, site));
    expectLaw(again === form, 'pure', () => `mutate gave ${form}, and for the same arguments ${again}`);
    throughWire(type, delta);
    this.#made[at]!.push({ origin: at, site, delta, form, after: [...member.merged], era: member.era });
    this.join(at, delta);
    member.merged[at]! += 1;
    this.done.push(op);
  }

  /** Merges a delta that a member hasn't got: as it is, or for every other member as it comes off the wire. */
  deliver(at: number, made: Made<State>): void {
    const member = this.members[at]!;
    this.log.push(`${NAMES[at]} merges the delta of ${made.site.replica} at ${made.site.stamp}`);
    this.join(at, at % 2 === 0 ? made.delta : throughWire(this.#type, made.delta));
    member.merged[made.origin]! += 1;
    member.clock = Math.max(member.clock, made.site.stamp);
    member.era += 1;
  }

  /** Joins into a member's state. Throws LawBroken when the join says otherwise than what happened. */
  join(at: number, delta: State): void {
    const type = this.#type;
    const { state } = this.members[at]!;
    const [before, given] = [formOf(type, state), formOf(type, delta)];
    const grew: unknown = type.merge(state, delta);
    const after = formOf(type, state);
    expectLaw(
      grew === (after !== before),
      'grew',
      () => `merge gave ${show(grew)} where ${before} became ${after}`,
    );
    const left = formOf(type, delta);
    expectLaw(left === given, 'pure', () => `merge changed its delta from ${given} to ${left}`);
  }

  /** What a member may merge next. */
  #ready(at: number): Made<State>[] {
    const { merged } = this.members[at]!;
    const next = this.#made.map((made, origin) => made[merged[origin]!]);
    return next.filter((made) => made?.after.every((count, i) => count <= merged[i]!)) as Made<State>[];
  }

  /** Delivers all that is outstanding, to each member in another order. Not in the log: it goes without saying. */
  settle(): void {
    const { length } = this.log;
    for (let at = 0; at < NAMES.length; at += 1) {
      for (let ready = this.#ready(at); ready.length > 0; ready = this.#ready(at)) {
        this.deliver(at, ready[at % ready.length]!);
      }
    }
    this.log.length = length;
  }
}
