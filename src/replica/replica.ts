/**
 * The replica: takes operations and frames in, and commits them to the store in batches.
 *
 * Group commit: what arrives while commits are under way forms the next batch; there is no timer on this path. Up to
 * `maxInFlight` commits overlap: each expects the headers that the one before it writes. When one fails, so do those behind it;
 * then all that was assumed is thrown away, and the batches run again, in their order, on what the store really holds.
 *
 * An operation is settled when its batch is committed; never before, never on a failed commit.
 *
 * **Other nodes on the same store** (sync/siblings.ts) commit too. Each commit compares what it was built on: the headers, and the
 * marks of the replicas whose frames it applies. Where another one was faster it is stale: what the store holds now is asked for, frames
 * that it has by then are left out, and the batch runs again. While there are others, a batch also compares the keys that it has only looked
 * at, so that an answer from memory is as true as one from the store. Who was faster is told (CommitResult.crowded), and lets the
 * others go first for a moment, or the one that needs no loads would win every time.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock } from '../../crdts/stamp.js';
import {
  LimitError,
  MeshError,
  StaleCommitError,
  StoppedError,
  StoreRefusedError,
  StoreResetError,
  StoreUnavailableError,
} from '../errors.js';
import type { AppliedMark, KeyWrite, Store } from '../store/store.js';
import { type Batch, Batches, type Loaded, raiseMarks } from './batches.js';
import { type LocalItem, SpoiledBatchError } from './local-batch.js';
import type { Operation, Waiter } from './operation.js';
import type { RemoteItem } from './remote-batch.js';
import type { ReplicaOptions } from './replica-options.js';
import { Tickets } from './tickets.js';
import { type Work, WorkQueue } from './work-queue.js';

/** Pause before a batch is tried again that the store refused, and between attempts to reach a lost store. */
const RETRY_MS = 250;
/** Commits that fail as stale in a row before there is a pause: another node may be faster for a while, not for ever. */
const MAX_STALE_IN_A_ROW = 20;

/** Bounds of the pause in which another node on the same store may commit first. */
const LEAST_YIELD_MS = 1;
const MOST_YIELD_MS = 50;

interface InFlight extends Batch {
  readonly sentMs: number;
  outcome: 'pending' | 'committed' | Error;
}

export class Replica {
  readonly #options: ReplicaOptions;
  readonly #store: Store;
  readonly #clock: HybridClock;
  readonly #batches: Batches;
  /** What is committed. */
  readonly #applied = new Map<ReplicaId, AppliedMark>();
  readonly #inFlight: InFlight[] = [];
  readonly #queue = new WorkQueue();
  readonly #tickets = new Tickets();
  #replica: ReplicaId;
  /** The batch whose keys are being loaded. */
  #loading: Work | null = null;
  #staleInARow = 0;
  #closing = false;
  /** No batch of operations is begun. */
  #held = false;
  /** Told when no batch of operations is under way any more. */
  #whenQuiet: (() => void)[] = [];
  #pumping = false;
  #pauses = 0;
  /** Why nothing is begun at the moment. */
  #pause: 'none' | 'failing' | 'retry' | 'lost' | 'stopped' = 'none';
  /** Why the store is to be opened again as soon as nothing is under way. */
  #reopening: MeshError | null = null;

  constructor(options: ReplicaOptions, applied: Iterable<AppliedMark>) {
    this.#options = options;
    this.#store = options.store;
    this.#clock = options.clock;
    this.#replica = options.replica;
    this.#batches = new Batches(options);
    this.#adopt(applied);
  }

  /** The id under which this replica makes dots now. */
  get id(): ReplicaId {
    return this.#replica;
  }

  /** How far each replica's frames are committed here, this one's own included. */
  get applied(): ReadonlyMap<ReplicaId, AppliedMark> {
    return this.#applied;
  }

