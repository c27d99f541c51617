/** Remote batches: merges frames, or whole key states of a state transfer, and makes one commit of what grew. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { isForgettable } from '../../crdts/forgetting.js';
import type { KeyState } from '../../crdts/key-state.js';
import type { Stamp } from '../../crdts/stamp.js';
import { dominates, mergeVectors, type VersionVector } from '../../crdts/version-vector.js';
import type { AppliedMark, Commit, KeyWrite, RaisedMark } from '../store/store.js';
import {
  type Conflict,
  findConflict,
  findSiblings,
  hasTwoTypes,
  type Knowledge,
  typeConflict,
} from './conflicts.js';
import type { Frame } from './frame.js';
import type { CachedKey } from './key-cache.js';
import { beginChange, type KeyChange, mergeChange, needsStringValue, planWrite } from './key-change.js';
import { type Needs, type Wants, want } from './key-loader.js';
import { emptyRecord, type KeyRecord, recordOf } from './key-record.js';
import type { KeyRules } from './key-rules.js';
import { type FrameDelta, keyStateOf, PlainWrite } from './plain-delta.js';
import { type PlainChange, PlainRecord } from './plain-record.js';

/** Something to merge: frames that may be applied now, or whole states, and the marks to raise when it is done. */
export interface RemoteItem {
  readonly frames: readonly Frame[];
  readonly states: readonly (readonly [ByteString, KeyState])[];
  readonly marks: readonly AppliedMark[];
  /** Keys to forget if they are dead, and `touched` by nothing after `stable` (crdts/forgetting.ts). Default: none. */
  readonly forget?: { readonly keys: readonly ByteString[]; readonly stable: Stamp };
  /** Told once it is committed, or that it never will be. */
  readonly done?: (error: Error | null) => void;
}

export interface RemoteBatch {
  readonly commit: Commit;
  /** What was changed, as it is now. */
  readonly changed: readonly CachedKey[];
  /** Records that took the place of plain ones. */
  readonly grown: readonly KeyRecord[];
  readonly conflicts: readonly Conflict[];
}

function* deltasOf(items: readonly RemoteItem[]): Generator<FrameDelta> {
  for (const item of items) {
    for (const frame of item.frames) yield* frame.deltas;
    yield* item.states;
  }
}

/** What must be there before anything is known of the keys. */
export function firstNeeds(items: readonly RemoteItem[], needs: Needs): void {
  // These must be key records, so they aren't taken from the cache as they are.
  for (const { forget } of items)
    for (const key of forget?.keys ?? []) want(needs.wants, key, false, undefined);
  for (const delta of deltasOf(items)) {
    if (delta instanceof PlainWrite) needs.addBlind(delta.key);
    else needs.add(delta[0], false, delta[1].set?.entries);
  }
}

/** What else must be loaded, now that the headers are known. Empty in the usual case. */
export function secondWants(
  items: readonly RemoteItem[],
  records: ReadonlyMap<ByteString, CachedKey>,
  knowledge: Knowledge,
  reportConflicts: boolean,
): Wants {
  const wants: Wants = new Map();
  const contexts = new Map<ByteString, VersionVector>();
  for (const delta of deltasOf(items)) {
    if (delta instanceof PlainWrite) {
      const { key, origin } = delta;
      const record = records.get(key)!;
      const mine = record instanceof PlainRecord ? record : record.state.string?.register;
      // The loser's bytes are worth keeping for the record, and they are overwritten by this very batch.
      if (reportConflicts && mine !== undefined && knowledge.hadNotSeen(origin.replica, mine))
        want(wants, key, true, undefined);
      continue;
    }
    const [key, state] = delta;
    const record = records.get(key)!;
    const whole = needsWholeSet(contexts, record, state);
    const register = state.string?.register;
    const lost =
      reportConflicts &&
      register !== undefined &&
      register.stamp > 0 &&
      record.state.string !== null &&
      knowledge.hadNotSeen(register.replica, record.state.string.register);
    const value = lost || needsStringValue(record, state);
    if (whole || value) want(wants, key, value, whole ? 'all' : undefined);
  }
  return wants;
}

/** Says whether a delta removes members by a context that hasn't seen all of the set; follows the context through the batch. */
function needsWholeSet(
  contexts: Map<ByteString, VersionVector>,
  record: CachedKey,
  delta: KeyState,
): boolean {
  const { set } = record.state;
  if (delta.set === null || set === null || set.whole) return false;
  let context = contexts.get(record.key);
  if (context === undefined) {
    context = new Map(set.context);
    contexts.set(record.key, context);
  }
  const needed = delta.set.whole && !dominates(delta.set.context, context);
  mergeVectors(context, delta.set.context);
  return needed;
}

/**
 * Merges a batch. Synchronous; the records must be loaded as {@link firstNeeds} and {@link secondWants} say. Frames that `applied`
 * covers are left out: another node on the same store has applied them since they were queued.
 */
