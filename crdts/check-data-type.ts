/**
 * A checker for data types of your own: random histories, every law of a delta-state lattice, and, where you give one, a
 * model. For your tests:
 *
 * ```ts
 * assertPassed(checkDataType(maxRegister, {
 *   operations: [{ op: 'write', value: 1 }, { op: 'write', value: 2 }],
 *   model: { empty: 0, apply: (value, op) => Math.max(value, op.value), read: (state) => state.value },
 * }));
 * ```
 *
 * The laws alone are not enough: a set whose remove does nothing is a perfect lattice. The model says what the type is
 * *for*: when replicas take turns, and each sees everything before it acts, the type must be a plain value.
 *
 * | law | what it says |
 * |---|---|
 * | `pure` | mutate leaves the state alone, is repeatable, and changes nothing when it throws; merge leaves its delta alone, also later |
 * | `grew` | merge gives true exactly when the wire form of what it merged into has changed |
 * | `commutative`, `associative`, `idempotent` | joins give the same whatever their order, and however often |
 * | `bottom` | the empty state changes nothing, and takes any other one over |
 * | `clone` | a clone is equal, and shares nothing that changes |
 * | `canonical` | equal states have equal wire forms |
 * | `wire form`, `round trip` | a form is a tree of the allowed values, and is read as the same state |
 * | `decode` | a malformed form is refused with DecodeError |
 * | `converges` | with the same deltas all replicas have the same state, through the wire or not |
 * | `delta joins` | merging deltas, one by one or joined, gives what merging states gives |
 * | `model` | taking turns, every replica reads what the model says |
 * | `total` | nothing but `mutate` and `fromWire` throws |
 * | `operations` | at least one operation was possible: else nothing was checked |
 *
 * Histories keep what the types may rely on: causal delivery, stamps that are new to their replica, and deltas joined to one
 * another only when made one after the other at one replica with nothing merged in between. `model` means that read and
 * `apply` are pure, too.
 */
import { CheckedHistory, type HistoryStep, REPLICAS } from './check-history.js';
import { checkForms, checkLattice, checkSettled } from './check-laws.js';
import { Chance, type CheckFailure, type CheckReport, sameContent, show, shrink } from './check-report.js';
import { expectLaw, LawBroken } from './check-wire.js';
import type { DataType } from './data-type.js';

/** What a type comes to when replicas take turns: a plain value. */
export interface TurnModel<State, Op, Value> {
  /** What {@link read} gives of the empty state. */
  readonly empty: Value;
  /** What an operation makes of the value; pure. */
  apply(value: Value, op: Op): Value;
  /** What users see of a state: numbers, strings, arrays, maps, sets and plain objects of them. */
  read(state: State): Value;
}

/** What {@link checkDataType} needs. */
export interface DataTypeCheck<State, Op, Value> {
  /**
   * Operations to choose from, the simplest first; or a function that draws one that is possible in a state, and null when
   * none came to mind. What `mutate` refuses by throwing is left out.
   */
  readonly operations: readonly Op[] | ((state: State, chance: Chance) => Op | null);
  /** Default: none, and then nothing says that the type does anything at all. */
  readonly model?: TurnModel<State, Op, Value>;
  /** Default: 1. */
  readonly seed?: number;
  /** Random histories. Default: 300. */
  readonly histories?: number;
  /** Steps of a history. Default: 30. */
  readonly steps?: number;
}

/** Plays steps and checks all laws; gives what is broken first, with what led to it. */
function play<State, Op, Value>(
  type: DataType<State, Op>,
  steps: Iterable<HistoryStep<Op>> | ((history: CheckedHistory<State, Op>) => Iterable<HistoryStep<Op>>),
  model: TurnModel<State, Op, Value> | null,
): { readonly failure: CheckFailure | null; readonly done: number } {
  let history: CheckedHistory<State, Op> | null = null;
  try {
    history = new CheckedHistory(type);
    for (const step of typeof steps === 'function' ? steps(history) : steps) {
      const before = history.done.length;
      history.step(step);
      if (model !== null && history.done.length > before) takeTurn(history, model);
    }
    if (model === null) {
      checkLattice(type, history);
      checkForms(type, history);
      checkSettled(type, history);
    }
    return { failure: null, done: history.done.length };
  } catch (error) {
    const [law, message] =
      error instanceof LawBroken ? [error.law, error.message] : ['total', `it threw ${String(error)}`];
    return {
      failure: { law, message, counterexample: [...(history?.log ?? [])] },
      done: history?.done.length ?? 0,
    };
  }
}

