/**
 * Random histories of a few replicas: local operations, deltas delivered in a random causal order, duplicates, whole
 * states merged. Every merge is checked on the way: it grew if and only if the canonical bytes changed, and it left the
 * delta alone.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import {
  type DataType,
  HybridClock,
  type Site,
  STAMP_EPOCH_MS,
  WireReader,
  WireWriter,
} from '../../crdts/index.js';
import { Random } from './crdt-runs.js';

/** What a history needs to know of a type. */
export interface Subject<State, Op> {
  readonly name: string;
  empty(): State;
  /** An operation that is possible in this state, or null when none came to mind. */
  generate(state: State, random: Random): Op | null;
  mutate(state: State, op: Op, site: Site): State;
  merge(into: State, delta: State): boolean;
  /** Joins a delta onto an earlier one of the same replica. */
  append(into: State, next: State): unknown;
  clone(state: State): State;
  /** Canonical bytes, one character each: equal states, equal bytes. */
  encode(state: State): string;
  decode(bytes: string): State;
}

export const packr = new Packr({ useRecords: false });

/** The base of all stamps where no frame gives one. */
export const BASE = 2 ** 50;

/** A data type as a subject, through msgpack. */
export function subjectOf<State, Op>(
  type: DataType<State, Op>,
  generate: (state: State, random: Random) => Op | null,
): Subject<State, Op> {
  return {
    name: type.name,
    empty: type.empty,
    generate,
    mutate: type.mutate,
    merge: type.merge,
    append: type.merge,
    clone: type.clone,
    encode(state) {
      const writer = new WireWriter(BASE);
      const body = type.toWire(state, writer);
      return packr.pack([writer.replicas, body]).toString('latin1');
    },
    decode(bytes) {
      const [replicas, body] = packr.unpack(Buffer.from(bytes, 'latin1')) as unknown[];
      return type.fromWire(body, new WireReader(BASE, replicas, 1000));
    },
  };
}

/** One operation that happened. */
export interface Entry<State, Op> {
  readonly id: number;
  readonly origin: number;
  readonly site: Site;
  readonly op: Op;
  readonly delta: State;
  readonly bytes: string;
  /** Number of entries of each replica that its origin had applied: what must come first. */
  readonly after: readonly number[];
  /** Changes with every merge at the origin: deltas may be joined to one another only where it is equal. */
  readonly era: number;
}

interface Replica<State> {
  readonly id: string;
  readonly clock: HybridClock;
  state: State;
  /** Entries applied, by origin. */
  applied: number[];
  era: number;
}

// Neither alphabetical by position nor of equal length: an order by index or by length shows.
const IDS = ['nb.1', 'na.2', 'n.10', 'nc.1'];

export class History<State, Op> {
  readonly subject: Subject<State, Op>;
  readonly entries: Entry<State, Op>[] = [];
  readonly byOrigin: Entry<State, Op>[][];
  readonly replicas: Replica<State>[];
  /** Whole states, as they were at some time. */
  readonly snapshots: State[] = [];
  #now = STAMP_EPOCH_MS + 1000;

