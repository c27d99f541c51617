/** Remote batches: merges frames, or whole key states of a state transfer, and makes one commit of what grew. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { isForgettable } from '../../crdts/forgetting.js';
import type { KeyState } from '../../crdts/key-state.js';
import type { Stamp } from '../../crdts/stamp.js';
import { dominates, mergeVectors, type VersionVector } from '../../crdts/version-vector.js';
import type { AppliedMark, Commit, KeyWrite, RaisedMark } from '../store/store.js';
import { type Conflict, findConflict, findSiblings, type Knowledge } from './conflicts.js';
import type { Frame } from './frame.js';
import { beginChange, type KeyChange, mergeChange, needsStringValue, planWrite } from './key-change.js';
import { type Wants, want } from './key-loader.js';
import { emptyRecord, type KeyRecord } from './key-record.js';
import type { KeyRules } from './key-rules.js';

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
  readonly changes: ReadonlyMap<ByteString, KeyChange>;
  readonly conflicts: readonly Conflict[];
}

function* deltasOf(items: readonly RemoteItem[]): Generator<readonly [ByteString, KeyState]> {
  for (const item of items) {
    for (const frame of item.frames) yield* frame.keys;
    yield* item.states;
  }
}

/** What must be loaded before anything is known of the keys. */
export function firstWants(items: readonly RemoteItem[]): Wants {
  const wants: Wants = new Map();
  for (const [key, delta] of deltasOf(items)) want(wants, key, false, delta.set?.entries.keys());
  for (const { forget } of items) for (const key of forget?.keys ?? []) want(wants, key, false, undefined);
  return wants;
}

/** What else must be loaded, now that the headers are known. Empty in the usual case. */
export function secondWants(
  items: readonly RemoteItem[],
  records: ReadonlyMap<ByteString, KeyRecord>,
  knowledge: Knowledge,
  reportConflicts: boolean,
): Wants {
  const wants: Wants = new Map();
  const contexts = new Map<ByteString, VersionVector>();
  for (const [key, delta] of deltasOf(items)) {
    const record = records.get(key)!;
    const whole = needsWholeSet(contexts, record, delta);
    const register = delta.string?.register;
    // The loser's bytes are worth keeping for the record, and they are overwritten by this very batch.
    const lost =
      reportConflicts &&
      register !== undefined &&
      register.stamp > 0 &&
      record.state.string !== null &&
      knowledge.hadNotSeen(register.replica, record.state.string.register);
    const value = lost || needsStringValue(record, delta);
    if (whole || value) want(wants, key, value, whole ? 'all' : undefined);
  }
  return wants;
}

/** Says whether a delta removes members by a context that hasn't seen all of the set; follows the context through the batch. */
function needsWholeSet(
  contexts: Map<ByteString, VersionVector>,
  record: KeyRecord,
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
 * Merges a batch. Synchronous; the records must be loaded as {@link firstWants} and {@link secondWants} say. Frames that `applied`
 * covers are left out: another node on the same store has applied them since they were queued.
 */
export function runRemoteBatch(
  items: readonly RemoteItem[],
  applied: ReadonlyMap<ReplicaId, AppliedMark>,
  records: ReadonlyMap<ByteString, KeyRecord>,
  knowledge: Knowledge,
  nowMs: number,
  rules: KeyRules,
): RemoteBatch {
  const changes = new Map<ByteString, KeyChange>();
  const conflicts: Conflict[] = [];
  const marks = new Map<ReplicaId, RaisedMark>();
  const numberOf = (replica: ReplicaId): number => applied.get(replica)?.number ?? 0;
  const merge = (key: ByteString, delta: KeyState): void => {
    let change = changes.get(key);
    if (change === undefined) {
      change = beginChange(records.get(key)!, rules.resolve);
      changes.set(key, change);
    }
    mergeChange(change, delta);
  };
  for (const item of items) {
    for (const frame of item.frames) {
      if (frame.number <= numberOf(frame.replica)) continue;
      knowledge.learn(frame);
      for (const [key, delta] of frame.keys) {
        const conflict = findConflict(key, records.get(key)!.state, delta, frame.replica, knowledge);
        if (conflict !== null) conflicts.push(conflict);
        merge(key, delta);
        const unresolved = findSiblings(key, records.get(key)!.state, delta, rules);
        if (unresolved !== null) conflicts.push(unresolved);
      }
      const { replica, number, stamp } = frame;
      // Whoever else has applied it meanwhile may have forgotten what it told of: it must not be merged twice.
      marks.set(replica, { replica, number, stamp, after: numberOf(replica) });
    }
    for (const [key, state] of item.states) merge(key, state);
    for (const mark of item.marks) {
      if ((marks.get(mark.replica)?.number ?? 0) < mark.number) marks.set(mark.replica, mark);
    }
  }
  for (const [key, change] of changes) if (!change.grew) changes.delete(key);
  const writes = [...changes.values()].map((change) => planWrite(change, nowMs, rules.resolve));
  for (const { forget } of items) {
    if (forget === undefined) continue;
    for (const key of forget.keys)
      if (!changes.has(key)) writes.push(...forgetKey(records.get(key)!, forget.stable));
  }
  return { commit: { writes, applied: [...marks.values()] }, changes, conflicts };
}

/** The write that forgets a key, as if it had never been; none when it may not be forgotten. */
function forgetKey(record: KeyRecord, stable: Stamp): KeyWrite[] {
  const { key, header } = record;
  if (header === null || !isForgettable(record.state, stable)) return [];
  Object.assign(record, emptyRecord(key));
  // Dead data have no digest.
  return [{ key, expected: header, header: null, digest: 0 }];
}