/** All replicas get what was just done, and must read what the model says. */
function takeTurn<State, Op, Value>(
  history: CheckedHistory<State, Op>,
  model: TurnModel<State, Op, Value>,
): void {
  history.settle();
  const value = history.done.reduce((now, op) => model.apply(now, op), model.empty);
  for (const { state } of history.members) {
    const read = model.read(state);
    expectLaw(
      sameContent(read, value),
      'model',
      () => `a replica reads ${show(read)}, the model says ${show(value)}`,
    );
  }
}

/** Draws the steps of a history while it is played, and keeps them. */
function* draw<State, Op>(
  history: CheckedHistory<State, Op>,
  options: DataTypeCheck<State, Op, never>,
  chance: Chance,
  turns: boolean,
  kept: HistoryStep<Op>[],
): Generator<HistoryStep<Op>> {
  const { operations } = options;
  for (let left = 1 + chance.below(options.steps ?? 30); left > 0; left -= 1) {
    const at = chance.below(REPLICAS);
    const action = turns ? 0 : chance.below(12);
    let step: HistoryStep<Op>;
    if (action < 5) {
      const op =
        typeof operations === 'function'
          ? operations(history.members[at]!.state, chance)
          : operations.length > 0
            ? chance.pick(operations)
            : null;
      if (op === null) continue;
      step = { kind: 'do', at, op };
    } else {
      const kind = action < 9 ? 'deliver' : action < 10 ? 'again' : 'merge';
      step = { kind, at, choice: chance.below(64) };
    }
    kept.push(step);
    yield step;
  }
}

/** Steps that say the same more simply. */
function simpler<Op>(step: HistoryStep<Op>, operations: readonly Op[]): HistoryStep<Op>[] {
  const out: HistoryStep<Op>[] = [];
  for (let at = 0; at < step.at; at += 1) out.push({ ...step, at });
  if (step.kind === 'do') {
    for (const op of operations.slice(0, Math.max(0, operations.indexOf(step.op)))) out.push({ ...step, op });
  } else {
    for (let choice = 0; choice < Math.min(step.choice, 8); choice += 1) out.push({ ...step, choice });
  }
  return out;
}

/**
 * Checks a data type, and reports the smallest counterexample that was found: a history from which no step can be left out. Never
 * throws for what the type does.
 */
export function checkDataType<State, Op, Value = never>(
  type: DataType<State, Op>,
  options: DataTypeCheck<NoInfer<State>, NoInfer<Op>, Value>,
): CheckReport {
  const seed = options.seed ?? 1;
  const histories = options.histories ?? 300;
  const { operations } = options;
  let done = 0;
  for (let cases = 1; cases <= histories; cases += 1) {
    for (const model of options.model === undefined ? [null] : [null, options.model]) {
      const chance = new Chance(Math.imul(seed, 0x9e3779b1) + 2 * cases + (model === null ? 0 : 1));
      const kept: HistoryStep<Op>[] = [];
      const found = play(
        type,
        (history) => draw(history, options as DataTypeCheck<State, Op, never>, chance, model !== null, kept),
        model,
      );
      done += found.done;
      if (found.failure === null) continue;
      const smallest = shrink(
        kept,
        (steps) => play(type, steps, model).failure !== null,
        (step) => simpler(step, typeof operations === 'function' ? [] : operations),
      );
      // A type that isn't deterministic may not fail a second time: then what was seen is all there is.
      return { ok: false, seed, cases, failure: play(type, smallest, model).failure ?? found.failure };
    }
  }
  if (done > 0 || histories === 0) return { ok: true, seed, cases: histories };
  const failure = {
    law: 'operations',
    message: 'not one operation was possible: nothing was checked',
    counterexample: [],
  };
  return { ok: false, seed, cases: histories, failure };
}
