/**
 * Quick changes: increments of a key that holds nothing but a string, and adds to a key that holds nothing but a set.
 *
 * Elsewhere each operation makes a delta, which is merged into the key's state and joined to the delta of the batch. Here the
 * state is changed in place, to what that merge would have made of it, and the delta of all that the batch did to the key is taken from the state
 * at the end: this replica's own count, or the members that were added. As soon as
 * something else happens to the key in the same batch, {@link deltaOf} gives that delta, and the general way goes on from there.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { minusDecimal, plusDecimal } from '../../crdts/decimal.js';
import type { ReplicaId, Site } from '../../crdts/dot.js';
import { type Integer, parseInt64 } from '../../crdts/integer.js';
import { emptyKeyState, type KeyState } from '../../crdts/key-state.js';
import { type Dots, dotsOf, type SetState, setType } from '../../crdts/or-set.js';
import { registerType, UNLOADED } from '../../crdts/register.js';
import { incremented, type StringState, stringType, stringValue } from '../../crdts/string-key.js';
import { raise, type VersionVector } from '../../crdts/version-vector.js';
import type { KeyChange } from './key-change.js';
import type { KeyRecord } from './key-record.js';

/** A batch has only counted on a key so far. */
export interface QuickCount {
  readonly kind: 'count';
  /** The visible sum before; null = there was none. */
  readonly before: Integer | null;
  /** The visible sum. */
  sum: Integer;
}

/** A batch has only added members to a key so far. */
export interface QuickAdd {
  readonly kind: 'add';
  /**
   * The dot of all members that were added. One will do: a dot tells adds of one member apart that are told at different times, and these
   * are told together, with nothing removed in between.
   */
  readonly dots: Dots;
  /** Dots of the members that were there before: the delta replaces them. null = none yet. */
  seen: VersionVector | null;
}

/** What a batch has done to a key so far, where that is all. */
export type QuickChange = QuickCount | QuickAdd;

/** Begins to count on a key that holds nothing but a string; null where the general way must go. */
export function beginCount({ state, nativeMissing }: KeyRecord): QuickCount | null {
  const { string, set, values, expiry } = state;
  if (set !== null || values !== null || expiry !== null || nativeMissing) return null;
  if (string === null) return { kind: 'count', before: null, sum: 0 };
  const counted = countedSum(string);
  if (counted !== null) return { kind: 'count', before: counted, sum: counted };
  if (string.register.value === UNLOADED) return null;
  const text = stringValue(string);
  if (text === null) return { kind: 'count', before: null, sum: 0 };
  const sum = parseInt64(text);
  return sum === null ? null : { kind: 'count', before: sum, sum };
}

/** The sum of a string that was only ever counted on, and never reset; null = it takes more to tell. */
function countedSum({ register, counter }: StringState): Integer | null {
  if (register.stamp !== 0 || counter === null || counter.counts.size === 0 || counter.resets.size > 0)
    return null;
  let sum = 0;
  for (const { p, n } of counter.counts.values()) {
    if (typeof p !== 'number' || typeof n !== 'number') return null;
    sum += p - n;
    if (!Number.isSafeInteger(sum)) return null;
  }
  return sum;
}

/** Adds to this replica's count; gives the new sum. Null, and nothing is changed, where the general way must go. Throws OverflowError. */
export function countQuickly(state: KeyState, quick: QuickCount, by: Integer, site: Site): Integer | null {
  const counter = state.string?.counter ?? null;
  const own = counter?.counts.get(site.replica);
  if (own === undefined && counter !== null && counter.resets.has(site.replica)) return null;
  const sum = incrementedBy(quick.sum, by);
  state.string ??= stringType.empty();
  state.string.counter ??= { counts: new Map(), resets: new Map() };
  const { since, p, n } = own ?? { since: site.stamp, p: 0, n: 0 };
  const count = by < 0 ? { since, p, n: minusDecimal(n, by) } : { since, p: plusDecimal(p, by), n };
  state.string.counter.counts.set(site.replica, count);
  quick.sum = sum;
  return sum;
}

function incrementedBy(sum: Integer, by: Integer): Integer {
  if (typeof sum === 'number' && typeof by === 'number') {
    const next = sum + by;
    if (Number.isSafeInteger(next)) return next;
  }
  return incremented(String(sum) as ByteString, by);
}

/** Begins to add to a key by a dot that is new in it; null where the general way must go. */
export function beginAdd(record: KeyRecord, dots: Dots): QuickAdd | null {
  const { string, set, values, expiry } = record.state;
  if (string !== null || values !== null || expiry !== null) return null;
  const { replica, stamp } = dots[0]!;
  return stamp > (set?.context.get(replica) ?? 0) ? { kind: 'add', dots, seen: null } : null;
}

/** Adds members; gives how many were absent. Throws InvariantError, and changes nothing, when a member isn't loaded. */
export function addQuickly(change: KeyChange, quick: QuickAdd, members: readonly ByteString[]): number {
  const { state } = change.record;
  const set: SetState = state.set ?? setType.empty();
  const { dots } = quick;
  const { replica, stamp } = dots[0]!;
  for (const member of members) dotsOf(set, member);
  state.set = set;
  change.members ??= new Map();
  let absent = 0;
  for (const member of members) {
    const was = dotsOf(set, member);
    if (was === dots) continue;
    if (was.length === 0) absent += 1;
    else {
      quick.seen ??= new Map();
      for (const dot of was) raise(quick.seen, dot.replica, dot.stamp);
    }
    if (!change.members.has(member)) change.members.set(member, was);
    set.entries.set(member, dots);
  }
  set.size += absent;
  set.context.set(replica, stamp);
  return absent;
}

/** What a set's delta says that it has seen. */
export function contextOf({ seen, dots }: QuickAdd): VersionVector {
  const context: VersionVector = new Map(seen);
  const { replica, stamp } = dots[0]!;
  return context.set(replica, stamp);
}

/** The delta of all that was done quickly to a key. */
export function deltaOf(change: KeyChange, own: ReplicaId): KeyState {
  const { quick, record, members } = change;
  const delta = emptyKeyState();
  if (quick?.kind === 'count') {
    const count = record.state.string!.counter!.counts.get(own)!;
    const counter = { counts: new Map([[own, count]]), resets: new Map() };
    delta.string = { register: registerType.empty(), counter };
  } else if (quick?.kind === 'add') {
    const entries = new Map<ByteString, Dots>();
    for (const member of members!.keys()) entries.set(member, quick.dots);
    delta.set = { context: contextOf(quick), entries, whole: false, size: 0 };
  }
  return delta;
}