export function runRemoteBatch(
  items: readonly RemoteItem[],
  applied: ReadonlyMap<ReplicaId, AppliedMark>,
  records: Map<ByteString, CachedKey>,
  knowledge: Knowledge,
  nowMs: number,
  rules: KeyRules,
): RemoteBatch {
  const merge = new Merge(records, knowledge, rules);
  const marks = new Map<ReplicaId, RaisedMark>();
  const numberOf = (replica: ReplicaId): number => applied.get(replica)?.number ?? 0;
  for (const item of items) {
    for (const frame of item.frames) {
      if (frame.number <= numberOf(frame.replica)) continue;
      knowledge.learn(frame);
      for (const delta of frame.deltas) merge.frameDelta(delta, frame.replica);
      const { replica, number, stamp } = frame;
      // Whoever else has applied it meanwhile may have forgotten what it told of: it must not be merged twice.
      marks.set(replica, { replica, number, stamp, after: numberOf(replica) });
    }
    for (const [key, state] of item.states) merge.state(key, state);
    for (const mark of item.marks) {
      if ((marks.get(mark.replica)?.number ?? 0) < mark.number) marks.set(mark.replica, mark);
    }
  }
  const { writes, changed } = merge.plan(nowMs);
  for (const { forget } of items) {
    if (forget === undefined) continue;
    for (const key of forget.keys) {
      const record = records.get(key)! as KeyRecord;
      if (merge.changes.get(key)?.grew !== true) writes.push(...forgetKey(record, forget.stable));
    }
  }
  const { conflicts } = merge;
  const grown = merge.grown.filter(({ key }) => merge.changes.get(key)?.grew);
  return { commit: { writes, applied: [...marks.values()] }, changed, grown, conflicts };
}

/** A batch that is being merged. */
class Merge {
  readonly changes = new Map<ByteString, KeyChange>();
  readonly conflicts: Conflict[] = [];
  /** Records that took the place of plain ones. */
  readonly grown: KeyRecord[] = [];
  readonly #plain: PlainChange[] = [];
  readonly #records: Map<ByteString, CachedKey>;
  readonly #knowledge: Knowledge;
  readonly #rules: KeyRules;

  constructor(records: Map<ByteString, CachedKey>, knowledge: Knowledge, rules: KeyRules) {
    this.#records = records;
    this.#knowledge = knowledge;
    this.#rules = rules;
  }

  /** Merges a key's delta of a frame, and notes the conflicts that this settles or brings. */
  frameDelta(delta: FrameDelta, from: ReplicaId): void {
    if (delta instanceof PlainWrite) {
      if (!this.#replaces(delta)) this.#frameState(delta.key, keyStateOf(delta), from);
    } else this.#frameState(delta[0], delta[1], from);
  }

  state(key: ByteString, delta: KeyState): void {
    let change = this.changes.get(key);
    if (change === undefined) {
      change = beginChange(this.#record(key), this.#rules.resolve);
      this.changes.set(key, change);
    }
    mergeChange(change, delta);
  }

  plan(nowMs: number): { writes: KeyWrite[]; changed: CachedKey[] } {
    const writes: KeyWrite[] = [];
    const changed: CachedKey[] = [];
    for (const change of this.#plain) {
      if (change.record.change !== change) continue;
      writes.push(change.record.write(change, change.origin!));
      changed.push(change.record);
    }
    for (const change of this.changes.values()) {
      if (!change.grew) continue;
      writes.push(planWrite(change, nowMs, this.#rules.resolve));
      changed.push(change.record);
    }
    return { writes, changed };
  }

  #frameState(key: ByteString, delta: KeyState, from: ReplicaId): void {
    const { state } = this.#record(key);
    const conflict = findConflict(key, state, delta, from, this.#knowledge);
    if (conflict !== null) this.conflicts.push(conflict);
    const hadTwoTypes = hasTwoTypes(state);
    this.state(key, delta);
    if (!hadTwoTypes && hasTwoTypes(state)) this.conflicts.push(typeConflict(key, state, this.#rules));
    const unresolved = findSiblings(key, state, delta, this.#rules);
    if (unresolved !== null) this.conflicts.push(unresolved);
  }

  /** Puts a plain write over a plain record; false where there is more to it: another type, an older write, a conflict. */
  #replaces({ key, origin, behind, value }: PlainWrite): boolean {
    const record = this.#records.get(key);
    if (!(record instanceof PlainRecord)) return false;
    const { change } = record;
    const touched = change?.origin?.stamp ?? record.touched;
    const before = change === null ? record : { replica: change.origin!.replica, stamp: change.stamp };
    const stamp = origin.stamp - behind;
    if (touched > origin.stamp || before.stamp >= stamp) return false;
    if (before.stamp > 0 && this.#knowledge.hadNotSeen(origin.replica, before)) return false;
    if (change === null) {
      record.change = { record, origin, stamp, value };
      this.#plain.push(record.change);
    } else {
      change.origin = origin;
      change.stamp = stamp;
      change.value = value;
    }
    return true;
  }

  /** The record of a key; it takes the place of a plain one, with what was done to that. */
  #record(key: ByteString): KeyRecord {
    const plain = this.#records.get(key)!;
    if (!(plain instanceof PlainRecord)) return plain;
    const record = recordOf(plain);
    this.#records.set(key, record);
    this.grown.push(record);
    const { change } = plain;
    if (change === null) return record;
    plain.change = null;
    const { stamp, value } = change;
    const origin = change.origin!;
    this.state(key, keyStateOf(new PlainWrite(key, origin, origin.stamp - stamp, value)));
    return record;
  }
}

/** The write that forgets a key, as if it had never been; none when it may not be forgotten. */
function forgetKey(record: KeyRecord, stable: Stamp): KeyWrite[] {
  const { key, header } = record;
  if (header === null || !isForgettable(record.state, stable)) return [];
  Object.assign(record, emptyRecord(key));
  // Dead data have no digest.
  return [{ key, expected: header, header: null, digest: 0 }];
}
