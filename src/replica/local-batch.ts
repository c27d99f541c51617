/** Local batches: runs operations one after the other and makes one commit and one frame of what they changed. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock, Stamp } from '../../crdts/stamp.js';
import { mergeVectors, raise, type VersionVector } from '../../crdts/version-vector.js';
import { MeshError } from '../errors.js';
import type { Commit } from '../store/store.js';
import { encodeFrame, type Frame } from './frame.js';
import { type KeyChange, planWrite } from './key-change.js';
import type { KeyRecord } from './key-record.js';
import type { KeyRules } from './key-rules.js';
import type { Operation, Settle } from './operation.js';
import { BatchTransaction } from './transaction.js';

/** An operation that waits for its batch, and later its outcome. */
export interface LocalItem {
  readonly operation: Operation<unknown>;
  readonly settle: Settle<unknown>;
  /** Set when it failed half-way: it doesn't run again, and is told in its turn. */
  spoiled: Error | null;
  error: Error | null;
  value: unknown;
}

/** What a batch of operations came to. */
export interface LocalBatch {
  /** Null when nothing was changed. */
  readonly frame: Frame | null;
  readonly commit: Commit | null;
  readonly changes: ReadonlyMap<ByteString, KeyChange>;
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
  records: ReadonlyMap<ByteString, KeyRecord>,
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
  for (const { state } of records.values()) {
    if (state.touched > site.clock.last && !site.clock.isAhead(state.touched))
      site.clock.observe(state.touched);
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
  if (tx.deltas.size === 0 && !tx.beaten) return { frame: null, commit: null, changes: tx.changes };
  const stamp = site.clock.last;
  const observed = new Map(site.applied);
  for (const delta of tx.deltas.values()) {
    // Another node on the same Valkey may have applied more than this one: what is superseded must have come first.
    for (const context of [delta.set?.context, delta.values?.context, delta.expiry?.context]) {
      for (const [replica, seen] of context ?? [])
        if (replica !== site.replica) raise(observed, replica, seen);
    }
  }
  const frame = encodeFrame({
    replica: site.replica,
    number: site.frameNumber,
    stamp,
    ...site.tell.next(observed),
    keys: [...tx.deltas],
  });
  const now = site.now();
  const writes = [...tx.changes.values()].map((change) => {
    change.record.state.touched = stamp;
    return planWrite(change, now, site.rules.resolve);
  });
  return { frame, commit: { writes, frame }, changes: tx.changes };
}
