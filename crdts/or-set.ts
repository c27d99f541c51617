/**
 * Observed-remove set, add-wins, without tombstones (Bieniusa et al., "An Optimized Conflict-free Replicated Set", 2012;
 * Almeida et al., 2018).
 *
 * Conflict rule: a remove cancels the adds that it observed and no other, so an add that runs beside it wins. Adding
 * a member that is there already refreshes it, so that it survives a concurrent remove too.
 *
 * Each member holds its live *dots*, the adds that are still in force. The *context* is a version vector of every add
 * that has been seen, live or not. A removed member leaves nothing behind but the context.
 *
 * What merge must answer: a dot is here and not there; is it new to the other side, or removed by it? If the other's
 * context covers it, it was seen and removed; if not, it is new.
 *
 * A delta names only the members that it touches, and says nothing of others; `whole` says that what isn't named isn't
 * there. So an add to a set of a million members costs what it costs for a set of ten, and a DEL names nobody.
 * The context has no gaps, which is right under causal delivery only (version-vector.ts); and deltas may be joined
 * with each other only when made one after the other on one replica with nothing merged in between. Into a state that is
 * partly loaded, merge only deltas whose members were loaded before.
 */
import type { ByteString } from './bytes.js';
import type { DataType } from './data-type.js';
import { compareDotLists, compareDots, type Dot, type ReplicaId, requireLater, type Site } from './dot.js';
import { DecodeError, InvariantError } from './errors.js';
import type { Stamp } from './stamp.js';
import { covers, dominates, mergeVectors, raise, type VersionVector } from './version-vector.js';
import { asArray, compareBytes, type WireReader, type WireWriter } from './wire.js';

/** The live dots of one member, at most one per replica, in the order of replica ids. Immutable; members may share one. */
export type Dots = readonly Dot[];

/** A set's state, in whole or in part, or its delta. */
export interface SetState {
  context: VersionVector;
  /** Named members. No dots = known to be absent (only where not `whole`). */
  entries: Map<ByteString, Dots>;
  /** True: a member that isn't named is absent. False: nothing is known of it. */
  whole: boolean;
  /** Number of members, named or not. Follows from the rest where the state is whole; of no meaning in a delta. */
  size: number;
}

/** What can be done to a set. */
export type SetOp =
  /** SADD. */
  | { readonly op: 'add'; readonly members: readonly ByteString[] }
  /** SREM. Members that aren't there are no part of the delta. */
  | { readonly op: 'remove'; readonly members: readonly ByteString[] }
  /** DEL. */
  | { readonly op: 'clear' };

const NO_DOTS: Dots = [];

/** The dots of a member; throws InvariantError when the state doesn't know it. */
export function dotsOf(state: SetState, member: ByteString): Dots {
  const dots = state.entries.get(member);
  if (dots !== undefined) return dots;
  if (!state.whole) throw new InvariantError('this member was not loaded');
  return NO_DOTS;
}

/** Says whether a member is in the set. */
export function hasMember(state: SetState, member: ByteString): boolean {
  return dotsOf(state, member).length > 0;
}

/** The members. Throws InvariantError unless the state is whole. */
export function membersOf(state: SetState): ByteString[] {
  if (!state.whole) throw new InvariantError('the members of this set were not all loaded');
  return [...state.entries.keys()];
}

/** Says whether the set has any member. */
export function isSetLive(state: SetState): boolean {
  return state.size > 0;
}

/** The greatest add ever seen: decides which type is visible where two regions chose differently. */
export function lastSetWrite(state: SetState): Dot {
  let last: Dot = { stamp: 0, replica: '' };
  for (const [replica, stamp] of state.context) {
    const dot = { stamp, replica };
    if (compareDots(dot, last) > 0) last = dot;
  }
  return last;
}

/**
 * Joins the dots of one member: keeps a dot that both have, or that the other's context doesn't cover. One pass over both
 * lists; the result is one of them where it can be, so that nothing is kept twice.
 */
function joinDots(
  mine: Dots,
  myContext: ReadonlyMap<ReplicaId, Stamp>,
  theirs: Dots,
  theirContext: ReadonlyMap<ReplicaId, Stamp>,
): Dots {
  if (mine === theirs) return mine;
  // The usual case: a member that is new.
  if (mine.length === 0 && theirs.length === 1 && !covers(myContext, theirs[0]!.replica, theirs[0]!.stamp))
    return theirs;
  const kept: Dot[] = [];
  for (let i = 0, j = 0; i < mine.length || j < theirs.length; ) {
    const a = mine[i];
    const b = theirs[j];
    const order =
      a === undefined ? 1 : b === undefined ? -1 : compareBytes(a.replica, b.replica) || a.stamp - b.stamp;
    if (order === 0 || (order < 0 && !covers(theirContext, a!.replica, a!.stamp))) kept.push(a!);
    else if (order > 0 && !covers(myContext, b!.replica, b!.stamp)) kept.push(b!);
    if (order <= 0) i += 1;
    if (order >= 0) j += 1;
  }
  return sameDots(kept, mine) ? mine : sameDots(kept, theirs) ? theirs : kept;
}

/** Says whether two lists hold the same dots. */
export function sameDots(a: Dots, b: Dots): boolean {
  return a === b || compareDotLists(a, b) === 0;
}

/**
 * Says whether a whole state can be merged into a set that is only partly loaded. What isn't loaded may hold dots: they
 * are settled only if the state has seen them all, and if no dot that it names may have been removed here before.
 */
