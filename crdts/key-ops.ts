/**
 * Operations on a key, as clients know them, in terms of the data types: SET, INCR, DEL, SADD, SREM, EXPIRE.
 *
 * Each takes a key's state and gives an *edit*: the delta that the operation makes, and what its caller is told. Pure: the
 * state is left alone; the caller merges the delta, and sends it. The document and the replica share this file, so a key means
 * the same in memory and in a mesh.
 *
 * `visible` is the type that the client sees (key-state.ts). What it doesn't see, because it expired or because another
 * type hides it, is *swept* before a key is created anew: removed as by DEL, in the same delta and at the same dot.
 */
import type { ByteString } from './bytes.js';
import { type Decimal, formatDecimal } from './decimal.js';
import type { Site } from './dot.js';
import { WrongTypeError } from './errors.js';
import { type Deadline, deadlineOf, expiryType } from './expiry.js';
import { requireInt64 } from './integer.js';
import { emptyKeyState, type KeyState, type VisibleType, winningPart } from './key-state.js';
import { hasMember, isSetLive, type SetState, setType } from './or-set.js';
import {
  hasValues,
  type Resolver,
  resolve,
  resolvers,
  siblingsOf,
  valuesType,
  type WrittenValue,
} from './policy.js';
import {
  incremented,
  incrementedFloat,
  isStringLive,
  type StringOp,
  type StringState,
  stringType,
  stringValue,
} from './string-key.js';

/** What an operation does: its delta (null = it changes nothing), and what its caller is told. */
export interface KeyEdit<Result> {
  readonly delta: KeyState | null;
  readonly result: Result;
}

/** What SET does to a key's expiry: clears it, keeps it, or gives it a deadline in Unix milliseconds. */
export type ExpiryChange = 'clear' | 'keep' | number;

/** Says whether a client sees a key of the type that it needs. Throws WrongTypeError when it sees another one. */
export function holds(visible: VisibleType, wanted: 'string' | 'set'): boolean {
  if (visible !== 'none' && visible !== wanted) throw new WrongTypeError();
  return visible === wanted;
}

/**
 * The string that wins in a key, or null when none lives. Siblings are resolved by `resolver`; default: the latest.
 * Throws InvariantError when the value isn't loaded, ResolverError when the resolver fails.
 */
export function winningString(state: KeyState, resolver: Resolver = resolvers.lww): ByteString | null {
  const part = winningPart(state);
  if (part === 'values') return resolve(siblingsOf(state.values!), resolver);
  return part === 'string' ? stringValue(state.string!) : null;
}

/** Removes all that is left of a key: every type, visible or hidden, expired or not, and its deadlines. */
function swept(state: KeyState, site: Site): KeyState | null {
  const delta = emptyKeyState();
  const { string, set } = state;
  if (string !== null && isStringLive(string))
    delta.string = stringType.mutate(string, { op: 'delete' }, site);
  if (set !== null && isSetLive(set)) delta.set = setType.mutate(set, { op: 'clear' }, site);
  clearValues(state, delta, site);
  clearDeadline(state, delta, site);
  const { string: s, set: m, values: v, expiry: e } = delta;
  return s === null && m === null && v === null && e === null ? null : delta;
}

function clearValues(state: KeyState, delta: KeyState, site: Site): void {
  if (state.values !== null && hasValues(state.values))
    delta.values = valuesType.mutate(state.values, { op: 'clear' }, site);
}

function clearDeadline(state: KeyState, delta: KeyState, site: Site): void {
  if (state.expiry === null || state.expiry.siblings.size === 0) return;
  delta.expiry = expiryType.mutate(state.expiry, { op: 'clear' }, site);
}

function setDeadline(state: KeyState, delta: KeyState, value: Deadline, site: Site): void {
  delta.expiry = expiryType.mutate(state.expiry ?? expiryType.empty(), { op: 'write', value }, site);
}

/** SET: writes a string over whatever the key holds. Throws ArgumentError for a deadline that is none. */
export function setString(
  state: KeyState,
  visible: VisibleType,
  value: ByteString,
  expiry: ExpiryChange,
  site: Site,
): KeyEdit<void> {
  const delta = emptyKeyState();
  delta.string = stringType.mutate(state.string ?? stringType.empty(), { op: 'write', value }, site);
  clearValues(state, delta, site);
  return { delta: replaced(state, delta, visible, expiry, site), result: undefined };
}

/** SET under a policy other than lww: replaces the values that it sees; concurrent ones stay beside it (policy.ts). */
export function setValue(
  state: KeyState,
  visible: VisibleType,
  value: WrittenValue,
  expiry: ExpiryChange,
  site: Site,
): KeyEdit<void> {
  const delta = emptyKeyState();
  delta.values = valuesType.mutate(state.values ?? valuesType.empty(), { op: 'write', value }, site);
  if (state.string !== null && isStringLive(state.string))
    delta.string = stringType.mutate(state.string, { op: 'delete' }, site);
  return { delta: replaced(state, delta, visible, expiry, site), result: undefined };
}

