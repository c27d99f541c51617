/**
 * What concurrent histories must end as, told from who observed what, and not from any data structure: an element is
 * present if and only if some add of it was observed by no remove; a string is its winning SET and every increment that
 * no SET or DEL observed.
 */
import {
  type ByteString,
  type CounterOp,
  compareDots,
  type ExpiryOp,
  type SetOp,
  type StringOp,
} from '../../crdts/index.js';
import type { Entry, History } from './crdt-history.js';

/** Part of a history: operations, and who observed whom. */
export interface Past<Op> {
  readonly entries: readonly Entry<unknown, Op>[];
  observed(later: Entry<unknown, Op>, earlier: Entry<unknown, Op>): boolean;
}

/** What one replica has seen so far. */
export function pastOf<State, Op>(history: History<State, Op>, at: number): Past<Op> {
  return {
    entries: history.seenBy(at),
    observed: (later, earlier) => history.observed(later as Entry<State, Op>, earlier as Entry<State, Op>),
  };
}

/** The operations of one kind that no operation of another kind observed. */
function survivors<Op>(
  past: Past<Op>,
  is: (op: Op) => boolean,
  ends: (op: Op) => boolean,
): Entry<unknown, Op>[] {
  const enders = past.entries.filter(({ op }) => ends(op));
  return past.entries.filter((entry) => is(entry.op) && !enders.some((ender) => past.observed(ender, entry)));
}

export function expectedMembers(past: Past<SetOp>): ByteString[] {
  const named = new Set(past.entries.flatMap(({ op }) => (op.op === 'clear' ? [] : op.members)));
  return [...named]
    .filter(
      (member) =>
        survivors(
          past,
          (op) => op.op === 'add' && op.members.includes(member),
          (op) => op.op === 'clear' || (op.op === 'remove' && op.members.includes(member)),
        ).length > 0,
    )
    .sort();
}

/** A number's text in units of 10^-17, told without the library; null when it is no number. */
export function units(value: string): bigint | null {
  const match = /^(-?)(\d*)(?:\.(\d*))?$/.exec(value);
  if (match === null || !/\d/.test(value)) return null;
  const [, sign, whole, fraction = ''] = match;
  const size = BigInt(`${whole}${fraction}${'0'.repeat(17 - fraction.length)}`);
  return sign === '-' ? -size : size;
}

/** The text of a number of units. */
export function fromUnits(all: bigint): string {
  const size = all < 0n ? -all : all;
  const fraction = String(10n ** 17n + (size % 10n ** 17n)).slice(1);
  const text = `${size / 10n ** 17n}.${fraction}`.replace(/\.?0+$/, '');
  return all < 0n ? `-${text}` : text;
}

/** What was added, in units of 10^-17. */
export function expectedCount(past: Past<CounterOp>): bigint {
  const kept = survivors(
    past,
    (op) => op.op === 'add',
    (op) => op.op === 'reset',
  );
  return kept.reduce((sum, { op }) => sum + (op.op === 'add' ? units(String(op.by))! : 0n), 0n);
}

/** The value of the write with the greatest dot; undefined when nothing was written. */
export function lastValue<Op>(
  past: Past<Op>,
  written: (op: Op) => ByteString | null | undefined,
): ByteString | null | undefined {
  const writes = past.entries.filter(({ op }) => written(op) !== undefined);
  if (writes.length === 0) return undefined;
  return written(writes.reduce((last, next) => (compareDots(next.site, last.site) > 0 ? next : last)).op);
}

export function expectedString(past: Past<StringOp>): string | null {
  const base =
    lastValue(past, (op) => (op.op === 'write' ? op.value : op.op === 'delete' ? null : undefined)) ?? null;
  const kept = survivors(
    past,
    (op) => 'by' in op,
    (op) => !('by' in op),
  );
  const start = base === null ? 0n : units(base);
  if (kept.length === 0 || start === null) return base;
  return fromUnits(kept.reduce((sum, { op }) => sum + ('by' in op ? units(String(op.by))! : 0n), start));
}

/** The values of the writes that nothing later replaced, sorted. */
export function expectedSiblings<V>(past: Past<{ op: 'write'; value: V } | { op: 'clear' }>): V[] {
  const kept = survivors(
    past,
    (op) => op.op === 'write',
    () => true,
  );
  return kept.map(({ op }) => (op as { value: V }).value).sort();
}

export function expectedDeadline(past: Past<ExpiryOp>): number | null {
  const kept = expectedSiblings(past as Past<{ op: 'write'; value: number | null } | { op: 'clear' }>);
  return kept.length === 0 || kept.includes(null) ? null : Math.max(...(kept as number[]));
}
