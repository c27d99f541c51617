/**
 * Batches: what must be loaded for one, what it makes of the records, and what is to be committed for it.
 *
 * The records in memory, and all that goes with them, run ahead of the store: they include the commits under way. When one of those fails, all of
 * it is thrown away ({@link Batches.forget}).
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { AppliedMark, Commit, KeyWrite, LoggedFrame } from '../store/store.js';
import { BlindWrites } from './blind-writes.js';
import { type Conflict, Knowledge } from './conflicts.js';
import { type CachedKey, KeyCache } from './key-cache.js';
import { loadKeys, Needs } from './key-loader.js';
import { type LocalItem, runLocalBatch, TellDeps } from './local-batch.js';
import type { PlainRecord } from './plain-record.js';
import { firstNeeds, type RemoteItem, runRemoteBatch, secondWants } from './remote-batch.js';
import type { ReplicaOptions } from './replica-options.js';
import type { Work } from './work-queue.js';

/** What was loaded for a batch. */
export interface Loaded {
  readonly records: Map<ByteString, CachedKey>;
  /** Those of them that belong in the cache once they are written. */
  readonly fresh: readonly PlainRecord[];
  /** Some are guesses (blind-writes.ts). */
  readonly guessed: boolean;
}

/** A batch that has run, and is to be committed. */
export interface Batch extends Work {
  readonly frame: LoggedFrame | null;
  readonly marks: readonly AppliedMark[];
  readonly changed: readonly CachedKey[];
  readonly conflicts: readonly Conflict[];
  /** It was built on guesses. */
  readonly guessed: boolean;
  /** null = nothing. */
  readonly commit: Commit | null;
}

