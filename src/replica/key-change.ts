/**
 * Key changes: what one batch does to one key, from its state before to the store write that brings it there.
 *
 * The write is found by comparing before and after, so it doesn't matter whether local operations, frames or whole states
 * were merged in between, nor how many.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, bodyDigest, memberDigest, subtractDigests } from '../../crdts/digest.js';
import { compareDots, type Dot } from '../../crdts/dot.js';
import { type Deadline, deadlineOf } from '../../crdts/expiry.js';
import {
  type KeyState,
  mergeKeyState,
  type VisibleType,
  winningPart,
  winningType,
} from '../../crdts/key-state.js';
import { type Dots, sameDots } from '../../crdts/or-set.js';
import type { ValuesState } from '../../crdts/policy.js';
import type { Register } from '../../crdts/register.js';
import { UNLOADED } from '../../crdts/register.js';
import { stringValue } from '../../crdts/string-key.js';
import type { KeyWrite, NativeWrite } from '../store/store.js';
import { encodeEntry, encodeHeader, type KeyRecord } from './key-record.js';

/** What a key was before a batch, as far as the write depends on it. */
export interface KeyChange {
  readonly record: KeyRecord;
  readonly header: ByteString | null;
  readonly body: number;
  readonly membersDigest: number;
  readonly type: VisibleType;
  readonly value: Register['value'];
  /** The dot of the register. */
  readonly written: Dot;
  readonly deadline: Deadline;
  readonly nativeMissing: boolean;
  /** Dots before, of each member that the batch named. */
  readonly members: Map<ByteString, Dots>;
  /** A clear swept the set without its members being known. */
  cleared: boolean;
  grew: boolean;
}

/** Gives the visible value of a key whose concurrent writes are kept side by side. */
export type ResolveKey = (key: ByteString, values: ValuesState) => ByteString;

/** The native string, or UNLOADED where the register's bytes aren't known here. */
function nativeString(key: ByteString, state: KeyState, resolve: ResolveKey): Register['value'] {
  switch (winningPart(state)) {
    case 'string':
      return state.string!.register.value === UNLOADED ? UNLOADED : stringValue(state.string!);
    case 'values':
      return resolve(key, state.values!);
    default:
      return null;
  }
}

/** Remembers a record as it is now. */
export function beginChange(record: KeyRecord, resolve: ResolveKey): KeyChange {
  const { state } = record;
  return {
    record,
    header: record.header,
    body: bodyDigest(record.key, state),
    membersDigest: record.membersDigest,
    type: winningType(state),
    value: nativeString(record.key, state, resolve),
    written: { stamp: state.string?.register.stamp ?? 0, replica: state.string?.register.replica ?? '' },
    deadline: deadlineOf(state.expiry),
    nativeMissing: record.nativeMissing,
    members: new Map(),
    cleared: false,
    grew: false,
  };
}

/** Says whether merging this delta needs the string's bytes: they leave the native value for the header, or are counted on. */
export function needsStringValue(record: KeyRecord, delta: KeyState): boolean {
  const { string } = record.state;
  if (string === null || string.register.value !== UNLOADED) return false;
  if ((delta.expiry?.siblings.size ?? 0) > 0) return true;
  return delta.set !== null || delta.values !== null || (delta.string?.counter?.counts.size ?? 0) > 0;
}

/** Merges a delta into the record of a change; says whether the key grew. */
export function mergeChange(change: KeyChange, delta: KeyState): boolean {
  const { set } = change.record.state;
  if (delta.set !== null && set !== null) {
    if (delta.set.whole && !set.whole) change.cleared = true;
    if (delta.set.whole) {
      for (const [member, dots] of set.entries)
        if (!change.members.has(member)) change.members.set(member, dots);
    }
    for (const member of delta.set.entries.keys()) {
      if (!change.members.has(member)) change.members.set(member, set.entries.get(member) ?? []);
    }
  } else if (delta.set !== null) {
    for (const member of delta.set.entries.keys()) change.members.set(member, []);
  }
  const grew = mergeKeyState(change.record.state, delta);
  if (grew) change.grew = true;
  return grew;
}