function settles(into: SetState, whole: SetState): boolean {
  if (!dominates(whole.context, into.context)) return false;
  for (const [member, dots] of whole.entries) {
    if (!into.entries.has(member) && dots.some((dot) => covers(into.context, dot.replica, dot.stamp)))
      return false;
  }
  return true;
}

function observe(context: VersionVector, dots: Dots): void {
  for (const dot of dots) raise(context, dot.replica, dot.stamp);
}

/** The data type. One added member costs its bytes plus about 8 on the wire. */
export const setType: DataType<SetState, SetOp> = {
  name: 'set',

  empty: () => ({ context: new Map(), entries: new Map(), whole: true, size: 0 }),

  mutate(state, op, site: Site) {
    const delta: SetState = { context: new Map(), entries: new Map(), whole: op.op === 'clear', size: 0 };
    if (op.op === 'clear') {
      mergeVectors(delta.context, state.context);
      return delta;
    }
    if (op.op === 'add') requireLater(site, state.context.get(site.replica) ?? 0);
    const dots: Dots = op.op === 'add' ? [{ replica: site.replica, stamp: site.stamp }] : NO_DOTS;
    for (const member of op.members) {
      const seen = dotsOf(state, member);
      if (op.op === 'remove' && seen.length === 0) continue;
      observe(delta.context, seen);
      delta.entries.set(member, dots);
    }
    if (delta.entries.size > 0) observe(delta.context, dots);
    return delta;
  },

  merge(into, delta) {
    let grew = false;
    if (delta.whole && !into.whole) {
      if (!settles(into, delta)) {
        throw new InvariantError(
          'a whole state was merged into a set that is not loaded as far as that needs',
        );
      }
      into.whole = true;
      grew = true;
    }
    if (delta.whole) {
      for (const [member, mine] of into.entries) {
        if (delta.entries.has(member)) continue;
        const kept = joinDots(mine, into.context, NO_DOTS, delta.context);
        if (kept === mine && kept.length > 0) continue;
        if (kept.length === 0) into.entries.delete(member);
        else into.entries.set(member, kept);
        grew = true;
      }
    }
    for (const [member, theirs] of delta.entries) {
      const mine = into.entries.get(member) ?? (into.whole ? NO_DOTS : undefined);
      const kept = mine === undefined ? theirs : joinDots(mine, into.context, theirs, delta.context);
      if (kept === mine) {
        // What was known to be absent is not even named by a set that is whole now.
        if (kept.length === 0 && into.whole) into.entries.delete(member);
        continue;
      }
      if (kept.length === 0 && into.whole) into.entries.delete(member);
      else into.entries.set(member, kept);
      into.size += Number(kept.length > 0) - Number(mine !== undefined && mine.length > 0);
      grew = true;
    }
    if (into.whole) into.size = into.entries.size;
    return mergeVectors(into.context, delta.context) || grew;
  },

  clone: (state) => ({
    context: new Map(state.context),
    entries: new Map(state.entries),
    whole: state.whole,
    size: state.size,
  }),

  /** [context, entries, whole]; entries = [dots, members, dots, members, …], members with equal dots together. */
  toWire(state, writer: WireWriter) {
    const groups = new Map<string, { dots: Dots; members: ByteString[] }>();
    for (const [member, dots] of state.entries) {
      const label = dots.map((dot) => `${dot.replica} ${dot.stamp}`).join(' ');
      const group = groups.get(label);
      if (group === undefined) groups.set(label, { dots, members: [member] });
      else group.members.push(member);
    }
    const entries: unknown[] = [];
    for (const { dots, members } of [...groups.values()].sort((a, b) => compareDotLists(a.dots, b.dots))) {
      const flat: number[] = [];
      for (const dot of dots) flat.push(writer.replica(dot.replica), writer.stamp(dot.stamp));
      entries.push(
        flat,
        members.sort(compareBytes).map((member) => writer.bytes(member)),
      );
    }
    return [writer.vector(state.context), entries, state.whole ? 1 : 0];
  },

  fromWire(wire, reader: WireReader) {
    const parts = asArray(wire, 'set', 3);
    if (!Object.is(parts[2], 0) && parts[2] !== 1)
      throw new DecodeError('a set does not say whether it is whole');
    const state: SetState = {
      context: reader.vector(parts[0]),
      entries: new Map(),
      whole: parts[2] === 1,
      size: 0,
    };
    const groups = asArray(parts[1], 'set entries');
    if (groups.length % 2 !== 0) throw new DecodeError('set entries are not in pairs');
    let last: Dots | null = null;
    let count = 0;
    for (let i = 0; i < groups.length; i += 2) {
      const dots = reader.dots(groups[i]);
      for (const dot of dots) reader.requireCovered(state.context, dot);
      if (dots.length === 0 && state.whole) throw new DecodeError('a whole set names an absent member');
      if (last !== null && compareDotLists(last, dots) >= 0)
        throw new DecodeError('set entries are not in order');
      last = dots;
      const members = asArray(groups[i + 1], 'set members');
      if (members.length === 0) throw new DecodeError('a group of set entries is empty');
      let lastMember: string | null = null;
      for (const item of members) {
        const member = reader.bytes(item);
        if (lastMember !== null && member <= lastMember)
          throw new DecodeError('set members are not in order');
        lastMember = member;
        state.entries.set(member, dots);
        count += 1;
        if (state.entries.size < count) throw new DecodeError('a set names a member twice');
      }
    }
    if (state.context.size === 0 && state.entries.size > 0) {
      throw new DecodeError('a set names absent members for no reason');
    }
    if (state.whole) state.size = state.entries.size;
    return state;
  },
};
