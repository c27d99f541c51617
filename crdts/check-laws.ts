/** The laws of a lattice and of its wire forms, on the states that a history went through (check-data-type.ts lists them). */
import type { CheckedHistory } from './check-history.js';
import { sameContent } from './check-report.js';
import { expectLaw, formOf, readsMalformed, throughWire } from './check-wire.js';
import type { DataType } from './data-type.js';

/** States that are compared with one another: those at the end, and a few from before. */
const EARLIER = 3;

function chosenStates<State, Op>(history: CheckedHistory<State, Op>): State[] {
  const { snapshots, members } = history;
  const earlier = Array.from(
    { length: Math.min(EARLIER, snapshots.length) },
    (_, i) => snapshots[Math.floor((i * snapshots.length) / EARLIER)]!.state,
  );
  return [...members.map(({ state }) => state), ...earlier];
}

function join<State, Op>(type: DataType<State, Op>, ...states: readonly State[]): State {
  const into = type.empty();
  for (const state of states) type.merge(into, state);
  return into;
}

/** Throws LawBroken unless two joins are equal; tells states that differ from forms that do. */
function expectEqual<State, Op>(
  type: DataType<State, Op>,
  a: State,
  b: State,
  law: string,
  what: string,
): void {
  const [left, right] = [formOf(type, a), formOf(type, b)];
  if (left === right) return;
  expectLaw(!sameContent(a, b), 'canonical', () => `one state has two forms, ${left} and ${right}`);
  expectLaw(false, law, () => `${what}: ${left} and ${right}`);
}

/** Joins of any states, in any order, however often. */
export function checkLattice<State, Op>(type: DataType<State, Op>, history: CheckedHistory<State, Op>): void {
  const states = chosenStates(history);
  const forms = states.map((state) => formOf(type, state));
  for (const [i, a] of states.entries()) {
    checkAlone(type, a, forms[i]!);
    for (const [j, b] of states.entries()) {
      const ab = join(type, a, b);
      expectEqual(type, ab, join(type, b, a), 'commutative', 'a ∨ b and b ∨ a differ');
      expectLaw(!type.merge(ab, a), 'idempotent', () => `(a ∨ b) grew by a: ${forms[i]} and ${forms[j]}`);
      const c = states[(i + j + 1) % states.length]!;
      expectEqual(
        type,
        join(type, ab, c),
        join(type, a, join(type, b, c)),
        'associative',
        '(a ∨ b) ∨ c and a ∨ (b ∨ c) differ',
      );
      const copy = type.clone(a);
      type.merge(copy, b);
      const left = formOf(type, a);
      expectLaw(
        left === forms[i],
        'clone',
        () => `merging into a clone changed the original from ${forms[i]} to ${left}`,
      );
    }
  }
  for (const [i, state] of states.entries()) {
    const left = formOf(type, state);
    expectLaw(left === forms[i], 'pure', () => `a join changed what was joined from ${forms[i]} to ${left}`);
  }
}

function checkAlone<State, Op>(type: DataType<State, Op>, state: State, form: string): void {
  const copy = type.clone(state);
  const cloned = formOf(type, copy);
  expectLaw(cloned === form, 'clone', () => `the clone of ${form} is ${cloned}`);
  expectLaw(!type.merge(copy, state), 'idempotent', () => `${form} grew by itself`);
  expectLaw(!type.merge(copy, type.empty()), 'bottom', () => `${form} grew by the empty state`);
  expectEqual(type, join(type, state), state, 'bottom', 'the empty state joined with a state is another one');
}

/** Things that a form may hold where it shouldn't. */
const JUNK: readonly unknown[] = [
  undefined,
  null,
  -1,
  -0,
  0.5,
  1e9,
  Number.NaN,
  'x',
  'é',
  [],
  {},
  Uint8Array.of(200),
];

/** Every form with one thing replaced, left out or said twice. */
function* spoilers(body: unknown): Generator<(body: unknown) => unknown> {
  for (const junk of JUNK) yield () => junk;
  if (!Array.isArray(body)) return;
  for (const [at, item] of body.entries()) {
    const replace = (other: readonly unknown[]) => (whole: unknown) => {
      const items = whole as unknown[];
      return [...items.slice(0, at), ...other, ...items.slice(at + 1)];
    };
    yield replace([]);
    yield replace([item, item]);
    for (const spoil of spoilers(item)) yield replace([spoil(item)]);
  }
}

/** How many malformed forms of a history are tried. */
const MOST_SPOILED = 200;

/** Wire forms of states: read back, and refused when malformed. */
export function checkForms<State, Op>(type: DataType<State, Op>, history: CheckedHistory<State, Op>): void {
  for (const { state } of history.members) {
    const back = throughWire(type, state);
    const form = formOf(type, state);
    const copy = type.clone(state);
    expectLaw(
      !type.merge(copy, back),
      'round trip',
      () => `${form}, read back, is more than what was written`,
    );
    expectLaw(
      !type.merge(back, state),
      'round trip',
      () => `${form}, read back, is less than what was written`,
    );
  }
  let body: unknown;
  const { state } = history.members[0]!;
  readsMalformed(type, state, (whole) => {
    body = whole;
    return whole;
  });
  let left = MOST_SPOILED;
  for (const spoil of spoilers(body)) {
    if (left-- === 0) break;
    readsMalformed(type, state, () => spoil(body));
  }
}

/** When all deltas have arrived: all replicas are equal, and what states joined and deltas joined come to. */
export function checkSettled<State, Op>(type: DataType<State, Op>, history: CheckedHistory<State, Op>): void {
  const joined = join(type, ...history.members.map(({ state }) => state));
  history.settle();
  const [first, ...others] = history.members;
  for (const { state } of others)
    expectEqual(type, first!.state, state, 'converges', 'two replicas that merged the same deltas differ');
  expectEqual(type, first!.state, joined, 'delta joins', 'deltas merged and states joined differ');

  const fresh = type.empty();
  const merged = history.members.map(() => 0);
  const waiting = runs(history);
  while (waiting.length > 0) {
    const at = waiting.findIndex(([made]) => made!.after.every((count, i) => count <= merged[i]!));
    const [run] = waiting.splice(at, 1);
    const delta = type.clone(run![0]!.delta);
    for (const made of run!.slice(1)) type.merge(delta, made.delta);
    type.merge(fresh, throughWire(type, delta));
    merged[run![0]!.origin]! += run!.length;
  }
  expectEqual(type, fresh, joined, 'delta joins', 'deltas joined to one another and states joined differ');
  for (const { delta, form } of history.made) {
    const left = formOf(type, delta);
    expectLaw(left === form, 'pure', () => `a delta changed after it was merged, from ${form} to ${left}`);
  }
}

/** The deltas, those together that were made one after the other with nothing merged in between. */
function runs<State, Op>(history: CheckedHistory<State, Op>): CheckedHistory<State, Op>['made'][number][][] {
  const out: CheckedHistory<State, Op>['made'][number][][] = [];
  for (const made of history.made) {
    const last = out.at(-1)?.[0];
    if (last !== undefined && last.origin === made.origin && last.era === made.era) out.at(-1)!.push(made);
    else out.push([made]);
  }
  return out;
}