  constructor(subject: Subject<State, Op>, count = 3) {
    this.subject = subject;
    this.byOrigin = Array.from({ length: count }, () => []);
    this.replicas = Array.from({ length: count }, (_, i) => ({
      id: IDS[i]!,
      // Skewed by up to 6 ms: physical time and causality contradict each other often.
      clock: new HybridClock(() => this.#now + 3 * i, { maxDriftMs: 1e9 }),
      state: subject.empty(),
      applied: Array.from({ length: count }, () => 0),
      era: 0,
    }));
  }

  /** Does an operation at a replica. */
  operate(at: number, op: Op): Entry<State, Op> {
    const replica = this.replicas[at]!;
    const { subject } = this;
    const site = { replica: replica.id, stamp: replica.clock.next() };
    const before = subject.encode(replica.state);
    const delta = subject.mutate(replica.state, op, site);
    assert.equal(subject.encode(replica.state), before, 'mutate changed its state');
    const entry: Entry<State, Op> = {
      id: this.entries.length,
      origin: at,
      site,
      op,
      delta,
      bytes: subject.encode(delta),
      after: [...replica.applied],
      era: replica.era,
    };
    this.entries.push(entry);
    this.byOrigin[at]!.push(entry);
    this.join(at, delta);
    replica.applied[at]! += 1;
    return entry;
  }

  /** Joins a delta or a state at a replica, and checks what every join must keep. */
  join(at: number, delta: State): void {
    const { subject } = this;
    const into = this.replicas[at]!.state;
    const before = subject.encode(into);
    const given = subject.encode(delta);
    const grew = subject.merge(into, delta);
    assert.equal(grew, subject.encode(into) !== before, 'grew means: the bytes changed');
    assert.equal(subject.encode(delta), given, 'merge changed its delta');
  }

  deliver(at: number, entry: Entry<State, Op>): void {
    const replica = this.replicas[at]!;
    this.join(at, entry.delta);
    replica.clock.observe(entry.site.stamp);
    replica.applied[entry.origin] = Math.max(
      replica.applied[entry.origin]!,
      this.byOrigin[entry.origin]!.indexOf(entry) + 1,
    );
    replica.era += 1;
  }

  /** Merges one replica's whole state into another. */
  transfer(from: number, to: number): void {
    const source = this.replicas[from]!;
    const target = this.replicas[to]!;
    this.join(to, source.state);
    target.clock.observe(source.clock.last);
    target.applied = target.applied.map((count, i) => Math.max(count, source.applied[i]!));
    target.era += 1;
  }

  /** Entries that a replica may apply next. */
  ready(at: number): Entry<State, Op>[] {
    const { applied } = this.replicas[at]!;
    const next = this.byOrigin.map((entries, origin) => entries[applied[origin]!]);
    return next.filter((entry) => entry?.after.every((count, i) => count <= applied[i]!)) as Entry<
      State,
      Op
    >[];
  }

  /** Says which entries a replica has applied. */
  seenBy(at: number): Entry<State, Op>[] {
    const { applied } = this.replicas[at]!;
    return this.entries.filter((entry) => this.#position(entry) < applied[entry.origin]!);
  }

  /** Says whether one operation had observed another one. */
  observed(later: Entry<State, Op>, earlier: Entry<State, Op>): boolean {
    return earlier !== later && this.#position(earlier) < later.after[earlier.origin]!;
  }

  #position(entry: Entry<State, Op>): number {
    return this.byOrigin[entry.origin]!.indexOf(entry);
  }

  /** Delivers all that is outstanding, in a random causal order with duplicates. */
  settle(random: Random): void {
    for (let at = 0; at < this.replicas.length; at += 1) {
      for (let ready = this.ready(at); ready.length > 0; ready = this.ready(at)) {
        this.deliver(at, random.pick(ready));
        if (random.chance(20)) this.deliver(at, random.pick(this.seenBy(at)));
      }
    }
  }

  /** All replicas have everything at once: what a user sees who never works concurrently. */
  takeTurn(at: number, op: Op): void {
    const entry = this.operate(at, op);
    for (let other = 0; other < this.replicas.length; other += 1)
      if (other !== at) this.deliver(other, entry);
  }

  /** Does one step of a generated history. */
  step([at, action, seed]: Step): void {
    const random = new Random(seed);
    const replica = this.replicas[at]!;
    this.#now += random.below(3);
    if (action < 5) {
      const op = this.subject.generate(replica.state, random);
      if (op !== null) this.operate(at, op);
    } else if (action < 8) {
      const ready = this.ready(at);
      if (ready.length > 0) this.deliver(at, random.pick(ready));
    } else if (action === 8) {
      const seen = this.seenBy(at);
      if (seen.length > 0) this.deliver(at, random.pick(seen));
    } else if (action === 9) {
      this.transfer((at + 1 + random.below(2)) % this.replicas.length, at);
    } else {
      this.snapshots.push(this.subject.clone(replica.state));
    }
  }
}

/** [replica, action, seed of the choices]. */
export type Step = readonly [number, number, number];

export const anySteps: fc.Arbitrary<Step[]> = fc.array(fc.tuple(fc.nat(2), fc.nat(10), fc.nat()), {
  minLength: 1,
  maxLength: 50,
  size: 'max',
});

/** Plays a generated history. */
export function play<State, Op>(subject: Subject<State, Op>, steps: readonly Step[]): History<State, Op> {
  const history = new History(subject);
  for (const step of steps) history.step(step);
  return history;
}
