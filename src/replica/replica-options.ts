/** What a replica needs of its node, and what it tells it. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock } from '../../crdts/stamp.js';
import type { Logger } from '../options.js';
import type { LoggedFrame, Store, StoreFacts } from '../store/store.js';
import type { Timers } from '../timers.js';
import type { Conflict } from './conflicts.js';
import type { CachedKey } from './key-cache.js';
import type { KeyRules } from './key-rules.js';

/** What a replica tells its node. Handlers must not throw. */
export interface ReplicaEvents {
  /** A frame of this replica has been committed. */
  onFrame(frame: LoggedFrame): void;
  /** Remote frames or states have been committed; `frames` counts the frames. */
  onApplied(frames: number): void;
  /** Keys changed by a committed batch, and whether by this node's own operations. They may be ahead of it, by commits under way. */
  onChanges(changed: readonly CachedKey[], local: boolean): void;
  onConflicts(conflicts: readonly Conflict[]): void;
  /** Another node on the same store was faster: reads again what the store holds, and tells it by Replica.learn. */
  onStale(): Promise<void>;
  /** Commits failed that would have changed these keys; what was told of them before may have looked ahead. */
  onUndone(keys: Iterable<ByteString>): void;
  /** Remote items could not be merged and were dropped, and all that waited behind them: a bug, or damaged data. */
  onMergeFailed(error: Error): void;
  /** The store can't be used; operations are refused until {@link onStoreBack}. */
  onStoreLost(error: Error): void;
  /**
   * The store answers again. Gives the replica id to go on with: the same one if the store still has everything,
   * else a new one, already stored there.
   */
  onStoreBack(facts: StoreFacts): Promise<ReplicaId>;
}

export interface ReplicaOptions {
  readonly replica: ReplicaId;
  readonly store: Store;
  readonly clock: HybridClock;
  readonly timers: Timers;
  readonly logger: Logger;
  readonly events: ReplicaEvents;
  readonly maxValueBytes: number;
  readonly rules: KeyRules;
  readonly maxQueuedOperations: number;
  readonly maxQueuedBytes: number;
  /** Keep the losing value of each conflict, at the cost of reading it. */
  readonly reportConflicts: boolean;
  /** Commits that may overlap. Default: 2. */
  readonly maxInFlight?: number;
  /** Keys held in memory. Default: 100,000. */
  readonly maxCachedKeys?: number;
}
