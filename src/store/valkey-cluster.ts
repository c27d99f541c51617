/**
 * The store on a Valkey Cluster. Who serves what: cluster-topology.ts and cluster-parts.ts; how a commit works: cluster-commit.ts; what holds
 * when it is opened: cluster-open.ts.
 *
 * What it doesn't keep of a single server's promises: a reader of native values may see a part of a commit before the rest, while
 * it is being written; and what spans servers (digests, counts, scans) is read server by server, not in one step.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import {
  ConfigError,
  type MeshError,
  StoppedError,
  StoreRefusedError,
  StoreResetError,
  StoreUnavailableError,
} from '../errors.js';
import { type Logger, silentLogger } from '../options.js';
import { systemTimers, type Timers } from '../timers.js';
import { ClusterCommits } from './cluster-commit.js';
import { loggedBeyond, readFrames, readHeaders, SlotsDigests } from './cluster-content.js';
import { clusterFacts, numberedNotes, readNotes } from './cluster-open.js';
import {
  agreeOnMarks,
  dropVectors,
  findParts,
  finishClearing,
  isAlive,
  nameAlike,
  settleLocks,
} from './cluster-opening.js';
import { ClusterParts, type Part } from './cluster-parts.js';
import { ClusterReads, partOf, spread } from './cluster-reads.js';
import { isElsewhere, pause, settleLeft } from './cluster-settle.js';
import type { SlotContent } from './inspection.js';
import { META, partLogKey } from './layout.js';
import { keySlot } from './slots.js';
import type {
  AppliedMark,
  Commit,
  CommitResult,
  DropReason,
  LoadedKey,
  LoadRequest,
  LoggedFrame,
  NativeType,
  ScanOptions,
  Store,
  StoredIdentity,
  StoreFacts,
  WrongType,
} from './store.js';
import type { ValkeyStoreOptions } from './valkey.js';
import { addressOf, type ValkeyServerOptions } from './valkey-address.js';
import { appliedOf } from './valkey-facts.js';
import { bytesOf, type Reply } from './valkey-link.js';
import { parseValkeyUrl } from './valkey-url.js';

/** Writers whose vectors may stand with each part, before those that ended are dropped. */
const MOST_VECTORS = 8;
/** How often it is asked at least who serves which slots. */
const WATCH_MS = 5000;

/** Keeps a region's keys in a Valkey (or Redis) Cluster, version 7.0 or later. */
export class ValkeyClusterStore implements Store {
  readonly #access: ConstructorParameters<typeof ClusterParts>[0]['access'];
  readonly #random: () => number;
  readonly #logger: Logger;
  readonly #timers: Timers;
  readonly #answerTimeoutMs: number;
  #state: 'new' | 'open' | 'lost' | 'closed' = 'new';
  #parts: ClusterParts | null = null;
  #commits: ClusterCommits | null = null;
  /** The writer that committed last; null = none. */
  #lastWriter: ByteString | null = null;
  /** This store's writers so far: nothing of the old ones goes on. */
  readonly #writers = new Set<string>();
  #problem = '';

  /**
   * @param server a URL `redis+cluster://…`, or an object with `cluster`.
   * Throws ConfigError when it is neither.
   */
  constructor(server: string | ValkeyServerOptions, options: ValkeyStoreOptions = {}) {
    const { at, login, tls, label } = typeof server === 'string' ? parseValkeyUrl(server) : addressOf(server);
    if (!('seeds' in at)) throw new ConfigError('this is not the address of a cluster');
    this.#timers = options.timers ?? systemTimers;
    this.#random = options.random ?? Math.random;
    this.#logger = options.logger ?? silentLogger;
    this.#answerTimeoutMs = options.answerTimeoutMs ?? 5000;
    const { seeds } = at;
    this.#access = { seeds, login, tls, label, timers: this.#timers, timeoutMs: this.#answerTimeoutMs };
  }