  /** The number of this replica's last committed frame. */
  get lastFrame(): number {
    return this.#applied.get(this.#replica)?.number ?? 0;
  }

  /** The ticket of the last committed frame; see {@link frameOf}. */
  get lastTicket(): number {
    return this.#tickets.of(this.lastFrame);
  }

  /** The frame that a ticket stands for (tickets.ts). */
  frameOf(ticket: number): { readonly replica: ReplicaId; readonly number: number } {
    return this.#tickets.frameOf(ticket, this.#replica);
  }

  /** What waits for a commit. */
  get queued(): { readonly operations: number; readonly bytes: number } {
    return { operations: this.#queue.operations, bytes: this.#queue.operationBytes };
  }

  /** Says whether the store is usable, as far as is known. */
  get available(): boolean {
    return this.#pause !== 'lost' && this.#pause !== 'stopped';
  }

  /** Says whether nothing is under way: every commit has been told to succeed or fail. */
  get settled(): boolean {
    return this.#inFlight.length === 0 && this.#loading === null;
  }

  /** Queues an operation; every outcome is told to `waiter`. */
  submit<T>(operation: Operation<T>, waiter: Waiter<T>): void {
    const refusal = this.#refusal(operation.bytes ?? 0);
    if (refusal !== null) {
      queueMicrotask(() => waiter.settled(refusal, undefined, 0));
      return;
    }
    this.#queue.addLocal({
      operation,
      waiter: waiter as Waiter<unknown>,
      spoiled: null,
      error: null,
      value: undefined,
    });
    this.#schedule();
  }

  /** Queues frames that causal delivery let through, in its order; or whole states and the marks they stand for. */
  merge(item: RemoteItem): void {
    if (!this.available || this.#closing) {
      item.done?.(this.#unavailable());
      return;
    }
    this.#queue.addRemote(item);
    this.#schedule();
  }

  /**
   * From now on no batch of operations is begun, so this replica makes no frame, of whatever kind; operations queue, within
   * the bounds of the queue. Frames and states of others are merged as ever. Resolves when no batch of operations is under way
   * any more. Ends with {@link resumeOperations}; {@link stop} doesn't wait for that.
   */
  holdOperations(): Promise<void> {
    this.#held = true;
    if (this.#loading !== null && this.#loading.local.length > 0) this.#recall();
    return new Promise((resolve) => {
      this.#whenQuiet.push(resolve);
      this.#tellQuiet();
    });
  }

  /** Ends what {@link holdOperations} began. */
  resumeOperations(): void {
    this.#held = false;
    for (const tell of this.#whenQuiet.splice(0)) tell();
    this.#schedule();
  }

  #tellQuiet(): void {
    if (this.#whenQuiet.length === 0 || this.#inFlight.some(({ local }) => local.length > 0)) return;
    for (const tell of this.#whenQuiet.splice(0)) tell();
  }

  /**
   * Writes again what a header says of keys, or corrects digests: past the queues, since nothing of the keys' state changes. Each write
   * must expect the header that it stores (or none), so that it can't undo what is newer. Rejects as the store does; StaleCommitError
   * when a key has changed meanwhile.
   */
  async rewrite(writes: readonly KeyWrite[]): Promise<void> {
    if (!this.available || this.#closing) throw this.#unavailable();
    try {
      await this.#store.commit({ writes });
    } finally {
      // What is known of their native values doesn't hold any more; where a digest was wrong, nor which keys have a header.
      if (writes.some(({ digest, header }) => digest !== 0 || header === null)) this.#batches.invalidateAll();
      else this.#batches.invalidate(writes.map(({ key }) => key));
    }
  }

  /** Someone found that the store doesn't answer. What is under way finds out by itself; this is for when nothing is. */
  storeFailed(error: MeshError): void {
    if (this.#pause === 'none' && !this.#pumping && this.#inFlight.length === 0) this.#lost(error);
  }

  /**
   * What is known of the store is wrong, though it answers: it is opened again, as if it had been lost. Nothing is begun any
   * more before that; what is under way already is waited for.
   */
  reopen(error: MeshError): void {
    // Also while it is being opened: what is asked then may come too late to be heeded.
    this.#reopening ??= error;
    this.#reopenWhenSettled();
  }

  #reopenWhenSettled(): void {
    const error = this.#reopening;
    if (error === null || !this.available) return;
    this.#pause = 'failing';
    if (this.#inFlight.length > 0) return;
    this.#recall();
    this.#lost(error);
  }

  /** The number of this replica's last frame that was sent to the store, whether its outcome is known or not. */
  get lastSent(): number {
    return this.#batches.assumed(this.#replica);
  }

  /** Other nodes use the same store, or none does. */
  set shared(shared: boolean) {
    this.#batches.shared = shared;
  }

  /**
   * Takes in what the store holds, as it was read after `before` was true: other nodes on it may have applied more. Gives what is new; null
   * when something is missing there that was committed before.
   */
  learn(
    stored: Iterable<AppliedMark>,
    before: ReadonlyMap<ReplicaId, AppliedMark>,
  ): readonly AppliedMark[] | null {
    const marks = new Map<ReplicaId, AppliedMark>();
    for (const mark of stored) marks.set(mark.replica, mark);
    for (const { replica, number } of before.values())
      if ((marks.get(replica)?.number ?? 0) < number) return null;
    // This replica's own frames are told by their commits.
    marks.delete(this.#replica);
    const news = [...marks.values()].filter(
      ({ replica, number }) => number > (this.#applied.get(replica)?.number ?? 0),
    );
    for (const { stamp } of news) if (!this.#clock.isAhead(stamp)) this.#clock.observe(stamp);
    raiseMarks(this.#applied, news);
    this.#batches.raise(news);
    return news;
  }

  /** Another node on the same store has changed these keys: what is in memory of them is old. */
  invalidate(keys: Iterable<ByteString>): void {
    this.#batches.invalidate(keys);
  }

  /** Number of remote items that wait. */
  get queuedRemote(): number {
    return this.#queue.remoteItems;
  }

  /**
   * Commits the operations that are queued, then refuses everything; says whether nothing is left whose outcome is unknown.
   * Rejects never; what can't be committed is settled with an error. Frames and states that wait are given up.
   */
  async stop(deadlineMs: number): Promise<boolean> {
    const until = this.#options.timers.now() + deadlineMs;
    this.#closing = true;
    this.resumeOperations();
    while (
      this.available &&
      (this.#queue.operations > 0 || !this.settled) &&
      this.#options.timers.now() < until
    ) {
      await new Promise<void>((resolve) => this.#options.timers.after(5, resolve));
    }
    const clean = this.available && this.settled;
    this.#pause = 'stopped';
    this.#recall();
    this.#rejectQueued(new StoppedError());
    return clean;
  }

  #refusal(bytes: number): MeshError | null {
    if (!this.available || this.#closing) return this.#unavailable();
    if (this.#queue.operations >= this.#options.maxQueuedOperations) {
      return new LimitError(
        `more than ${this.#options.maxQueuedOperations} operations wait for a commit: slow down, or raise maxQueuedOperations`,
      );
    }
    const { operationBytes } = this.#queue;
    if (bytes > 0 && operationBytes > 0 && operationBytes + bytes > this.#options.maxQueuedBytes) {
      return new LimitError(
        `more than ${this.#options.maxQueuedBytes} bytes wait for a commit: slow down, or raise maxQueuedBytes`,
      );
    }
    return null;
  }

  #unavailable(cause?: Error): MeshError {
    if (this.#pause === 'stopped' || this.#closing) return new StoppedError();
    const message = "this region's Valkey can't be reached: try again when it is back";
    return new StoreUnavailableError(message, { cause });
  }

  #adopt(applied: Iterable<AppliedMark>): void {
    this.#applied.clear();
    for (const mark of applied) {
      this.#applied.set(mark.replica, mark);
      // Another node on the same Valkey may have applied it; frames that depend on it must come after it.
      if (!this.#clock.isAhead(mark.stamp)) this.#clock.observe(mark.stamp);
    }
    this.#forgetAssumptions();
  }

  #forgetAssumptions(): void {
    this.#batches.forget(this.#applied.values());
  }

  #schedule(): void {
    if (this.#pumping || this.#pause !== 'none') return;
    this.#pumping = true;
    // The rest of this turn's operations join the batch.
    queueMicrotask(() => void this.#pump());
  }

  async #pump(): Promise<void> {
    const maxInFlight = this.#options.maxInFlight ?? 2;
    try {
      while (this.#pause === 'none' && this.#inFlight.length < maxInFlight) {
        const work = this.#queue.take(this.#closing ? 'local' : this.#held ? 'remote' : null);
        if (work === null) return;
        let loaded: Loaded | null = null;
        let failure: unknown = null;
        this.#loading = work;
        try {
          loaded = await this.#batches.load(work);
        } catch (error) {
          failure = error;
        }
        // What was loaded doesn't hold any more; the batch stands in the queue again, or has been given up.
        if (this.#loading !== work) continue;
        this.#loading = null;
        if (loaded === null) {
          this.#loadFailed(work, failure);
          continue;
        }
        if (this.#pause !== 'none') {
          this.#queue.putBack(work);
          continue;
        }
        this.#begin(work, loaded);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #begin(work: Work, loaded: Loaded): void {
    try {
      const batch = this.#batches.run(work, loaded, this.#replica);
      this.#send({ ...batch, sentMs: this.#options.timers.now(), outcome: 'pending' });
    } catch (error) {
      this.#dropSpoiling(work, error instanceof Error ? error : new MeshError('INTERNAL', String(error)));
    }
  }

  #send(batch: InFlight): void {
    const { commit } = batch;
    this.#batches.raise(batch.marks);
    this.#inFlight.push(batch);
    const nothing =
      commit === null ||
      (commit.writes.length === 0 && commit.frame === undefined && (commit.applied?.length ?? 0) === 0);
    // A batch that only read is settled in its turn: what it saw of commits under way must have come true.
    const done = nothing ? Promise.resolve(null) : this.#store.commit(commit);
    done.then(
      (result) => {
        if (result?.crowded === true) this.#yield(this.#options.timers.now() - batch.sentMs);
        this.#settled(batch, 'committed');
      },
      (error: unknown) =>
        this.#settled(batch, error instanceof Error ? error : new MeshError('INTERNAL', String(error))),
    );
  }

  #settled(batch: InFlight, outcome: 'committed' | Error): void {
    this.#settleInTurn(batch, outcome);
    this.#reopenWhenSettled();
  }

  #settleInTurn(batch: InFlight, outcome: 'committed' | Error): void {
    batch.outcome = outcome;
    queueMicrotask(() => this.#tellQuiet());
    if (outcome === 'committed' && (batch.marks.length > 0 || batch.changed.length > 0))
      this.#staleInARow = 0;
    while (this.#inFlight.length > 0 && this.#inFlight[0]!.outcome === 'committed')
      this.#finish(this.#inFlight.shift()!);
    if (this.#inFlight.some((other) => other.outcome instanceof Error)) {
      // What is begun now would build on what failed.
      if (this.#pause === 'none' || this.#pause === 'retry') this.#pause = 'failing';
      if (this.#inFlight.every((other) => other.outcome !== 'pending'))
        this.#failed(this.#inFlight.splice(0));
      return;
    }
    if (this.#inFlight.length === 0 && this.#pause === 'failing') this.#pause = 'none';
    this.#schedule();
  }

  #finish(batch: InFlight): void {
    const { events } = this.#options;
    raiseMarks(this.#applied, batch.marks);
    if (batch.frame !== null) events.onFrame(batch.frame);
    const ticket = batch.frame === null ? 0 : this.#tickets.of(batch.frame.number);
    for (const item of batch.local)
      this.#settle(item, item.error, item.value, item.error === null ? ticket : 0);
    let frames = 0;
    for (const item of batch.remote) {
      frames += item.frames.length;
      item.done?.(null);
    }
    if (batch.remote.length > 0) events.onApplied(frames);
    if (batch.conflicts.length > 0) events.onConflicts(batch.conflicts);
    if (batch.changed.length > 0) events.onChanges(batch.changed, batch.local.length > 0);
  }

  /** A caller that throws must not keep the others from their answers. */
  #settle(item: LocalItem, error: Error | null, value?: unknown, frameNumber = 0): void {
    try {
      item.waiter.settled(error, value, frameNumber);
    } catch (thrown) {
      this.#options.logger.error(
        { err: thrown },
        'the caller of an operation threw when it was told the outcome',
      );
    }
  }

  /** Puts the batch back that is being loaded, if there is one: it came after those under way, and must stay behind them. */
  #recall(): void {
    if (this.#loading === null) return;
    this.#queue.putBack(this.#loading);
    this.#loading = null;
  }

  /** Everything under way has failed, the first for a reason of its own, the rest because of it. */
  #failed(batches: readonly InFlight[]): void {
    const error = batches[0]!.outcome as Error;
    for (const { changed } of batches) this.#options.events.onUndone(changed.map(({ key }) => key));
    this.#recall();
    this.#forgetAssumptions();
    if (this.#pause === 'stopped') {
      for (const batch of batches) this.#reject(batch, new StoppedError());
      return;
    }
    if (error instanceof StoreUnavailableError || error instanceof StoreResetError) {
      for (const batch of batches) {
        for (const item of batch.local) this.#settle(item, error);
        this.#queue.putBack({ local: [], remote: batch.remote });
      }
      this.#lost(error);
      return;
    }
    const stale = error instanceof StaleCommitError;
    const { local, guessed } = batches[0]!;
    if (stale && guessed) this.#batches.guessedWrong();
    // What frees memory, or concerns another server, is let through where nothing else is: each operation is tried alone.
    const alone =
      local.length > 1 && error instanceof StoreRefusedError && (error.reason === 'OOM' || error.inPart);
    for (const batch of [...batches].reverse()) {
      if (batch === batches[0] && alone) {
        this.#queue.putBackAlone(batch);
      } else if (batch === batches[0] && !stale) {
        for (const item of batch.local) this.#settle(item, error);
        this.#queue.putBack({ local: [], remote: batch.remote });
      } else {
        this.#queue.putBack(batch);
      }
    }
    this.#staleInARow += Number(stale);
    if (stale && this.#staleInARow < MAX_STALE_IN_A_ROW) {
      // Of keys, the next load tells what is new; of frames, only the marks do.
      if (batches.some(({ remote }) => remote.length > 0) || this.#staleInARow % 4 === 0) this.#askAgain();
      else {
        this.#pause = 'none';
        this.#schedule();
      }
      return;
    }
    if (alone) {
      this.#pause = 'none';
      this.#schedule();
      return;
    }
    this.#options.logger.warn({ err: error }, 'the store refused a commit');
    if (stale || local.length === 0) {
      this.#retryLater();
      return;
    }
    // Who asked has been told; the next may be luckier.
    this.#pause = 'none';
    this.#schedule();
  }

  #reject(work: Work, error: Error): void {
    for (const item of work.local) this.#settle(item, error);
    for (const item of work.remote) item.done?.(error);
  }

  #retryLater(afterMs = RETRY_MS): void {
    this.#pause = 'retry';
    const pauses = ++this.#pauses;
    this.#options.timers.after(afterMs, () => this.#endRetry(pauses));
  }

  #endRetry(pauses: number): void {
    if (this.#pause !== 'retry' || pauses !== this.#pauses) return;
    this.#pause = 'none';
    this.#schedule();
  }

  /** Lets another node go first: it must load, and then commit. */
  #yield(tookMs: number): void {
    if (this.#pause === 'none')
      this.#retryLater(Math.min(Math.max(2 * tookMs, LEAST_YIELD_MS), MOST_YIELD_MS));
  }

  /** Asks what the store holds before anything else is tried. */
  #askAgain(): void {
    this.#pause = 'retry';
    const pauses = ++this.#pauses;
    // Should that fail, so will what is tried next, and tell why.
    const end = (): void => this.#endRetry(pauses);
    this.#options.events.onStale().then(end, end);
  }

  /** A load failed: nothing was changed, but the store may be gone. */
  #loadFailed(work: Work, error: unknown): void {
    const cause = error instanceof Error ? error : new MeshError('INTERNAL', String(error));
    if (cause instanceof StoreUnavailableError || cause instanceof StoreResetError) {
      this.#queue.putBack(work);
      if (this.#pause !== 'none') return;
      // The commits under way will fail as well, and tell.
      if (this.#inFlight.length > 0) this.#pause = 'failing';
      else this.#lost(cause);
      return;
    }
    this.#options.logger.warn({ err: cause }, 'the store refused a read');
    if (work.local.length > 0) {
      this.#rejectCulprit(work, cause);
      return;
    }
    this.#queue.putBack(work);
    if (this.#pause === 'none') this.#retryLater();
  }

  /** A batch could not be run: takes out what made it fail, and queues the rest again. */
  #dropSpoiling(work: Work, cause: Error): void {
    this.#options.logger.error({ err: cause }, 'a batch could not be run');
    if (cause instanceof SpoiledBatchError) {
      // It keeps its place, so that it is told in its turn.
      cause.item.spoiled = cause;
      this.#queue.putBack(work);
    } else if (work.local.length > 0) {
      this.#rejectCulprit(work, cause);
    } else {
      this.#reject(work, cause);
      // What comes behind builds on what could not be merged: start again from what is committed.
      this.#reject(this.#queue.dropRemote(), cause);
      this.#options.events.onMergeFailed(cause);
    }
    this.#schedule();
  }

  /** One operation of a batch made it fail: they run again each alone, so that only that one is told. */
  #rejectCulprit(work: Work, cause: Error): void {
    if (work.local.length === 1) {
      this.#reject(work, cause);
      return;
    }
    this.#queue.putBackAlone(work);
  }

  #rejectQueued(error: Error): void {
    this.#reject(this.#queue.dropLocal(), error);
    if (this.#pause === 'stopped') this.#reject(this.#queue.dropRemote(), error);
  }

  #lost(error: Error): void {
    this.#pause = 'lost';
    this.#reopening = null;
    this.#rejectQueued(this.#unavailable(error));
    // Frames are asked for again, from what the store turns out to hold.
    this.#reject(this.#queue.dropRemote(), error);
    this.#options.events.onStoreLost(error);
    void this.#recover();
  }

  async #recover(): Promise<void> {
    while (this.#pause === 'lost') {
      try {
        this.#reopening = null;
        const facts = await this.#store.open();
        const replica = await this.#options.events.onStoreBack(facts);
        if (replica !== this.#replica) {
          this.#tickets.end(this.#replica, this.lastFrame);
          this.#replica = replica;
        }
        this.#adopt(facts.applied);
        if (this.#pause !== 'lost') return;
        this.#pause = 'none';
        this.#reopenWhenSettled();
        this.#schedule();
        return;
      } catch (error) {
        if (error instanceof StoppedError) return;
        this.#options.logger.debug({ err: error as Error }, 'the store is still unavailable');
        await new Promise<void>((resolve) => this.#options.timers.after(RETRY_MS, resolve));
      }
    }
  }
}
