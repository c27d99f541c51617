/**
 * A checker for resolvers of your own (policy.ts): is it deterministic and total, and does it give bytes? For your tests:
 *
 * ```ts
 * assertPassed(checkResolver(longestValue));
 * ```
 *
 * | law | what it says |
 * |---|---|
 * | `total` | it throws for no siblings: not for equal stamps, equal values, empty ones, or bytes that are no text. Siblings are frozen: who sorts or changes them in place throws |
 * | `bytes` | it gives a byte string, at once: text must be encoded with utf8(), a promise is none |
 * | `deterministic` | the same siblings give the same value: at once, as other objects, and after any other siblings |
 * | `order` | only with `anyOrder`: siblings in another order give the same value |
 *
 * The library always hands siblings over in the order of (stamp, replica), whatever order the writes arrived in. So a resolver
 * may rely on that order, as `lww` and `fww` do, and regions still agree. Whether it does is reported
 * as `orderDependent`, which is a finding and no failure; a resolver that is meant to depend on values alone, as `max`, can be held to that with `anyOrder`.
 *
 * Not found: a resolver that reads a clock or a setting which stays the same during the check, and one that never returns.
 */
import { type ByteString, isByteString, utf8 } from './bytes.js';
import { Chance, type CheckFailure, type CheckReport, show, shrink } from './check-report.js';
import { compareDots } from './dot.js';
import type { Resolver, SiblingValue } from './policy.js';
import { STAMPS_PER_MS, stampAt, stampMs } from './stamp.js';

/** What {@link checkResolver} may be told. */
export interface ResolverCheck {
  /** Values that the resolver is made for, put among the others. Default: none. */
  readonly values?: readonly ByteString[];
  /** Whether depending on the order of siblings is a failure. Default: false. */
  readonly anyOrder?: boolean;
  /** Default: 1. */
  readonly seed?: number;
  /** Lists of siblings: each value by itself, then random ones. Default: 1,000. */
  readonly cases?: number;
}

/** What {@link checkResolver} found. */
export interface ResolverReport extends CheckReport {
  /** The smallest list of siblings whose order makes a difference; null when none was found. */
  readonly orderDependent: CheckFailure | null;
}

const MOST_SIBLINGS = 8;
const START = stampAt(Date.UTC(2024, 0, 1));

/** Values at the edges: nothing, numbers of every form, text, bytes that are no text, much. The simplest first. */
const VALUES: readonly ByteString[] = [
  ...['', '0', '1', '-1', '10', '9', '1.0', '1.5', '-0', '9007199254740993', '1e3', 'Infinity', 'NaN'],
  ...['a', 'b', 'A', ' ', 'null', '{}', '{"a":1}', '[1]', '__proto__', 'x'.repeat(300)].map(utf8),
  ...['é', '\u{1f600}'].map(utf8),
  ...['\x00', '\xff', '\xc3', '\xff\x00\xfe\r\n'],
] as ByteString[];

const REGIONS = ['eu', 'us', 'ap'];
const REPLICAS = ['b.1', 'a.2', 'c.1', 'a.10', 'e.1', 'd.1', 'g.1', 'f.1'];

/** A sibling, before it is given to a resolver. */
type Draft = Pick<SiblingValue, 'value' | 'replica' | 'region' | 'stamp'>;

/** As the library makes them: frozen, each a new object. */
function siblings(drafts: readonly Draft[]): readonly SiblingValue[] {
  return Object.freeze(
    drafts.map(({ value, region, replica, stamp }) =>
      Object.freeze({ value, region, replica, stamp, atMs: stampMs(stamp) }),
    ),
  );
}

function drawSiblings(chance: Chance, values: readonly ByteString[]): Draft[] {
  const replicas = chance.shuffle(REPLICAS).slice(0, 1 + chance.below(MOST_SIBLINGS));
  // Few values and few times, so that equal ones are common.
  const some = Array.from({ length: 1 + chance.below(3) }, () => chance.pick(values));
  return replicas
    .map((replica) => ({
      value: chance.below(3) === 0 ? chance.pick(values) : chance.pick(some),
      region: chance.pick(REGIONS),
      replica,
      stamp: START + chance.pick([0, 0, 1, 5, STAMPS_PER_MS, 9000 * STAMPS_PER_MS]),
    }))
    .sort(compareDots);
}

/** Something that is wrong, without its counterexample. */
type Broken = Omit<CheckFailure, 'counterexample'> | null;