/** What every SET does besides writing. */
function replaced(
  state: KeyState,
  delta: KeyState,
  visible: VisibleType,
  expiry: ExpiryChange,
  site: Site,
): KeyState {
  if (state.set !== null && isSetLive(state.set))
    delta.set = setType.mutate(state.set, { op: 'clear' }, site);
  if (typeof expiry === 'number') setDeadline(state, delta, expiry, site);
  else if (expiry === 'clear' || visible === 'none') clearDeadline(state, delta, site);
  return delta;
}

/**
 * INCRBY and INCRBYFLOAT: adds to the string that the client sees (null = none), and tells the new value.
 * Throws WrongTypeError, NotAnIntegerError, OverflowError, NotAFloatError or FloatRangeError.
 */
export function countOn(
  state: KeyState,
  visible: VisibleType,
  current: ByteString | null,
  op: Extract<StringOp, { readonly by: unknown }>,
  site: Site,
): KeyEdit<Decimal> {
  const exists = holds(visible, 'string');
  if (op.op === 'add') requireInt64(op.by);
  const seen = exists ? current : null;
  const result = op.op === 'add' ? incremented(seen, op.by) : incrementedFloat(seen, op.by);
  // Siblings that a change of rules left behind become one string with the first increment.
  if (exists && winningPart(state) === 'values') {
    return { delta: setString(state, visible, formatDecimal(result), 'keep', site).delta, result };
  }
  const delta = (exists ? null : swept(state, site)) ?? emptyKeyState();
  let string: StringState = state.string ?? stringType.empty();
  if (delta.string !== null) {
    string = stringType.clone(string);
    stringType.merge(string, delta.string);
  }
  const added = stringType.mutate(string, op, site);
  if (delta.string === null) delta.string = added;
  else stringType.merge(delta.string, added);
  return { delta, result };
}

/** DEL: removes a key of any type; tells whether it was there. */
export function deleteKey(state: KeyState, visible: VisibleType, site: Site): KeyEdit<boolean> {
  return visible === 'none' ? { delta: null, result: false } : { delta: swept(state, site), result: true };
}

/** Removes what is left of a key that is gone for everyone (forgetting.ts); tells whether anything was. */
export function sweepKey(state: KeyState, site: Site): KeyEdit<boolean> {
  const delta = swept(state, site);
  return { delta, result: delta !== null };
}

/** SADD: adds members; tells how many were absent. Those present are refreshed. Throws WrongTypeError. */
export function addMembers(
  state: KeyState,
  visible: VisibleType,
  members: readonly ByteString[],
  site: Site,
): KeyEdit<number> {
  const exists = holds(visible, 'set');
  if (members.length === 0) return { delta: null, result: 0 };
  const absent = new Set<ByteString>();
  for (const member of members) if (!exists || !hasMember(state.set!, member)) absent.add(member);
  const delta = (exists ? null : swept(state, site)) ?? emptyKeyState();
  let set: SetState = state.set ?? setType.empty();
  // What the sweep leaves of a set is its context.
  if (delta.set !== null) set = { context: set.context, entries: new Map(), whole: true, size: 0 };
  const added = setType.mutate(set, { op: 'add', members }, site);
  if (delta.set === null) delta.set = added;
  else setType.merge(delta.set, added);
  return { delta, result: absent.size };
}

/** SREM: removes members; tells how many were present. Throws WrongTypeError. */
export function removeMembers(
  state: KeyState,
  visible: VisibleType,
  members: readonly ByteString[],
  site: Site,
): KeyEdit<number> {
  if (!holds(visible, 'set')) return { delta: null, result: 0 };
  const set = setType.mutate(state.set!, { op: 'remove', members }, site);
  if (set.entries.size === 0) return { delta: null, result: 0 };
  return { delta: { ...emptyKeyState(), set }, result: set.entries.size };
}

/**
 * PEXPIREAT, or with null PERSIST: tells whether the key was there. A deadline that is not after `nowMs` deletes the key.
 * Throws ArgumentError for a deadline that is none.
 */
export function expireKey(
  state: KeyState,
  visible: VisibleType,
  deadlineMs: Deadline,
  nowMs: number,
  site: Site,
): KeyEdit<boolean> {
  if (visible === 'none') return { delta: null, result: false };
  if (deadlineMs !== null && deadlineMs <= nowMs) return deleteKey(state, visible, site);
  if (deadlineMs === null && deadlineOf(state.expiry) === null) return { delta: null, result: true };
  const delta = emptyKeyState();
  setDeadline(state, delta, deadlineMs, site);
  return { delta, result: true };
}