  async open(): Promise<StoreFacts> {
    if (this.#state === 'closed') throw new StoppedError();
    await this.#leave(new StoreResetError('the store was opened again'));
    this.#state = 'new';
    const end = performance.now() + this.#answerTimeoutMs;
    for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 2, 500)) {
      const writer = this.#newWriter();
      const { random, logger } = { random: this.#random, logger: this.#logger };
      const parts = new ClusterParts({ access: this.#access, random, logger, writer });
      try {
        const facts = await this.#openOn(parts, writer);
        if (facts !== null) return facts;
        await parts.close();
        continue;
      } catch (error) {
        await parts.close();
        this.#note((error as Error).message);
        if (this.#isClosed()) throw new StoppedError();
        if (error instanceof ConfigError) throw error;
        if (performance.now() > end) throw this.#unavailable(error);
      }
      await pause(this.#timers, pauseMs);
    }
  }

  #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #newWriter(): ByteString {
    let name: string = META.writerPrefix;
    for (let i = 0; i < 4; i += 1)
      name += Math.floor(this.#random() * 2 ** 32)
        .toString(36)
        .padStart(7, '0');
    this.#writers.add(name);
    return name as ByteString;
  }

  #unavailable(cause: unknown): StoreUnavailableError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return cause instanceof StoreUnavailableError
      ? cause
      : new StoreUnavailableError(`${this.#access.label} can't be reached: ${reason}`, { cause });
  }

  /** Gives null when it must be opened once more, because what was found was changed. */
  async #openOn(parts: ClusterParts, writer: ByteString): Promise<StoreFacts | null> {
    await parts.topology.refresh();
    const problem = parts.topology.problem();
    if (problem !== null) throw new ConfigError(problem);
    await parts.adapt();
    await this.#fence(parts, writer);
    await settleLocks(parts, this.#writers, this.#timers);
    const found = await findParts(parts);
    if (await finishClearing(parts, found)) return null;
    const { facts, complete, vectors } = clusterFacts(found, false);
    if (await nameAlike(parts, found, facts.dataset)) return null;
    if (!complete && (await agreeOnMarks(parts, found, facts.applied, writer))) {
      await dropVectors(parts, found, true);
      return null;
    }
    const marks = new Map([
      ...facts.identities.map(({ replica }) => [replica, 0] as const),
      ...facts.applied.map(({ replica, number }) => [replica, number] as const),
    ]);
    const unapplied = await loggedBeyond(parts, marks);
    const commits = this.#commitsOn(parts, writer, facts.applied);
    if (!complete || vectors > MOST_VECTORS) {
      await dropVectors(parts, found, !complete);
      await commits.tellMarks(true);
    }
    if (this.#isClosed()) throw new StoppedError();
    this.#parts = parts;
    this.#commits = commits;
    this.#state = 'open';
    this.#problem = '';
    const warnings = new Set(found.flatMap(({ info }) => info.warnings));
    for (const warning of warnings) this.#logger.warn({ store: this.#access.label }, warning);
    // A number that stands in a log must not be used again.
    const identities = facts.identities.map((identity) =>
      unapplied.includes(identity.replica) ? { ...identity, clean: false } : identity,
    );
    return { ...facts, identities, unapplied, server: this.describe() };
  }

  async refresh(): Promise<StoreFacts> {
    const { parts } = this.#open();
    const facts = await this.#look(parts, null);
    return { ...facts, server: this.describe() };
  }

  /** Reads what all parts know, and has it learned. */
  async #look(parts: ClusterParts, after: readonly number[] | null): Promise<Omit<StoreFacts, 'server'>> {
    const found = await this.#read(after, () =>
      Promise.all(
        parts.all().map(async ({ anchor, connection }) => {
          const { facts, info } = await connection.facts();
          return { anchor, retired: false, facts, info };
        }),
      ),
    );
    const { facts } = clusterFacts(found, true);
    this.#commits?.learn(facts.applied);
    return facts;
  }

  #commitsOn(parts: ClusterParts, writer: ByteString, applied: readonly AppliedMark[]): ClusterCommits {
    const catchUp = (part: Part) => {
      const known = new Map(
        appliedOf(part.connection.session?.facts ?? new Map()).map(({ replica, number }) => [
          replica,
          number,
        ]),
      );
      for (const mark of commits.marks.values())
        if ((known.get(mark.replica) ?? 0) < mark.number) part.behind.set(mark.replica, mark);
    };
    const commits = new ClusterCommits(
      {
        parts,
        timers: this.#timers,
        random: this.#random,
        answerTimeoutMs: this.#answerTimeoutMs,
        writer,
        lookAgain: async () => {
          // Called by the commit under way: it must not wait for itself.
          await this.#look(parts, []);
        },
        settle: (lock) => settleLeft(parts, lock, this.#timers),
        onLost: (error) => this.#lose(error),
      },
      applied,
    );
    for (const part of parts.all()) catchUp(part);
    parts.onPart = catchUp;
    parts.onChange = () => {
      // What the parts know of each other names anchors that are not used any more.
      commits.tellMarks(true).catch(() => {});
    };
    return commits;
  }

  /** Nothing that this store sent before may arrive any more: what it finds now is what it goes on with. */
  async #fence(parts: ClusterParts, writer: ByteString): Promise<void> {
    const before = this.#lastWriter;
    if (before !== null)
      await Promise.all(parts.all().map(({ connection }) => connection.script('fence', [before])));
    this.#lastWriter = writer;
  }

  #note(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#logger.warn({ store: this.#access.label, problem }, 'no connection to the cluster');
  }

