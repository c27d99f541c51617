/**
 * Key changes: what one batch does to one key, from its state before to the store write that brings it there.
 *
 * The write is found by comparing before and after, so it doesn't matter whether local operations, frames or whole states
 * were merged in between, nor how many.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, bodyDigest, memberDigest, subtractDigests } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { type Deadline, deadlineOf } from '../../crdts/expiry.js';
import { formatInteger } from '../../crdts/integer.js';
import {
  type KeyState,
  mergeKeyState,
  type VisibleType,
  winningPart,
  winningType,
} from '../../crdts/key-state.js';
import { type Dots, type SetState, sameDots } from '../../crdts/or-set.js';
import type { ValuesState } from '../../crdts/policy.js';
import type { Register } from '../../crdts/register.js';
import { UNLOADED } from '../../crdts/register.js';
import type { Stamp } from '../../crdts/stamp.js';
import { stringValue } from '../../crdts/string-key.js';
import type { KeyWrite, NativeWrite } from '../store/store.js';
import { encodeEntry, encodeHeader, type KeyRecord } from './key-record.js';
import type { QuickChange, QuickCount } from './quick-change.js';

/** What a key was before a batch, as far as the write depends on it. */
export interface KeyChange {
  readonly record: KeyRecord;
  readonly header: ByteString | null;
  readonly era: number;
  readonly body: number;
  readonly membersDigest: number;
  readonly type: VisibleType;
  readonly value: Register['value'];
  /** The dot of the register. */
  readonly writtenStamp: Stamp;
  readonly writtenReplica: ReplicaId;
  readonly deadline: Deadline;
  readonly nativeMissing: boolean;
  /** Dots before, of each member that the batch named; null = none was. */
  members: Map<ByteString, Dots> | null;
  /** A clear swept the set without its members being known. */
  cleared: boolean;
  grew: boolean;
  /** What was done to it, while that has no delta of its own yet. */
  quick: QuickChange | null;
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
  if (Number.isNaN(record.bodyDigest)) record.bodyDigest = bodyDigest(record.key, state);
  return {
    record,
    header: record.header,
    era: record.era,
    body: record.bodyDigest,
    membersDigest: record.membersDigest,
    type: winningType(state),
    value: nativeString(record.key, state, resolve),
    writtenStamp: state.string?.register.stamp ?? 0,
    writtenReplica: state.string?.register.replica ?? '',
    deadline: deadlineOf(state.expiry),
    nativeMissing: record.nativeMissing,
    members: null,
    cleared: false,
    grew: false,
    quick: null,
  };
}

/** As {@link beginChange}, for a key that holds nothing but a string and will be counted on. */
export function beginCounting(record: KeyRecord, quick: QuickChange): KeyChange {
  const { key, state, header, era, membersDigest } = record;
  if (Number.isNaN(record.bodyDigest)) record.bodyDigest = bodyDigest(key, state);
  return {
    record,
    header,
    era,
    body: record.bodyDigest,
    membersDigest,
    type: winningType(state),
    // Only by this could the general way, should it be needed, see that the value is still the same; then it writes it once more.
    value: null,
    writtenStamp: state.string?.register.stamp ?? 0,
    writtenReplica: state.string?.register.replica ?? '',
    deadline: null,
    nativeMissing: false,
    members: null,
    cleared: false,
    grew: false,
    quick,
  };
}

/** Says whether merging this delta needs the string's bytes: they leave the native value for the header, or are counted on. */
export function needsStringValue({ state }: Pick<KeyRecord, 'state'>, delta: KeyState): boolean {
  const { string } = state;
  if (string === null || string.register.value !== UNLOADED) return false;
  if ((delta.expiry?.siblings.size ?? 0) > 0) return true;
  return delta.set !== null || delta.values !== null || (delta.string?.counter?.counts.size ?? 0) > 0;
}

/** Remembers the dots of the members that a delta names, as they are before it. */
function noteMembers(change: KeyChange, delta: SetState): void {
  const { set } = change.record.state;
  change.members ??= new Map();
  const { members } = change;
  if (set === null) {
    for (const member of delta.entries.keys()) members.set(member, []);
    return;
  }
  if (delta.whole && !set.whole) change.cleared = true;
  if (delta.whole) {
    for (const [member, dots] of set.entries) if (!members.has(member)) members.set(member, dots);
  }
  for (const member of delta.entries.keys())
    if (!members.has(member)) members.set(member, set.entries.get(member) ?? []);
}

/** Merges a delta into the record of a change; says whether the key grew. */
export function mergeChange(change: KeyChange, delta: KeyState): boolean {
  if (delta.set !== null) noteMembers(change, delta.set);
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
  if (change.quick?.kind === 'count') return planCount(change, change.quick);
  // Most writes: no members and no deadline, neither before nor after.
  if (state.set === null && state.expiry === null) return planString(change, nowMs, resolve);
  const entries: [ByteString, ByteString | null][] = [];
  const add: ByteString[] = [];
  const remove: ByteString[] = [];
  let membersDigest = cleared ? 0 : change.membersDigest;
  for (const member of cleared ? state.set!.entries.keys() : (change.members?.keys() ?? [])) {
    const before = cleared ? [] : change.members!.get(member)!;
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
  record.bodyDigest = bodyDigest(key, state);
  const before = addDigests(change.body, change.membersDigest);
  const after = addDigests(record.bodyDigest, membersDigest);
  return {
    key,
    expected: change.header,
    era: change.era,
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

/** As {@link planWrite}, for a key that was only counted on: the visible sum is known. */
function planCount(
  { record, header: expected, era, body }: KeyChange,
  { before, sum }: QuickCount,
): KeyWrite {
  const { key, state } = record;
  const header = encodeHeader(record);
  record.header = header;
  record.bodyDigest = bodyDigest(key, state);
  const digest = subtractDigests(record.bodyDigest, body);
  return sum === before
    ? { key, expected, era, header, digest }
    : { key, expected, era, header, digest, native: { kind: 'string', value: formatInteger(sum) } };
}

/** As {@link planWrite}, for a key that never had members or a deadline. */
function planString(change: KeyChange, nowMs: number, resolve: ResolveKey): KeyWrite {
  const { record } = change;
  const { key, state } = record;
  const type = winningType(state);
  const native = nativeWrite(change, type, null, nowMs, NONE, NONE, resolve);
  if (native !== undefined) record.nativeMissing = type === 'string' && native.kind === 'delete';
  record.header = encodeHeader(record);
  record.bodyDigest = bodyDigest(key, state);
  const digest = subtractDigests(record.bodyDigest, change.body);
  const { header: expected, era } = change;
  return native === undefined
    ? { key, expected, era, header: record.header, digest }
    : { key, expected, era, header: record.header, digest, native };
}

const NONE: readonly ByteString[] = [];

function nativeWrite(
  change: KeyChange,
  type: VisibleType,
  deadline: Deadline,
  nowMs: number,
  add: readonly ByteString[],
  remove: readonly ByteString[],
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
      return register.stamp === change.writtenStamp &&
        register.replica === change.writtenReplica &&
        change.type === 'string'
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
