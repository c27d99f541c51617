/**
 * Resettable PN-counter: increments and decrements that all count, and resets that cancel exactly what they saw.
 *
 * Conflict rule: an increment that a reset did not observe survives it; every other one is cancelled.
 *
 * Each replica owns one *count*: (since, p, n), its increments and decrements added up since it began that count. A
 * reset remembers each count as far as it saw it. Both are joined pointwise by the greatest, in the order of (since, p, n).
 * The value is the sum of what resets don't cover.
 *
 * Counts are exact decimals (decimal.ts), so the value doesn't depend on the order in which they are added up.
 *
 * What merge must answer: how much of each replica's count has been seen, and how much of that has been cancelled?
 *
 * Invariant: a count that a reset covers is never continued. Its owner starts a new one with a greater `since`, so a
 * covered count can be dropped from the state, and the state stays small however often a counter is reset.
 */
import type { DataType } from './data-type.js';
import {
  compareDecimals,
  type Decimal,
  decimalFromWire,
  decimalToWire,
  isNegative,
  minusDecimal,
  plusDecimal,
  requireDecimal,
} from './decimal.js';
import { type ReplicaId, requireLater, type Site } from './dot.js';
import { DecodeError } from './errors.js';
import type { Stamp } from './stamp.js';
import { asArray, type WireReader, type WireWriter } from './wire.js';

/** One replica's contribution. Immutable. */
export interface Count {
  /** When its owner began it. */
  readonly since: Stamp;
  /** Sum of the increments, cumulative. */
  readonly p: Decimal;
  /** Sum of the decrements, cumulative. */
  readonly n: Decimal;
}

/** A counter's state. Of one replica, a count and a reset may stand side by side where the reset covers only part. */
export interface Counter {
  /** Counts that aren't fully covered by a reset. */
  counts: Map<ReplicaId, Count>;
  /** How far each replica's count has been cancelled. */
  resets: Map<ReplicaId, Count>;
}

/** What can be done to a counter: add (a negative `by` subtracts), or cancel all that was seen. */
export type CounterOp = { readonly op: 'add'; readonly by: Decimal } | { readonly op: 'reset' };

/** Orders two counts of one replica. */
export function compareCounts(a: Count, b: Count): number {
  if (a.since !== b.since) return a.since - b.since;
  return compareDecimals(a.p, b.p) || compareDecimals(a.n, b.n);
}

/** What a replica's count adds to the value: the part that no reset covers. */
export function uncovered(state: Counter, replica: ReplicaId): { readonly p: Decimal; readonly n: Decimal } {
  const count = state.counts.get(replica);
  if (count === undefined) return { p: 0, n: 0 };
  if (state.resets.size === 0) return count;
  const reset = state.resets.get(replica);
  if (reset === undefined || reset.since < count.since) return count;
  return { p: minusDecimal(count.p, reset.p), n: minusDecimal(count.n, reset.n) };
}

/** The counter's value: the sum of everything uncovered. Exact. */
export function counterValue(state: Counter): Decimal {
  let sum: Decimal = 0;
  for (const replica of state.counts.keys()) {
    const { p, n } = uncovered(state, replica);
    sum = plusDecimal(sum, minusDecimal(p, n));
  }
  return sum;
}

function raiseCount(counts: Map<ReplicaId, Count>, replica: ReplicaId, count: Count): boolean {
  const own = counts.get(replica);
  if (own !== undefined && compareCounts(own, count) >= 0) return false;
  counts.set(replica, count);
  return true;
}

function countsToWire(counts: ReadonlyMap<ReplicaId, Count>, writer: WireWriter): unknown[] {
  const out: unknown[] = [];
  for (const [replica, count] of [...counts].sort((a, b) => (a[0] < b[0] ? -1 : 1))) {
    out.push(
      writer.replica(replica),
      writer.stamp(count.since),
      decimalToWire(count.p),
      decimalToWire(count.n),
    );
  }
  return out;
}

function countsFromWire(wire: unknown, reader: WireReader): Map<ReplicaId, Count> {
  const flat = asArray(wire, 'counts');
  if (flat.length % 4 !== 0) throw new DecodeError('counts are not in groups of four');
  const counts = new Map<ReplicaId, Count>();
  let last = '';
  for (let i = 0; i < flat.length; i += 4) {
    const replica = reader.replica(flat[i]);
    if (replica <= last) throw new DecodeError('counts are not in the order of their replicas');
    last = replica;
    counts.set(replica, {
      since: reader.stamp(flat[i + 1]),
      p: decimalFromWire(flat[i + 2]),
      n: decimalFromWire(flat[i + 3]),
    });
  }
  return counts;
}

/** The data type. One replica's count costs about 8 bytes on the wire, and a fraction its digits. */
export const counterType: DataType<Counter, CounterOp> = {
  name: 'counter',

  empty: () => ({ counts: new Map(), resets: new Map() }),

  mutate(state, op, site: Site) {
    const delta = counterType.empty();
    if (op.op === 'reset') {
      // Covered counts were dropped, and the resets that cover them have been sent: these are the ones to cancel.
      for (const [replica, count] of state.counts) delta.resets.set(replica, count);
      return delta;
    }
    requireDecimal(op.by);
    let own = state.counts.get(site.replica);
    if (own === undefined) {
      requireLater(site, state.resets.get(site.replica)?.since ?? 0);
      own = { since: site.stamp, p: 0, n: 0 };
    }
    delta.counts.set(
      site.replica,
      isNegative(op.by)
        ? { since: own.since, p: own.p, n: minusDecimal(own.n, op.by) }
        : { since: own.since, p: plusDecimal(own.p, op.by), n: own.n },
    );
    return delta;
  },

  merge(into, delta) {
    let grew = false;
    for (const [replica, reset] of delta.resets) {
      if (!raiseCount(into.resets, replica, reset)) continue;
      grew = true;
      const count = into.counts.get(replica);
      if (count !== undefined && compareCounts(count, reset) <= 0) into.counts.delete(replica);
    }
    for (const [replica, count] of delta.counts) {
      const reset = into.resets.get(replica);
      if (reset !== undefined && compareCounts(count, reset) <= 0) continue;
      if (raiseCount(into.counts, replica, count)) grew = true;
    }
    return grew;
  },

  clone: (state) => ({ counts: new Map(state.counts), resets: new Map(state.resets) }),

  toWire: (state, writer) => [countsToWire(state.counts, writer), countsToWire(state.resets, writer)],

  fromWire(wire, reader) {
    const parts = asArray(wire, 'counter', 2);
    const state = { counts: countsFromWire(parts[0], reader), resets: countsFromWire(parts[1], reader) };
    for (const [replica, count] of state.counts) {
      const reset = state.resets.get(replica);
      if (reset !== undefined && compareCounts(count, reset) <= 0) {
        throw new DecodeError('a count stands beside a reset that covers it: not canonical');
      }
    }
    return state;
  },
};
