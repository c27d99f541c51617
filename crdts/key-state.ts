/**
 * The state of one key: at most one sub-state of each type, and the expiry.
 *
 * Conflict rule: sub-states are joined each on its own. Where two regions concurrently gave the key different types, both
 * live; the one that was written last (its greatest dot) is visible everywhere, the other is kept, and goes with the
 * next DEL.
 *
 * A key's delta is a key state too. `touched` is the greatest stamp of the frames that were merged into the key: it
 * tells when a dead key may be forgotten (a key's dots don't say when they were removed).
 *
 * What merge must answer: nothing of its own; it is the product of the types' joins.
 */
import { compareDots, type Dot } from './dot.js';
import { deadlineOf, type ExpiryState, expiryType } from './expiry.js';
import { isSetLive, lastSetWrite, type SetState, setType } from './or-set.js';
import { hasValues, lastValuesWrite, type ValuesState, valuesType } from './policy.js';
import type { Stamp } from './stamp.js';
import { isStringLive, lastStringWrite, type StringState, stringType } from './string-key.js';

/** One key's state, or its delta. */
export interface KeyState {
  touched: Stamp;
  string: StringState | null;
  set: SetState | null;
  /** The string of a key under a policy other than lww (policy.ts). */
  values: ValuesState | null;
  expiry: ExpiryState | null;
}

/** The type that clients see. */
export type VisibleType = 'none' | 'string' | 'set';

/** The sub-states by name, each with its data type. A new data type is one more line here and in {@link KeyState}. */
export const subTypes = { string: stringType, set: setType, values: valuesType, expiry: expiryType } as const;

/** A key that was never written; as a delta, one that says nothing. */
export function emptyKeyState(): KeyState {
  return { touched: 0, string: null, set: null, values: null, expiry: null };
}

/** The sub-states that can make a key visible. */
export type PartName = 'string' | 'set' | 'values';

/** The sub-states that live, the one that wins first: the one that was written last. */
export function liveParts(state: KeyState): PartName[] {
  const { string, set, values } = state;
  const parts: { name: PartName; last: Dot }[] = [];
  if (string !== null && isStringLive(string)) parts.push({ name: 'string', last: lastStringWrite(string) });
  if (set !== null && isSetLive(set)) parts.push({ name: 'set', last: lastSetWrite(set) });
  if (values !== null && hasValues(values)) parts.push({ name: 'values', last: lastValuesWrite(values) });
  if (parts.length > 1) parts.sort((a, b) => compareDots(b.last, a.last));
  return parts.map((part) => part.name);
}

/** The sub-state that wins, expired or not. */
export function winningPart(state: KeyState): PartName | 'none' {
  const { string, set, values } = state;
  // The usual key has one: no need to compare.
  if (set === null && values === null) return string !== null && isStringLive(string) ? 'string' : 'none';
  if (string === null && values === null) return set !== null && isSetLive(set) ? 'set' : 'none';
  return liveParts(state)[0] ?? 'none';
}

/** The type that wins, expired or not. */
export function winningType(state: KeyState): VisibleType {
  const part = winningPart(state);
  return part === 'values' ? 'string' : part;
}

/** Says whether two types live side by side: a conflict that the next DEL or SET ends. */
export function hasHiddenType(state: KeyState): boolean {
  return liveParts(state).length > 1;
}

/** Says whether the key's deadline has come, at a Unix time in milliseconds. */
export function isExpired(state: KeyState, nowMs: number): boolean {
  const deadline = deadlineOf(state.expiry);
  return deadline !== null && deadline <= nowMs;
}

/** The type that clients see at a Unix time in milliseconds. */
export function visibleType(state: KeyState, nowMs: number): VisibleType {
  const type = winningType(state);
  return type === 'none' || isExpired(state, nowMs) ? 'none' : type;
}

/**
 * Joins a delta or a state into a key; says whether the key grew. `into` must be a state, where null means 'has none'. In a
 * delta it means 'says nothing', so to put one delta onto another use {@link appendKeyDelta}.
 * Throws InvariantError, and changes nothing, when the set is not loaded as far as the delta needs.
 */
export function mergeKeyState(into: KeyState, delta: KeyState): boolean {
  let grew = false;
  // A sub-state that is still empty stays null: one state has one form. The set comes first, since only it may refuse.
  if (delta.set !== null) {
    const set = into.set ?? setType.empty();
    if (setType.merge(set, delta.set)) {
      into.set = set;
      grew = true;
    }
  }
  if (delta.string !== null) {
    const string = into.string ?? stringType.empty();
    if (stringType.merge(string, delta.string)) {
      into.string = string;
      grew = true;
    }
  }
  if (delta.values !== null) {
    const values = into.values ?? valuesType.empty();
    if (valuesType.merge(values, delta.values)) {
      into.values = values;
      grew = true;
    }
  }
  if (delta.expiry !== null) {
    const expiry = into.expiry ?? expiryType.empty();
    if (expiryType.merge(expiry, delta.expiry)) {
      into.expiry = expiry;
      grew = true;
    }
  }
  if (delta.touched > into.touched) {
    into.touched = delta.touched;
    grew = true;
  }
  return grew;
}

/**
 * Joins a delta onto an earlier one that the same replica made, with nothing merged in between; gives one delta that does
 * what both do.
 */
export function appendKeyDelta(into: KeyState, next: KeyState): void {
  into.touched = Math.max(into.touched, next.touched);
  if (into.string === null) into.string = next.string && stringType.clone(next.string);
  else if (next.string !== null) stringType.merge(into.string, next.string);
  // The bottom of sets is whole: starting from it, a delta that names some members would deny all others.
  if (into.set === null) into.set = next.set && setType.clone(next.set);
  else if (next.set !== null) setType.merge(into.set, next.set);
  if (into.values === null) into.values = next.values && valuesType.clone(next.values);
  else if (next.values !== null) valuesType.merge(into.values, next.values);
  if (into.expiry === null) into.expiry = next.expiry && expiryType.clone(next.expiry);
  else if (next.expiry !== null) expiryType.merge(into.expiry, next.expiry);
}

/** A copy that shares nothing mutable. */
export function cloneKeyState(state: KeyState): KeyState {
  return {
    touched: state.touched,
    string: state.string && stringType.clone(state.string),
    set: state.set && setType.clone(state.set),
    values: state.values && valuesType.clone(state.values),
    expiry: state.expiry && expiryType.clone(state.expiry),
  };
}
