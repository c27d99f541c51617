/** Local batches: runs operations one after the other and makes one commit and one frame of what they changed. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock, Stamp } from '../../crdts/stamp.js';
import { mergeVectors, raise, type VersionVector } from '../../crdts/version-vector.js';
import { MeshError } from '../errors.js';
import type { Commit, KeyWrite, LoggedFrame } from '../store/store.js';
import { frameBytes } from './frame.js';
import type { CachedKey } from './key-cache.js';
import { type KeyChange, planWrite } from './key-change.js';
import type { KeyRecord } from './key-record.js';
import type { KeyRules } from './key-rules.js';
import type { Operation, Waiter } from './operation.js';
import { PlainRecord } from './plain-record.js';
import { BatchTransaction } from './transaction.js';

/** An operation that waits for its batch, and later its outcome. */
export interface LocalItem {
  readonly operation: Operation<unknown>;
  readonly waiter: Waiter<unknown>;
  /** Set when it failed half-way: it doesn't run again, and is told in its turn. */
  spoiled: Error | null;
  error: Error | null;
  value: unknown;
}

/** What a batch of operations came to. */
export interface LocalBatch {
  /** Null when nothing was changed. */
  readonly frame: LoggedFrame | null;
  readonly commit: Commit | null;
  /** What was changed, as it is now. */
  readonly changed: readonly CachedKey[];
  /** Those of them that took the place of plain records. */
  readonly grown: readonly KeyRecord[];
}

/** Thrown when an operation failed after it had changed something: the batch must run again without it. */
export class SpoiledBatchError extends MeshError {
  readonly item: LocalItem;

  constructor(item: LocalItem, cause: unknown) {
    super('INTERNAL', 'an operation failed half-way; nothing of it was kept', { cause });
    this.item = item;
  }
}

/** How often a frame repeats all its dependencies, for those who missed earlier ones: every so many frames. */
const FULL_DEPS_EVERY = 64;

/** Follows which dependencies the previous frames of this replica have told. */
export class TellDeps {
  #told: VersionVector = new Map();
  #sinceFull = 0;

  /** Starts again: the next frame tells everything. */
  reset(): void {
    this.#told = new Map();
    this.#sinceFull = 0;
  }

  /** What the next frame must tell, given all that has been applied. */
  next(applied: ReadonlyMap<ReplicaId, Stamp>): { deps: VersionVector; full: boolean } {
    const full = this.#sinceFull === 0;
    this.#sinceFull = (this.#sinceFull + 1) % FULL_DEPS_EVERY;
    const deps: VersionVector = new Map();
    for (const [replica, stamp] of applied) {
      if (full || (this.#told.get(replica) ?? 0) < stamp) deps.set(replica, stamp);
    }
    mergeVectors(this.#told, deps);
    return { deps, full };
  }
}

/**
 * Runs the operations of a batch. Synchronous: nothing else can happen in between.
 * Throws {@link SpoiledBatchError}; then the records are no longer usable.
 */
export function runLocalBatch(
  items: readonly LocalItem[],
  records: Map<ByteString, CachedKey>,
  site: {
    readonly replica: ReplicaId;
    readonly frameNumber: number;
    readonly clock: HybridClock;
    readonly now: () => number;
    readonly maxValueBytes: number;
    readonly rules: KeyRules;
    /** Stamps of the other replicas' frames that the records include. */
    readonly applied: ReadonlyMap<ReplicaId, Stamp>;
    readonly tell: TellDeps;
  },
): LocalBatch {
  const tx = new BatchTransaction(
    site.replica,
    site.clock,
    site.now,
    records,
    site.maxValueBytes,
    site.rules,
  );
  // Another node on the same Valkey may be ahead: what is written now must come after what it wrote.
  for (const record of records.values()) {
    const touched = record instanceof PlainRecord ? record.touched : record.state.touched;
    if (touched > site.clock.last && !site.clock.isAhead(touched)) site.clock.observe(touched);
  }
  for (const item of items) {
    const before = tx.mutations;
    tx.begin();
    item.error = item.spoiled;
    item.value = undefined;
    if (item.spoiled !== null) continue;
    try {
      item.value = item.operation.run(tx);
    } catch (cause) {
      item.error = cause instanceof Error ? cause : new MeshError('INTERNAL', String(cause));
      if (tx.mutations !== before) throw new SpoiledBatchError(item, cause);
    }
  }
  const { plain, deltas, changes } = tx;
  if (plain.length + changes.size === 0 && !tx.beaten)
    return { frame: null, commit: null, changed: [], grown: [] };
  const stamp = site.clock.last;
  const observed = new Map(site.applied);
  // Another node on the same Valkey may have applied more than this one: what is superseded must have come first.
  const observe = (context: VersionVector): void => {
    for (const [other, seen] of context) if (other !== site.replica) raise(observed, other, seen);
  };
  for (const { set, values, expiry } of deltas.values()) {
    if (set !== null) observe(set.context);
    if (values !== null) observe(values.context);
    if (expiry !== null) observe(expiry.context);
  }
  const quick: KeyChange[] = [];
  for (const change of changes.values()) {
    if (change.quick === null) continue;
    quick.push(change);
    if (change.quick.kind === 'add' && change.quick.seen !== null) observe(change.quick.seen);
  }
  const { replica, frameNumber: number } = site;
  const content = { replica, number, stamp, ...site.tell.next(observed), keys: [...deltas] };
  const frame = { replica, number, stamp, bytes: frameBytes(content, plain, quick) };
  const origin = { replica, stamp };
  const writes: KeyWrite[] = [];
  const changed: CachedKey[] = [];
  for (const change of plain) {
    writes.push(change.record.write(change, origin));
    changed.push(change.record);
  }
  const now = site.now();
  for (const change of changes.values()) {
    change.record.state.touched = stamp;
    writes.push(planWrite(change, now, site.rules.resolve));
    changed.push(change.record);
  }
  const grown = tx.grown.filter(({ key }) => changes.has(key));
  return { frame, commit: { writes, frame }, changed, grown };
}
