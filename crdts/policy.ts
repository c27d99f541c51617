/**
 * Policies: how a string key's visible value is chosen among concurrent writes.
 *
 * Under `lww` the key is the compact register (string-key.ts), and the join itself chooses. Every other policy keeps
 * concurrent writes side by side (multi-value.ts) and chooses *when the value is read*, with a pure function of the siblings.
 * The join never calls it, so no policy can break convergence: the worst resolver only chooses badly, everywhere alike,
 * as long as it is deterministic (check-resolver.ts says whether it is).
 */
import { type ByteString, isByteString } from './bytes.js';
import { compareDots, type Dot, type ReplicaId } from './dot.js';
import { MeshError } from './errors.js';
import { type MultiValue, multiValueType } from './multi-value.js';
import { type Stamp, stampMs } from './stamp.js';
import { asArray, compareBytes } from './wire.js';

/** A written value, and where it was written: the region is part of the data, so that all replicas see the same one. */
export interface WrittenValue {
  readonly bytes: ByteString;
  readonly region: ByteString;
}

/** Concurrent values of a key under a policy other than lww. */
export type ValuesState = MultiValue<WrittenValue>;

/** The data type. One value costs its bytes, its region's name and about 8 bytes on the wire. */
export const valuesType = multiValueType<WrittenValue>(
  'values',
  (value, writer) => [writer.bytes(value.bytes), writer.bytes(value.region)],
  (wire, reader) => {
    const parts = asArray(wire, 'written value', 2);
    return { bytes: reader.bytes(parts[0]), region: reader.bytes(parts[1]) };
  },
);

/** Says whether any value is there. */
export function hasValues(state: ValuesState): boolean {
  return state.siblings.size > 0;
}

/** The greatest write that is in force: decides which type is visible where two regions chose differently. */
export function lastValuesWrite(state: ValuesState): Dot {
  let last: Dot = { stamp: 0, replica: '' };
  for (const [replica, { stamp }] of state.siblings) {
    const dot = { stamp, replica };
    if (compareDots(dot, last) > 0) last = dot;
  }
  return last;
}

/** One of the concurrent writes, as a resolver sees it. Frozen. */
export interface SiblingValue {
  readonly value: ByteString;
  /** Region that wrote it. */
  readonly region: string;
  readonly replica: ReplicaId;
  readonly stamp: Stamp;
  /** When it was written: Unix milliseconds. */
  readonly atMs: number;
}

/**
 * Chooses or computes the visible value. `siblings` are sorted by (stamp, replica), never empty. Must be deterministic and
 * total: a function of its argument alone, that gives a byte string for any siblings.
 */
export type Resolver = (siblings: readonly SiblingValue[]) => ByteString;

/** Thrown when a resolver throws, or gives anything but a byte string (a promise, say). */
export class ResolverError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('RESOLVER', message, options);
  }
}

/** The policies that come with the library. */
export type PolicyName = 'lww' | 'fww' | 'max' | 'min';

/** Says whether a value is a plain decimal number. */
function isNumeric(value: string): boolean {
  return value.length <= 40 && /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$/.test(value);
}

/** Orders values: numbers by size (then by bytes), everything else by bytes. Null where a number meets something else. */
function compareValues(a: ByteString, b: ByteString): number | null {
  const [left, right] = [isNumeric(a), isNumeric(b)];
  if (left !== right) return null;
  return (left ? compareDecimals(a, b) : 0) || compareBytes(a, b);
}

/** Compares exactly: with doubles for some pairs and digits for others, three numbers can each be greater than the next. */
function compareDecimals(a: string, b: string): number {
  const [wholeA, fractionA = ''] = a.split('.');
  const [wholeB, fractionB = ''] = b.split('.');
  const digits = Math.max(fractionA.length, fractionB.length);
  const difference =
    BigInt(wholeA + fractionA.padEnd(digits, '0')) - BigInt(wholeB + fractionB.padEnd(digits, '0'));
  return difference === 0n ? 0 : difference < 0n ? -1 : 1;
}

/** Chooses an extreme; where numbers and others meet, numbers win; among equals, the latest. */
function extreme(siblings: readonly SiblingValue[], sign: 1 | -1): ByteString {
  return siblings.reduce((best, next) => {
    const order = compareValues(next.value, best.value);
    if (order === null) return isNumeric(next.value) ? next : best;
    return order * sign >= 0 ? next : best;
  }).value;
}

/** The resolvers of the named policies. `lww` is here for siblings that a change of rules left behind. */
export const resolvers: Readonly<Record<PolicyName, Resolver>> = {
  /** The latest write. */
  lww: (siblings) => siblings[siblings.length - 1]!.value,
  /** The earliest write. A later one that saw it was refused, so siblings are concurrent firsts. */
  fww: (siblings) => siblings[0]!.value,
  /** The greatest value: numerically where all are decimal numbers, else by bytes. */
  max: (siblings) => extreme(siblings, 1),
  /** The least value, likewise. */
  min: (siblings) => extreme(siblings, -1),
};

/** The siblings as a resolver sees them: sorted by (stamp, replica). */
export function siblingsOf(state: ValuesState): readonly SiblingValue[] {
  return [...state.siblings]
    .map(([replica, { stamp, value }]) =>
      Object.freeze({
        value: value.bytes,
        region: value.region as string,
        replica,
        stamp,
        atMs: stampMs(stamp),
      }),
    )
    .sort(compareDots);
}

/** Resolves siblings. Throws ResolverError when the resolver does, or when what it gives isn't a byte string. */
export function resolve(siblings: readonly SiblingValue[], resolver: Resolver): ByteString {
  let value: unknown;
  try {
    value = resolver(Object.freeze([...siblings]));
  } catch (cause) {
    throw new ResolverError('the resolver threw', { cause });
  }
  if (!isByteString(value)) {
    const what = value instanceof Promise ? 'a promise' : typeof value;
    throw new ResolverError(
      `the resolver gave ${what}, not a byte string: it must be synchronous and encode text with utf8()`,
    );
  }
  return value;
}