/**
 * The write that stores a change. Updates the record: header, digest, and whether the native value is there.
 * `nowMs` is Unix time: a deadline before it may have removed the native value already.
 */
export function planWrite(change: KeyChange, nowMs: number, resolve: ResolveKey): KeyWrite {
  const { record, cleared } = change;
  const { key, state } = record;
  const entries: [ByteString, ByteString | null][] = [];
  const add: ByteString[] = [];
  const remove: ByteString[] = [];
  let membersDigest = cleared ? 0 : change.membersDigest;
  for (const member of cleared ? state.set!.entries.keys() : change.members.keys()) {
    const before = cleared ? [] : change.members.get(member)!;
    const after = state.set!.entries.get(member) ?? [];
    if (sameDots(before, after)) continue;
    membersDigest = subtractDigests(membersDigest, memberDigest(key, member, before));
    membersDigest = addDigests(membersDigest, memberDigest(key, member, after));
    entries.push([member, after.length > 0 ? encodeEntry(after) : null]);
    if (after.length > 0 && before.length === 0) add.push(member);
    else if (after.length === 0) remove.push(member);
  }
  record.membersDigest = membersDigest;
  const type = winningType(state);
  const deadline = deadlineOf(state.expiry);
  const native = nativeWrite(change, type, deadline, nowMs, add, remove, resolve);
  if (native !== undefined) record.nativeMissing = type === 'string' && native.kind === 'delete';
  const header = encodeHeader(record);
  record.header = header;
  const before = addDigests(change.body, change.membersDigest);
  const after = addDigests(bodyDigest(key, state), membersDigest);
  return {
    key,
    expected: change.header,
    header,
    digest: subtractDigests(after, before),
    ...(cleared ? { clearEntries: true } : {}),
    ...(entries.length > 0 ? { entries } : {}),
    ...(native === undefined ? {} : { native }),
    // A native expiry comes again with every write: had it passed meanwhile, the write alone would revive the key for ever.
    ...(type !== 'none' && (deadline !== change.deadline || (native !== undefined && deadline !== null))
      ? { expireAtMs: deadline }
      : {}),
  };
}

function nativeWrite(
  change: KeyChange,
  type: VisibleType,
  deadline: Deadline,
  nowMs: number,
  add: ByteString[],
  remove: ByteString[],
  resolve: ResolveKey,
): NativeWrite | undefined {
  const { record } = change;
  if (type === 'none') return change.type === 'none' ? undefined : { kind: 'delete' };
  // The native value may have expired by a deadline that no longer holds.
  const mayBeGone =
    change.nativeMissing ||
    (change.deadline !== null &&
      change.deadline !== deadline &&
      change.deadline <= nowMs + NATIVE_CLOCK_SLACK_MS);
  if (type === 'string') {
    const value = nativeString(record.key, record.state, resolve);
    if (value === null) return undefined;
    if (value === UNLOADED) {
      // Nobody brought the bytes of this write. What is there belongs to an older one.
      const { register } = record.state.string!;
      return compareDots(register, change.written) === 0 && change.type === 'string'
        ? undefined
        : { kind: 'delete' };
    }
    if (change.type === 'string' && value === change.value && !mayBeGone) return undefined;
    return { kind: 'string', value };
  }
  if (change.type !== 'set') {
    return change.type === 'none' && record.state.set!.whole
      ? { kind: 'set', add: [...record.state.set!.entries.keys()], remove: [] }
      : { kind: 'rebuild' };
  }
  if (mayBeGone || change.cleared) return { kind: 'rebuild' };
  return add.length + remove.length > 0 ? { kind: 'set', add, remove } : undefined;
}

/** How far the clocks of a node and its Valkey may differ before a native expiry surprises us. */
const NATIVE_CLOCK_SLACK_MS = 2_000;