  #lose(error: StoreResetError): void {
    if (this.#state !== 'open') return;
    this.#state = 'lost';
    this.#logger.error(
      { store: this.#access.label, err: error },
      'the cluster lost data that it had acknowledged',
    );
    this.#commits?.end(() => this.#resetError());
  }

  #resetError(): StoreResetError {
    return new StoreResetError(
      `${this.#access.label} lost data that it had acknowledged (a failover, a restart without them, or a flush); the node begins anew and asks the other regions for what is missing`,
    );
  }

  async #leave(error: MeshError): Promise<void> {
    this.#commits?.end(() => error);
    await this.#parts?.close();
    this.#parts = null;
    this.#commits = null;
  }

  /** The parts and commits. Throws what a call would reject with now. */
  #open(): { parts: ClusterParts; commits: ClusterCommits } {
    if (this.#state === 'closed') throw new StoppedError();
    if (this.#state === 'lost') throw this.#resetError();
    if (this.#parts === null || this.#commits === null)
      throw new StoreUnavailableError('the store is not open: call open() first');
    return { parts: this.#parts, commits: this.#commits };
  }

  /** Reads, after the commits before it that touch any of some slots (null: all), and again while a slot is on its way. */
  async #read<T>(slots: readonly number[] | null, ask: (parts: ClusterParts) => Promise<T>): Promise<T> {
    const { parts, commits } = this.#open();
    await commits.settled(slots);
    const end = performance.now() + this.#answerTimeoutMs;
    for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
      try {
        return await ask(parts);
      } catch (error) {
        if (error instanceof StoreResetError) this.#lose(error);
        if (!isElsewhere(error) || performance.now() > end) throw error;
      }
      await pause(this.#timers, pauseMs);
      await parts.refresh().catch((error: Error) => {
        if (error instanceof StoreResetError) this.#lose(error);
      });
      this.#open();
    }
  }

  #ofKey<T>(key: ByteString, ask: (reads: ClusterReads) => Promise<T>): Promise<T> {
    return this.#read([keySlot(key)], (parts) => ask(new ClusterReads(parts)));
  }

  #ofKeys<T>(keys: readonly ByteString[], ask: (reads: ClusterReads) => Promise<T>): Promise<T> {
    return this.#read(keys.map(keySlot), (parts) => ask(new ClusterReads(parts)));
  }

  #ofSlot<T>(slot: number, ask: (part: Part) => Promise<T>): Promise<T> {
    return this.#read([slot], (parts) => ask(partOf(parts, slot)));
  }

  describe(): Readonly<Record<string, string | number>> {
    const parts = this.#parts?.all() ?? [];
    const sessions = parts.flatMap(({ connection }) =>
      connection.session === null ? [] : [connection.session],
    );
    const problems = [this.#problem, ...parts.map(({ connection }) => connection.problem)].filter(
      (each) => each !== '',
    );
    const problem = problems.length === 0 ? {} : { problem: problems.join('; ') };
    const [first] = sessions;
    if (first === undefined) return { kind: 'valkey cluster', address: this.#access.label, ...problem };
    const warnings = new Set(sessions.flatMap(({ info }) => info.warnings));
    return {
      kind: 'valkey cluster',
      server: first.info.fields.has('valkey_version') ? 'valkey' : 'redis',
      version: first.info.version,
      primaries: parts.length,
      address: parts
        .map(({ connection }) => connection.place)
        .sort()
        .join(', '),
      ...(warnings.size > 0 ? { warnings: [...warnings].join('; ') } : {}),
      ...problem,
    };
  }

  async saveIdentity(identity: StoredIdentity): Promise<void> {
    const { parts, commits } = this.#open();
    await commits.tellMarks();
    await commits.settled(null);
    await this.#onAll(parts, ({ connection }) => connection.saveIdentity(identity));
  }

  async retire(peerId: string, silentMs: number): Promise<boolean> {
    const { parts } = this.#open();
    const alive = await this.#read(null, () =>
      Promise.all(parts.all().map((part) => isAlive(part, peerId, silentMs))),
    );
    if (alive.some(Boolean)) return false;
    let all = true;
    await this.#onAll(parts, async ({ connection }) => {
      if (!(await connection.retire(peerId, silentMs))) all = false;
    });
    return all;
  }

  /** The notes that count are those with the highest number; who replaces them is settled at the first part. */
  async saveNotes(notes: ByteString, expected: ByteString | null): Promise<ByteString | null> {
    const { parts } = this.#open();
    for (;;) {
      const first = parts.first()!;
      const stored = await this.#read([], () =>
        Promise.all(
          parts
            .all()
            .map(async ({ connection, meta }) =>
              bytesOf((await connection.call('HGET', [meta, META.notes])) as Reply),
            ),
        ),
      );
      const newest = stored.map(readNotes).reduce((one, two) => (two.number > one.number ? two : one));
      if (newest.notes !== expected) return newest.notes;
      const numbered = numberedNotes(newest.number + 1, notes);
      const before = stored[parts.all().indexOf(first)] ?? null;
      if ((await this.#read([], () => first.connection.saveNotes(numbered, before))) !== numbered) continue;
      await this.#onAll(parts, async ({ connection, meta }) => {
        const stands = bytesOf((await connection.call('HGET', [meta, META.notes])) as Reply);
        if (readNotes(stands).number <= newest.number) await connection.saveNotes(numbered, stands);
      });
      return notes;
    }
  }

  /** Does something on all parts; again where a slot is on its way. */
  async #onAll(parts: ClusterParts, act: (part: Part) => Promise<unknown>): Promise<void> {
    const done = new Set<Part>();
    await this.#read([], async () => {
      await Promise.all(
        parts.all().map(async (part) => {
          if (done.has(part)) return;
          await act(part);
          done.add(part);
        }),
      );
    });
  }

  async load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    const slotOf = ({ key }: LoadRequest) => keySlot(key);
    return this.#read(requests.map(slotOf), (parts) =>
      spread(parts, requests, slotOf, (part, some) => part.content.load(some)),
    );
  }

  async commit(commit: Commit): Promise<CommitResult> {
    return this.#open().commits.commit(commit);
  }

  readFrames(replica: ReplicaId, fromNumber: number, maxBytes: number): Promise<LoggedFrame[]> {
    return this.#read(null, (parts) => readFrames(parts, replica, fromNumber, maxBytes));
  }

  async trimLog(replica: ReplicaId, throughNumber: number): Promise<void> {
    await this.#read(null, async (parts) => {
      const first = String(Math.max(0, throughNumber) + 1);
      await Promise.all(
        [...parts.anchors].map((anchor) =>
          partOf(parts, anchor).connection.script('trim', [partLogKey(anchor, replica), first]),
        ),
      );
    });
  }

  async digests(): Promise<Map<number, number>> {
    const digests = new SlotsDigests();
    await this.#read(null, (parts) => digests.read(parts));
    return digests.found();
  }

  headers(slots: readonly number[], maxBytes: number): Promise<[ByteString, ByteString][][]> {
    return this.#read(slots, (parts) => readHeaders(parts, slots, maxBytes));
  }

  slotContent(slot: number): Promise<SlotContent> {
    return this.#ofSlot(slot, (part) => part.content.slotContent(slot));
  }

  scanMembers(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; members: ByteString[] } | WrongType> {
    return this.#ofSlot(keySlot(key), (part) => part.content.scanMembers(key, cursor, count));
  }

  scanEntries(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; entries: Map<ByteString, ByteString> }> {
    return this.#ofSlot(keySlot(key), (part) => part.content.scanEntries(key, cursor, count));
  }

  async clear(reason: DropReason): Promise<void> {
    const { parts, commits } = this.#open();
    await commits.settled(null);
    const first = parts.first()!;
    await this.#read(null, () => first.connection.clear(reason));
    const others = parts.all().filter((part) => part !== first);
    // Whoever opens it next goes on with those that are not reached now.
    await Promise.allSettled(others.map(({ connection }) => connection.clear(reason)));
    this.#lose(this.#resetError());
  }

  async ping(): Promise<boolean> {
    const parts = this.#state === 'open' ? this.#parts : null;
    if (parts === null) return false;
    await this.#watchSlots(parts);
    const alive = await Promise.all(
      parts.all().map(async ({ connection }) => {
        try {
          await connection.probe();
          return !connection.isLost;
        } catch (error) {
          if (error instanceof StoreResetError) return false;
          // So it says while it can't write to its disk; reads are served. A slot that moves is no sickness.
          return (error instanceof StoreRefusedError && error.reason === 'MISCONF') || isElsewhere(error);
        }
      }),
    );
    if (parts.all().some(({ connection }) => connection.isLost)) this.#lose(this.#resetError());
    return this.#state === 'open' && alive.every(Boolean);
  }

  /** Notices now and then which slots have moved, also when nobody uses them. */
  async #watchSlots(parts: ClusterParts): Promise<void> {
    if (performance.now() < parts.topology.askedMs + WATCH_MS) return;
    await parts.refresh().catch((error: Error) => {
      if (error instanceof StoreResetError) this.#lose(error);
    });
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    // Whoever opens it next need not find out that some parts lag.
    if (this.#state === 'open') await this.#commits?.tellMarks().catch(() => {});
    this.#state = 'closed';
    await this.#leave(new StoppedError());
  }

  strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    return this.#ofKeys(keys, (reads) => reads.strings(keys));
  }

  stringLength(key: ByteString): Promise<number | WrongType> {
    return this.#ofKey(key, (reads) => reads.stringLength(key));
  }

  members(key: ByteString): Promise<ByteString[] | WrongType> {
    return this.#ofKey(key, (reads) => reads.members(key));
  }

  contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    return this.#ofKey(key, (reads) => reads.contains(key, members));
  }

  cardinality(key: ByteString): Promise<number | WrongType> {
    return this.#ofKey(key, (reads) => reads.cardinality(key));
  }

  randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    return this.#ofKey(key, (reads) => reads.randomMembers(key, count));
  }

  types(keys: readonly ByteString[]): Promise<NativeType[]> {
    return this.#ofKeys(keys, (reads) => reads.types(keys));
  }

  deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    return this.#ofKeys(keys, (reads) => reads.deadlines(keys));
  }

  scan(cursor: string, options?: ScanOptions): Promise<{ cursor: string; keys: ByteString[] }> {
    return this.#read(null, (parts) => new ClusterReads(parts).scan(cursor, options));
  }

  count(): Promise<number> {
    return this.#read(null, (parts) => new ClusterReads(parts).count());
  }
}
