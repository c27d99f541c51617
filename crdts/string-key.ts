/**
 * The string of a key: a last-writer-wins register and a resettable counter side by side.
 *
 * Conflict rule: the visible string is the winning SET's value plus every increment that no SET or DEL observed. SET and
 * DEL write the register *and* reset every count that they saw; INCR only moves a count. So concurrent increments all
 * count, whatever SET runs beside them. Onto a value that is not a number, increments are kept but not applied.
 *
 * What merge must answer: which SET or DEL is the last, and which increments did it not see? (The product of the two
 * joins answers both, each on its own.)
 */
import type { ByteString } from './bytes.js';
import { type Counter, counterType, counterValue } from './counter.js';
import type { DataType } from './data-type.js';
import {
  type Decimal,
  formatDecimal,
  isInDecimalRange,
  isNegative,
  parseDecimal,
  plusDecimal,
  readDecimal,
  requireDecimal,
} from './decimal.js';
import { compareDots, type Dot, type Site } from './dot.js';
import { DecodeError, FloatRangeError, NotAnIntegerError, OverflowError } from './errors.js';
import { type Integer, isInt64, parseInt64, parseInteger, plus, requireInt64 } from './integer.js';
import { isPresent, type Register, registerType, registerValue } from './register.js';
import { asArray } from './wire.js';

/** A string's state. */
export interface StringState {
  register: Register;
  /** null while nothing was ever counted: most strings never are. */
  counter: Counter | null;
}

/** What can be done to a string. */
export type StringOp =
  /** SET. */
  | { readonly op: 'write'; readonly value: ByteString }
  /** DEL. */
  | { readonly op: 'delete' }
  /** INCRBY: the value must be a 64-bit integer. */
  | { readonly op: 'add'; readonly by: Integer }
  /** INCRBYFLOAT: the value may be any number. */
  | { readonly op: 'addFloat'; readonly by: Decimal };

/** Says whether the string exists: it has a value, or increments that no DEL saw. */
export function isStringLive(state: StringState): boolean {
  return isPresent(state.register) || (state.counter !== null && state.counter.counts.size > 0);
}

/** The visible string, or null when it doesn't exist. */
export function stringValue(state: StringState): ByteString | null {
  if (!isStringLive(state)) return null;
  const value = registerValue(state.register);
  if (state.counter === null || state.counter.counts.size === 0) return value;
  const base = value === null ? 0 : parseDecimal(value);
  return base === null ? value : formatDecimal(plusDecimal(base, counterValue(state.counter)));
}

/** The greatest dot that makes the string live: decides which type is visible where two regions chose differently. */
export function lastStringWrite(state: StringState): Dot {
  let last: Dot = isPresent(state.register) ? state.register : { stamp: 0, replica: '' };
  if (state.counter !== null) {
    for (const [replica, { since }] of state.counter.counts) {
      const dot = { stamp: since, replica };
      if (compareDots(dot, last) > 0) last = dot;
    }
  }
  return last;
}

/** What INCRBY would make of a string. Throws NotAnIntegerError or OverflowError as Valkey does. */
export function incremented(current: ByteString | null, by: Integer): Integer {
  const base = current === null ? 0 : parseInteger(current);
  if (base === null) throw new NotAnIntegerError();
  const next = plus(base, by);
  // Concurrent increments may have carried the value out of 64 bits; steps that lead back are allowed.
  if (!isInt64(next) && (by >= 0 ? next > 0 : next < 0)) throw new OverflowError();
  return next;
}

/**
 * What INCRBYFLOAT would make of a string. Throws NotAFloatError and NotFiniteError as Valkey does, FloatRangeError for what
 * would leave the range of exact decimals.
 */
export function incrementedFloat(current: ByteString | null, by: Decimal): Decimal {
  requireDecimal(by);
  const base = current === null ? 0 : readDecimal(current);
  const next = plusDecimal(base, by);
  // As above: what leads back is allowed.
  if (!isInDecimalRange(next) && isNegative(next) === isNegative(by)) throw new FloatRangeError();
  return next;
}

/** Throws what INCRBY or INCRBYFLOAT throws for a string in this state. */
function checkAdd(state: StringState, op: Extract<StringOp, { readonly by: unknown }>): void {
  const current = stringValue(state);
  if (op.op === 'addFloat') {
    incrementedFloat(current, op.by);
    return;
  }
  requireInt64(op.by);
  // Only concurrent increments may lead out of 64 bits: a value that was SET beyond them is text.
  const base = registerValue(state.register);
  const isCountable = (value: ByteString | null) => value === null || parseInt64(value) !== null;
  if (!isCountable(base) && !isCountable(current)) throw new NotAnIntegerError();
  incremented(current, op.by);
}

/** The data type. */
export const stringType: DataType<StringState, StringOp> = {
  name: 'string',

  empty: () => ({ register: registerType.empty(), counter: null }),

  mutate(state, op, site: Site) {
    if (op.op === 'add' || op.op === 'addFloat') {
      checkAdd(state, op);
      const counter = counterType.mutate(
        state.counter ?? counterType.empty(),
        { op: 'add', by: op.by },
        site,
      );
      return { register: registerType.empty(), counter };
    }
    const counted = state.counter !== null && state.counter.counts.size > 0;
    return {
      register: registerType.mutate(
        state.register,
        { op: 'write', value: op.op === 'write' ? op.value : null },
        site,
      ),
      counter: counted ? counterType.mutate(state.counter!, { op: 'reset' }, site) : null,
    };
  },

  merge(into, delta) {
    let grew = registerType.merge(into.register, delta.register);
    if (delta.counter !== null) {
      into.counter ??= counterType.empty();
      if (counterType.merge(into.counter, delta.counter)) grew = true;
      if (into.counter.counts.size === 0 && into.counter.resets.size === 0) into.counter = null;
    }
    return grew;
  },

  clone: (state) => ({
    register: registerType.clone(state.register),
    counter: state.counter === null ? null : counterType.clone(state.counter),
  }),

  toWire(state, writer) {
    const register = registerType.toWire(state.register, writer);
    return state.counter === null ? [register] : [register, counterType.toWire(state.counter, writer)];
  },

  fromWire(wire, reader) {
    const parts = asArray(wire, 'string', 2);
    const register = registerType.fromWire(parts[0], reader);
    if (parts.length === 1) return { register, counter: null };
    const counter = counterType.fromWire(parts[1], reader);
    if (counter.counts.size + counter.resets.size === 0)
      throw new DecodeError('an empty counter is not canonical');
    return { register, counter };
  },
};
