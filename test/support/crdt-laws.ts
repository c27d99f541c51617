/**
 * The laws of a delta-state CRDT, on random histories. A type supplies an operation generator; everything else is here.
 *
 * Restrictions that the types document, and that histories keep: deltas are delivered causally, and joined to one another
 * only when made one after the other at one replica with nothing merged in between.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { anySteps, type Entry, type History, play, type Subject } from './crdt-history.js';
import { check, Random } from './crdt-runs.js';

/** A state as plain arrays and strings, maps in the order of their keys: equality that doesn't know the wire form. */
export function plain(value: unknown): unknown {
  if (value instanceof Map) {
    return [...value]
      .map(([key, item]) => [key, plain(item)] as [string, unknown])
      .sort(([a], [b]) => (a < b ? -1 : 1));
  }
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'object' && value !== null) {
    if (isEmpty(value)) return null;
    const fields = Object.entries(value).filter(([field]) => field !== 'size' || !isPartial(value));
    return Object.fromEntries(fields.map(([field, item]) => [field, plain(item)]));
  }
  return value;
}

/** An empty sub-state of a key is as good as none. */
function isEmpty(value: object): boolean {
  const { context, entries, siblings } = value as Record<string, unknown>;
  const members = entries ?? siblings;
  return context instanceof Map && context.size === 0 && members instanceof Map && members.size === 0;
}

/** The size of a set that isn't whole isn't part of its delta. */
function isPartial(value: object): boolean {
  return 'whole' in value && value.whole === false;
}

function join<State>(subject: Subject<State, unknown>, ...states: readonly State[]): State {
  const into = subject.empty();
  for (const state of states) subject.merge(into, state);
  return into;
}

function checkLattice<State>(
  subject: Subject<State, unknown>,
  states: readonly State[],
  random: Random,
): void {
  const [a, b, c] = [random.pick(states), random.pick(states), random.pick(states)];
  const bytes = [a, b, c].map(subject.encode);
  const ab = join(subject, a, b);
  assert.equal(subject.encode(join(subject, b, a)), subject.encode(ab), 'commutative');
  const bc = join(subject, b, c);
  assert.equal(subject.encode(join(subject, ab, c)), subject.encode(join(subject, a, bc)), 'associative');
  assert.equal(subject.merge(subject.clone(a), a), false, 'idempotent');
  assert.equal(subject.merge(subject.clone(ab), a), false, 'a join holds both sides');
  assert.equal(subject.merge(subject.clone(a), subject.empty()), false, 'bottom is neutral');
  assert.equal(subject.encode(join(subject, a)), bytes[0], 'bottom is neutral on the left');
  assert.equal(
    subject.encode(a) === subject.encode(b),
    JSON.stringify(plain(a)) === JSON.stringify(plain(b)),
  );

  const copy = subject.clone(a);
  subject.merge(copy, b);
  subject.merge(copy, c);
  assert.deepEqual([a, b, c].map(subject.encode), bytes, 'joins and clones share nothing that changes');
}

function checkRoundTrip<State>(subject: Subject<State, unknown>, state: State): void {
  const bytes = subject.encode(state);
  const back = subject.decode(bytes);
  assert.equal(subject.encode(back), bytes, 'equal states, equal bytes');
  assert.deepEqual(plain(back), plain(state), 'decoding gives the state back');
}

/** Joins neighbouring deltas of one replica where that is allowed, at random. */
function group<State, Op>(history: History<State, Op>, random: Random): Entry<State, Op>[][] {
  const groups: Entry<State, Op>[][] = [];
  for (const entries of history.byOrigin) {
    for (const [i, entry] of entries.entries()) {
      const last = entries[i - 1];
      if (last !== undefined && last.era === entry.era && random.chance(60)) groups.at(-1)!.push(entry);
      else groups.push([entry]);
    }
  }
  return groups;
}

/** A replica that gets joined deltas, in any causal order, and some twice. */
function replay<State, Op>(history: History<State, Op>, random: Random): State {
  const { subject } = history;
  const state = subject.empty();
  const applied = history.replicas.map(() => 0);
  let waiting = random.shuffle(group(history, random));
  while (waiting.length > 0) {
    const isReady = ([first]: Entry<State, Op>[]) =>
      first!.after.every((count, origin) => count <= applied[origin]!);
    const next = waiting.find(isReady)!;
    const delta = subject.clone(next[0]!.delta);
    for (const entry of next.slice(1)) subject.append(delta, entry.delta);
    checkRoundTrip(subject, delta);
    const before = subject.encode(state);
    assert.equal(
      subject.merge(state, subject.decode(subject.encode(delta))),
      subject.encode(state) !== before,
    );
    assert.equal(subject.merge(state, delta), false, 'a delta that arrives twice changes nothing');
    applied[next[0]!.origin]! += next.length;
    waiting = waiting.filter((other) => other !== next);
  }
  return state;
}

/** Defines the tests of one type. `usual` = number of histories in `npm test`. */
export function testLaws<State, Op>(subject: Subject<State, Op>, usual = 300): void {
  test(`${subject.name}: every law of a delta-state lattice holds on random histories`, () => {
    check(
      usual,
      fc.property(anySteps, fc.nat(), (steps, seed) => {
        const random = new Random(seed);
        const history = play(subject, steps);
        const states = [...history.snapshots, ...history.replicas.map(({ state }) => subject.clone(state))];
        for (let i = 0; i < 3; i += 1) checkLattice(subject, states, random);
        for (const state of states) checkRoundTrip(subject, state);
        const joined = subject.encode(join(subject, ...random.shuffle(states)));

        history.settle(random);
        for (const { state } of history.replicas) {
          assert.equal(subject.encode(state), joined, 'delta-joins are state-joins');
          assert.equal(subject.encode(replay(history, random)), joined, 'joined deltas do what deltas do');
        }
        for (const entry of history.entries) {
          assert.equal(subject.encode(entry.delta), entry.bytes, 'no delta was changed after it was made');
          checkRoundTrip(subject, entry.delta);
        }
      }),
    );
  });
}