/** Calls a resolver as the library does; gives its value, or what is wrong. */
function call(resolver: Resolver, drafts: readonly Draft[]): ByteString | Exclude<Broken, null> {
  let value: unknown;
  try {
    value = resolver(siblings(drafts));
  } catch (error) {
    return { law: 'total', message: `it threw ${String(error)}` };
  }
  if (isByteString(value)) return value;
  if (value instanceof Promise) value.catch(() => {});
  const what =
    value instanceof Promise
      ? 'a promise: resolvers must be synchronous'
      : typeof value === 'string'
        ? `${show(value)}, which holds characters that are no bytes: encode text with utf8()`
        : `${show(value)}, of type ${typeof value}`;
  return { law: 'bytes', message: `it gave ${what}` };
}

/** Says what is wrong with a resolver on a list of siblings. It is tried more than once: chance shows only sometimes. */
function tryOne(resolver: Resolver, drafts: readonly Draft[], times: number): Broken {
  const first = call(resolver, drafts);
  if (typeof first !== 'string') return first;
  for (let i = 0; i < times; i += 1) {
    // Other siblings in between: what it remembers of them must not show.
    if (i > 0) call(resolver, drafts.slice(i % drafts.length));
    const again = call(resolver, drafts);
    if (typeof again !== 'string') return again;
    if (again !== first)
      return { law: 'deterministic', message: `it gave ${show(first)}, then ${show(again)}` };
  }
  return null;
}

function tryOrders(resolver: Resolver, drafts: readonly Draft[]): Broken {
  const first = call(resolver, drafts);
  for (let turn = 0; turn < 2 * drafts.length && typeof first === 'string'; turn += 1) {
    const turned = [...drafts.slice(turn % drafts.length), ...drafts.slice(0, turn % drafts.length)];
    const other = call(resolver, turn < drafts.length ? turned : turned.reverse());
    if (other !== first)
      return {
        law: 'order',
        message: `it gave ${show(first)} for these siblings, and ${show(other)} for the same in another order`,
      };
  }
  return null;
}

/** The smallest list of siblings with which something is still wrong. */
function smallest(
  drafts: readonly Draft[],
  values: readonly ByteString[],
  broken: (drafts: readonly Draft[]) => Broken,
): CheckFailure {
  const failing = shrink(
    drafts,
    (fewer) => fewer.length > 0 && broken(fewer) !== null,
    ({ value, ...rest }) =>
      values.slice(0, Math.max(0, values.indexOf(value))).map((simpler) => ({ value: simpler, ...rest })),
  );
  const failure = broken(failing) ?? broken(drafts) ?? { law: 'deterministic', message: 'it failed once' };
  const counterexample = failing.map(
    ({ value, region, replica, stamp }) => `${show(value)} by ${replica} in ${region} at ${stamp}`,
  );
  return { ...failure, counterexample };
}

/**
 * Checks a resolver on random siblings and on edge cases, and reports the smallest counterexample: a list from which no sibling can
 * be left out. Never throws for what the resolver does.
 */
export function checkResolver(resolver: Resolver, options: ResolverCheck = {}): ResolverReport {
  const { seed = 1, cases = 1000, anyOrder = false } = options;
  const values = [...VALUES, ...(options.values ?? [])];
  const chance = new Chance(seed);
  const seen: { readonly drafts: readonly Draft[]; readonly value: ByteString }[] = [];
  let orderDependent: CheckFailure | null = null;
  const fail = (at: number, failure: CheckFailure): ResolverReport => ({
    ok: false,
    seed,
    cases: at,
    failure,
    orderDependent,
  });
  for (let at = 1; at <= cases; at += 1) {
    // Each value by itself comes first: what is wrong with one needs no more to be seen, and little has been shown before.
    const alone = values[at - 1];
    const drafts =
      alone === undefined
        ? drawSiblings(chance, values)
        : [{ value: alone, region: REGIONS[0]!, replica: REPLICAS[0]!, stamp: START }];
    if (tryOne(resolver, drafts, 3) !== null) {
      return fail(
        at,
        smallest(drafts, values, (fewer) => tryOne(resolver, fewer, 20)),
      );
    }
    if (orderDependent === null && tryOrders(resolver, drafts) !== null) {
      orderDependent = smallest(drafts, values, (fewer) => tryOrders(resolver, fewer));
      if (anyOrder) return fail(at, orderDependent);
    }
    const value = call(resolver, drafts);
    if (typeof value === 'string') seen.push({ drafts, value });
  }
  // Once more, backwards: what it came to must not depend on what came before.
  for (const { drafts, value } of seen.reverse()) {
    const again = call(resolver, drafts);
    if (again === value) continue;
    const message = `it gave ${show(value)}, and later, after other siblings, ${show(again)}`;
    return fail(cases, {
      ...smallest(drafts, values, (fewer) => tryOne(resolver, fewer, 20)),
      law: 'deterministic',
      message,
    });
  }
  return { ok: true, seed, cases, orderDependent };
}