export class Batches {
  /** Other nodes use the same store. */
  shared = false;
  readonly #options: ReplicaOptions;
  readonly #cache: KeyCache;
  readonly #knowledge = new Knowledge();
  readonly #tell = new TellDeps();
  readonly #blind = new BlindWrites();
  /** How far each replica's frames are in the records. */
  readonly #assumed = new Map<ReplicaId, AppliedMark>();

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#cache = new KeyCache(options.maxCachedKeys ?? 100_000);
  }

  /** How far a replica's frames are in the records. */
  assumed(replica: ReplicaId): number {
    return this.#assumed.get(replica)?.number ?? 0;
  }

  /** The records include these now. */
  raise(marks: readonly AppliedMark[]): void {
    raiseMarks(this.#assumed, marks);
  }

  /** Forgets all that was assumed: what holds is what is committed. */
  forget(applied: Iterable<AppliedMark>): void {
    this.#cache.clear();
    this.#knowledge.clear();
    this.#tell.reset();
    this.#assumed.clear();
    for (const mark of applied) this.#assumed.set(mark.replica, mark);
  }

  /** Forgets what is in memory of these keys. */
  invalidate(keys: Iterable<ByteString>): void {
    for (const key of keys) this.#cache.delete(key);
  }

  /** Forgets what is in memory of all keys. */
  invalidateAll(): void {
    this.#cache.clear();
  }

  /** A commit that was built on guesses was stale. */
  guessedWrong(): void {
    this.#blind.wrong();
  }

  /** Loads what a batch needs. Rejects as the store does. */
  async load(work: Work): Promise<Loaded> {
    const { store, reportConflicts } = this.#options;
    for (;;) {
      const records = new Map<ByteString, CachedKey>();
      const { wants, fresh, guessed } = this.#needs(work, records);
      const loaded = { records, fresh, guessed };
      await loadKeys(store, this.#cache, wants, records, this.#blind);
      if (work.local.length > 0) return loaded;
      const more = secondWants(work.remote, records, this.#knowledge, reportConflicts);
      if (more.size === 0) return loaded;
      // What is new of a key holds nothing of what was loaded first, and may need more.
      if (!(await loadKeys(store, this.#cache, more, records))) return loaded;
    }
  }

  #needs(work: Work, records: Map<ByteString, CachedKey>): Needs {
    const known = this.shared ? null : this.#options.store;
    const needs = new Needs(this.#cache, records, known, this.#blind.allowed);
    const add = (): void => {
      addNeeds(needs, work.local);
      firstNeeds(work.remote, needs);
    };
    add();
    if (needs.incomplete) add();
    return needs;
  }

  /**
   * Runs a batch on what was loaded for it. Throws when it can't be run; then the records are spoiled and forgotten, but what was planned
   * before stays valid.
   */
  run(work: Work, { records, fresh, guessed }: Loaded, replica: ReplicaId): Batch {
    try {
      const batch =
        work.local.length > 0
          ? this.#runLocal(work.local, records, guessed, replica)
          : this.#runRemote(work.remote, records, guessed);
      // A commit that another node's comes before fails. Where that happens all the time, comparing is cheaper than trying again.
      const era = this.shared ? -1 : (this.#options.store.era ?? -1);
      for (const record of batch.changed) record.era = era;
      // The commit will tell whether a guess was right: but only of keys that it writes.
      for (const record of fresh) if (record.isWritten) this.#cache.set(record);
      return batch;
    } catch (error) {
      this.#cache.clear();
      this.#tell.reset();
      throw error;
    } finally {
      for (const record of records.values()) this.#cache.release(record);
      this.#cache.trim();
    }
  }

  #runLocal(
    items: readonly LocalItem[],
    records: Map<ByteString, CachedKey>,
    guessed: boolean,
    replica: ReplicaId,
  ): Batch {
    const applied = new Map<ReplicaId, Stamp>();
    for (const [other, mark] of this.#assumed) if (other !== replica) applied.set(other, mark.stamp);
    const {
      frame,
      commit: changing,
      changed,
      grown,
    } = runLocalBatch(items, records, {
      replica: replica,
      frameNumber: this.assumed(replica) + 1,
      clock: this.#options.clock,
      now: () => this.#options.timers.now(),
      maxValueBytes: this.#options.maxValueBytes,
      rules: this.#options.rules,
      applied,
      tell: this.#tell,
    });
    for (const record of grown) this.#cache.set(record);
    const commit = this.shared ? compared(changing, records, changed) : changing;
    const marks = frame === null ? [] : [{ replica: replica, number: frame.number, stamp: frame.stamp }];
    return {
      local: items,
      remote: [],
      frame,
      marks,
      changed,
      conflicts: [],
      guessed,
      commit,
    };
  }

  #runRemote(items: readonly RemoteItem[], records: Map<ByteString, CachedKey>, guessed: boolean): Batch {
    for (const item of items) {
      for (const frame of item.frames) this.#options.clock.observe(frame.stamp);
      for (const [, state] of item.states) this.#options.clock.observe(state.touched);
      for (const mark of item.marks) this.#options.clock.observe(mark.stamp);
    }
    const { commit, changed, grown, conflicts } = runRemoteBatch(
      items,
      this.#assumed,
      records,
      this.#knowledge,
      this.#options.timers.now(),
      this.#options.rules,
    );
    for (const record of grown) this.#cache.set(record);
    return {
      local: [],
      remote: items,
      frame: null,
      marks: commit.applied ?? [],
      changed,
      conflicts,
      guessed,
      commit,
    };
  }
}

function addNeeds(needs: Needs, items: readonly LocalItem[]): void {
  for (const { operation } of items) {
    for (const { key, value, members, blind } of operation.needs)
      if (blind === true) needs.addBlind(key);
      else needs.add(key, value === true, members);
  }
}

/** Adds to a commit that the keys which were only looked at must be as they were found. */
function compared(
  commit: Commit | null,
  records: ReadonlyMap<ByteString, CachedKey>,
  changed: readonly CachedKey[],
): Commit | null {
  const looks: KeyWrite[] = [];
  const written = new Set(changed.map(({ key }) => key));
  for (const { key, header } of records.values())
    if (!written.has(key)) looks.push({ key, expected: header, header, digest: 0 });
  if (looks.length === 0) return commit;
  return { ...commit, writes: [...(commit?.writes ?? []), ...looks] };
}

/** Raises marks to others. */
export function raiseMarks(marks: Map<ReplicaId, AppliedMark>, by: readonly AppliedMark[]): void {
  for (const mark of by)
    if ((marks.get(mark.replica)?.number ?? 0) < mark.number) marks.set(mark.replica, mark);
}
