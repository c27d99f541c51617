/**
 * An ordered conversation with one Valkey server that survives lost connections.
 *
 * Requests are sent at once, in the order of the calls, on one connection. When it breaks, a new one is made, and begins a
 * session: the answer says which of the commits that were under way took effect (commit-script.ts). Those are settled, the
 * rest is sent again, in order. A commit that already failed for its caller is never sent again.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { MeshError } from '../../crdts/errors.js';
import {
  ConfigError,
  StaleCommitError,
  StoppedError,
  StoreRefusedError,
  StoreResetError,
  StoreUnavailableError,
} from '../errors.js';
import type { Logger } from '../options.js';
import type { Cancel, Timers } from '../timers.js';
import type { CommitSender } from './commit-frame.js';
import { META, META_KEY } from './layout.js';
import { type Request, RequestQueue } from './request-queue.js';
import { findPrimary } from './sentinel.js';
import { SentinelWatch } from './sentinel-watch.js';
import {
  type AppliedMark,
  type DropReason,
  type StoredIdentity,
  WRONG_TYPE,
  type WrongType,
} from './store.js';
import { placeLabel, type ServerAddress } from './valkey-address.js';
import { MOVED_REASON, refused, tlsProblem } from './valkey-errors.js';
import { appliedOf, nodeField, nodeRecord } from './valkey-facts.js';
import { beginSession, DataLostError, type ScriptName, type Session } from './valkey-handshake.js';
import { reviewServer } from './valkey-health.js';
import {
  type Argument,
  argument,
  bytesOf,
  listOf,
  type Reply,
  ServerReplyError,
  ValkeyLink,
} from './valkey-link.js';

/** What the conversation needs of its surroundings. */
export interface ConnectionOptions {
  readonly timers: Timers;
  /** 0 ≤ x < 1; names writers and datasets. */
  readonly random: () => number;
  readonly logger: Logger;
  /** How long a caller waits for an answer, through lost connections and all. */
  readonly answerTimeoutMs: number;
}

/** Said by a server that is no primary now (it was demoted, or loads what another one holds), or not of what is asked for. */
const NO_PRIMARY = /^(READONLY|MASTERDOWN|LOADING|MOVED)\b/;

/** Scripts that change keys: they carry the next number of the session. */
export type CommitScript = 'commit' | 'remove' | 'prepare' | 'prepareRemove' | 'apply' | 'abort' | 'arrived';

/** The reason of a StoreRefusedError where another writer's commit stands in the way (cluster-commit.ts). */
export const LOCKED_REASON = 'LOCKED';

/** How long what a server says about itself holds until it is asked again. */
const REVIEW_MS = 30_000;

const TICKS = 20;
const FIRST_RETRY_MS = 20;
const LAST_RETRY_MS = 1000;

/** An ordered conversation with one server. */
export class ValkeyConnection {
  readonly #address: ServerAddress;
  readonly #meta: ByteString;
  readonly #options: ConnectionOptions;
  readonly #queue = new RequestQueue();
  #state: 'new' | 'open' | 'lost' | 'closed' = 'new';
  /** The link that requests go to; null while there is none or it isn't ready. */
  #live: ValkeyLink | null = null;
  /** The link that is being made or used; an event of another one is old. */
  #link: ValkeyLink | null = null;
  /** Counts attempts to connect: one that was overtaken must not touch the next. */
  #attempt = 0;
  #place = '';
  #watch: SentinelWatch | null = null;
  #session: Session | null = null;
  #sessions = 0;
  /** The last session that commits were sent in. */
  #currentSession = 0;
  #writer = '' as ByteString;
  #dataset: ByteString | null = null;
  #identity: StoredIdentity | null = null;
  #retryMs = FIRST_RETRY_MS;
  #retry: Cancel | null = null;
  /** Time as the number of ticks seen: a process that stood still doesn't take its own pause for the server's. */
  #tick = 0;
  #ticking: Cancel | null = null;
  #keeping: (() => void) | null = null;
  /** The applied vector, as it was when it was last read. */
  #marks: ReadonlyMap<string, AppliedMark> = new Map();
  /** When the server was last asked about itself. */
  #reviewedMs = 0;
  #problem = '';
  /** The problem's text already says what to do. */
  #advised = false;

  constructor(address: ServerAddress, options: ConnectionOptions) {
    this.#address = address;
    this.#meta = 'find' in address.at ? address.at.meta : META_KEY;
    this.#options = options;
  }

  /** Connects and begins anew, whatever was before. Throws ConfigError or StoreUnavailableError. */
  async open(): Promise<Session> {
    if (this.#state === 'closed') throw new StoppedError();
    this.#dropLink();
    this.#queue.rejectAll(() => new StoreResetError('the store was opened again'));
    const { at } = this.#address;
    this.#writer = 'find' in at ? at.writer : (`${META.writerPrefix}${this.#randomName()}` as ByteString);
    this.#sessions = 0;
    this.#currentSession = 0;
    this.#dataset = null;
    this.#identity = null;
    this.#marks = new Map();
    this.#state = 'new';
    const { timers, answerTimeoutMs } = this.#options;
    let late = false;
    const release = keepProcess();
    const cancel = timers.after(answerTimeoutMs, () => {
      late = true;
      this.#link?.close();
    });
    try {
      for (let pause = FIRST_RETRY_MS; ; pause = Math.min(pause * 2, 500)) {
        try {
          return await this.#connect();
        } catch (error) {
          if (this.#isClosed()) throw error;
          this.#note(error);
          if (error instanceof ConfigError) throw error;
          if (late) throw this.#unavailable(error);
        }
        await new Promise<void>((resolve) => {
          timers.after(pause, resolve);
        });
        if (late) throw this.#unavailable();
      }
    } finally {
      cancel();
      release();
    }
  }

  /** The running session's facts about the server; null while there is none. */
  get session(): Session | null {
    return this.#session;
  }

  /** Name of the data; null while that isn't known. */
  get dataset(): ByteString | null {
    return this.#dataset;
  }

  /** Says whether the server has lost data since it was opened. */
  get isLost(): boolean {
    return this.#state === 'lost';
  }

  /** What the last failed attempt to connect met, in words; empty when it is connected. */
  get problem(): string {
    return this.#problem;
  }

  /** The server that it was last connected with, `host:port` or the path of a socket; empty when there was none. */
  get place(): string {
    return this.#place;
  }

  /** Throws what a call would reject with now: StoppedError, StoreResetError, or StoreUnavailableError before open. */
  check(): void {
    if (this.#state !== 'open') throw this.#notOpen();
  }

  /** Sends a command. A WRONGTYPE answer gives WRONG_TYPE when `wrongTypeAnswers` is set. */
  call(name: string, args: readonly Argument[], wrongTypeAnswers = false): Promise<Reply | WrongType> {
    return this.#enqueue(name, () => args, 0, wrongTypeAnswers);
  }

  /** Runs one of our scripts that doesn't commit. */
  script(
    script: ScriptName,
    args: readonly Argument[] | ((sender: CommitSender) => readonly Argument[]),
  ): Promise<Reply> {
    const make = typeof args === 'function' ? args : () => args;
    return this.#enqueue({ script }, make, 0, false) as Promise<Reply>;
  }

  /**
   * Commits: runs a commit script, whose arguments are made for the sender that it gets. Gives the script's answer; null = it took
   * effect, but the answer was lost.
   */
  async commit(
    script: CommitScript,
    args: (sender: CommitSender) => readonly Argument[],
  ): Promise<string | null> {
    const chain = this.#queue.chain();
    // The mark goes first; both are on one connection.
    if (this.#identity?.clean) this.saveIdentity({ ...this.#identity, clean: false }).catch(() => {});
    return bytesOf((await this.#enqueue({ script }, args, chain, false)) as Reply);
  }

  /** Stores an identity, and stores it again with each new session. */
  async saveIdentity(identity: StoredIdentity): Promise<void> {
    // Sent again with a new session, should the answer to this one be lost.
    this.#identity = identity;
    const reply = await this.script('identity', (sender) => [
      ...senderArgs(sender),
      nodeField(identity.peerId),
      nodeRecord(identity, this.#session?.info, sender.writer),
    ]);
    if (bytesOf(reply) !== 'DONE') this.#throwLost();
  }

  /** Removes another node's identity, and its right to commit; says whether it did. */
  async retire(peerId: string, silentMs: number): Promise<boolean> {
    const silentS = String(Math.ceil(silentMs / 1000));
    const reply = bytesOf(
      await this.script('retire', (sender) => [...senderArgs(sender), nodeField(peerId), silentS]),
    );
    if (reply !== 'DONE' && reply !== 'ALIVE') this.#throwLost();
    return reply === 'DONE';
  }

  /** Stores the nodes' notes, if the expected ones stand there; gives what stands there then. */
  async saveNotes(notes: ByteString, expected: ByteString | null): Promise<ByteString | null> {
    const condition = expected === null ? ['0'] : ['1', argument(expected)];
    const reply = await this.script('notes', (sender) => [
      ...senderArgs(sender),
      argument(notes),
      ...condition,
    ]);
    if (!Array.isArray(reply)) this.#throwLost();
    return bytesOf(listOf(reply)[0]);
  }

  /** Begins to remove everything (valkey-clear.ts): from now on all is lost until it is opened again. */
  async clear(reason: DropReason): Promise<void> {
    const reply = await this.script('clear', (sender) => [argument(sender.dataset), reason]);
    if (bytesOf(reply) !== 'DONE') this.#throwLost();
    this.#lose();
  }

  /**
   * Looks whether the server still has what it acknowledged; when it hasn't, everything fails until it is opened again. Now and then it
   * looks at the server's settings too (valkey-health.ts).
   */
  async probe(): Promise<void> {
    const [session, acknowledged] = [this.#currentSession, this.#queue.acknowledgedSeq];
    const reply = listOf((await this.call('HMGET', [this.#meta, META.dataset, this.#writer])) as Reply);
    this.#judge(bytesOf(reply[0]), bytesOf(reply[1]), session, acknowledged);
    await this.#review();
  }

  async #review(): Promise<void> {
    const now = this.#options.timers.now();
    // The clock may have been set back.
    if (now >= this.#reviewedMs && now < this.#reviewedMs + REVIEW_MS) return;
    this.#reviewedMs = now;
    const { session } = this;
    const ask = async (name: string, args: readonly Argument[]) => (await this.call(name, args)) as Reply;
    // Who can't be asked now is asked the next time.
    const warnings = await reviewServer(ask, this.#place).catch(() => null);
    if (warnings === null || session === null || session !== this.#session) return;
    this.#session = { ...session, info: { ...session.info, warnings } };
    this.#tellChanged(session.info.warnings, warnings);
  }

  #tellChanged(before: readonly string[], now: readonly string[]): void {
    const fields = { store: this.#address.label, server: this.#place };
    const { logger } = this.#options;
    for (const warning of now) if (!before.includes(warning)) logger.warn(fields, warning);
    for (const warning of before)
      if (!now.includes(warning)) logger.info({ ...fields, warning }, 'a setting of Valkey was put right');
  }

  /** The same, with the whole hash of facts. Rejects when data are lost. */
  async facts(): Promise<Pick<Session, 'facts' | 'info'>> {
    const [session, acknowledged] = [this.#currentSession, this.#queue.acknowledgedSeq];
    const facts = pairsOf((await this.call('HGETALL', [this.#meta])) as Reply);
    this.#judge(facts.get(META.dataset), facts.get(this.#writer), session, acknowledged);
    this.check();
    try {
      this.#watchMarks(facts);
    } catch {
      this.#throwLost();
    }
    return { facts, info: this.#session!.info };
  }

  #judge(
    dataset: ByteString | null | undefined,
    record: ByteString | null | undefined,
    session: number,
    acknowledged: number,
  ): void {
    if (this.#state !== 'open' || session !== this.#currentSession) return;
    const [atSession = 0, seq = 0] = (record ?? '').split(':').map(Number);
    const behind = atSession < session || (atSession === session && seq < acknowledged);
    if (dataset !== this.#dataset || behind) this.#lose();
  }

  /** Another node's frames may be lost and none of this one's: then the vector shows it. */
  #watchMarks(facts: ReadonlyMap<string, ByteString>): void {
    const marks = new Map(appliedOf(facts).map((mark) => [mark.replica, mark]));
    for (const { replica, number } of this.#marks.values()) {
      if ((marks.get(replica)?.number ?? 0) >= number) continue;
      throw new DataLostError('the server has fewer frames than it had');
    }
    this.#marks = marks;
  }

  /** Ends the conversation; what waits is rejected with StoppedError. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    const live = this.#live;
    this.#state = 'closed';
    this.#watch?.stop();
    this.#watch = null;
    if (live !== null && this.#queue.length === 0) {
      // Nothing is under way: the writer's record is of no more use.
      const forgotten = live.send('HDEL', [this.#meta, this.#writer]).catch(() => null);
      const late = new Promise<void>((resolve) => {
        this.#options.timers.after(1000, resolve);
      });
      await Promise.race([forgotten, late]);
    }
    this.#dropLink();
    this.#ticking?.();
    this.#ticking = null;
    this.#stopKeeping();
    this.#queue.rejectAll(() => new StoppedError());
  }

  #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #randomName(): string {
    let name = '';
    for (let i = 0; i < 4; i += 1)
      name += Math.floor(this.#options.random() * 2 ** 32)
        .toString(36)
        .padStart(7, '0');
    return name;
  }

  #enqueue(
    name: Request['name'],
    args: Request['args'],
    chain: number,
    wrongTypeAnswers: boolean,
  ): Promise<Reply | WrongType> {
    if (this.#state !== 'open') return Promise.reject(this.#notOpen());
    return new Promise((resolve, reject) => {
      const request: Request = {
        name,
        args,
        chain,
        wrongTypeAnswers,
        calledAt: this.#tick,
        seq: 0,
        state: 'waiting',
        resolve,
        reject,
      };
      this.#queue.add(request);
      this.#startTicking();
      if (this.#live !== null) this.#send(request, this.#live);
    });
  }

  #notOpen(): MeshError {
    if (this.#state === 'closed') return new StoppedError();
    if (this.#state === 'lost') return this.#resetError();
    return new StoreUnavailableError('the store is not open: call open() first');
  }

  #resetError(): StoreResetError {
    return new StoreResetError(
      `Valkey at ${this.#address.label} lost data that it had acknowledged (a restart without them, a failover, or a flush); the node begins anew and asks the other regions for what is missing`,
    );
  }

  #send(request: Request, link: ValkeyLink): void {
    const session = this.#session;
    if (session === null || this.#dataset === null) return;
    this.#queue.number(request);
    const { name } = request;
    let reply: Promise<Reply>;
    try {
      const args = request.args({
        dataset: this.#dataset,
        writer: this.#writer,
        session: this.#currentSession,
        seq: request.seq,
      });
      reply =
        typeof name === 'string'
          ? link.send(name, args)
          : link.send('EVALSHA', [session.shas.get(name.script)!, ...session.keys, ...args]);
    } catch (error) {
      this.#queue.unsendable(request, error as Error);
      return;
    }
    reply.then(
      (value) => {
        if (link === this.#live && request.state !== 'done') this.#answered(request, value);
      },
      (error: Error) => {
        if (link !== this.#live || request.state === 'done') return;
        if (error instanceof ServerReplyError) this.#refusedBy(request, error);
        else this.#down(link, error);
      },
    );
  }

  #answered(request: Request, reply: Reply): void {
    if (request.chain === 0) {
      this.#queue.done(request, reply);
      return;
    }
    const text = bytesOf(reply) ?? '';
    if (text.startsWith('DONE')) {
      this.#queue.done(request, reply);
    } else if (text.startsWith('STALE') || (text === 'GAP' && this.#queue.isBroken(request))) {
      this.#queue.failed(request, new StaleCommitError(`the store has moved on: ${text}`));
    } else if (text.startsWith(MOVED_REASON) || text.startsWith(LOCKED_REASON)) {
      const [reason = null] = text.split(' ');
      this.#queue.failed(request, new StoreRefusedError(`TRYAGAIN ${text}`, { reason }));
    } else if (text === 'FENCED') {
      // Only a newer session of this very store can do that; the next one finds out.
      this.#down(this.#live, new Error('another session of this store has begun'));
    } else {
      this.#lose();
    }
  }

  #refusedBy(request: Request, error: ServerReplyError): void {
    if (error.message.startsWith('NOSCRIPT')) {
      // Someone flushed the scripts. A new session loads them, and sends again what is under way.
      this.#down(this.#live, error);
    } else if (request.wrongTypeAnswers && error.message.startsWith('WRONGTYPE')) {
      this.#queue.done(request, WRONG_TYPE);
    } else {
      this.#queue.failed(request, refused(error, this.#address.label));
      // After a failover the address, or the sentinels, may lead to the new primary.
      if (NO_PRIMARY.test(error.message)) this.#down(this.#live, error);
    }
  }

  async #connect(): Promise<Session> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    const { timers, answerTimeoutMs } = this.#options;
    const { at } = this.#address;
    const place =
      'find' in at ? await at.find() : 'places' in at ? await findPrimary(at, timers, answerTimeoutMs) : at;
    if (attempt !== this.#attempt || this.#isClosed()) throw new Error('the connection ended');
    const tls = this.#address.tls?.() ?? null;
    const link = new ValkeyLink(place, tls, answerTimeoutMs, () => this.#down(link, link.lastError));
    this.#link = link;
    const frozen = timers.after(answerTimeoutMs, () => link.close());
    try {
      await link.connect().catch((error: unknown) => {
        throw tlsProblem(error, this.#address.label) ?? error;
      });
      this.#sessions += 1;
      const session = await beginSession(link, this.#address, {
        writer: this.#writer,
        session: this.#sessions,
        previousSession: this.#currentSession,
        dataset: this.#dataset,
        newDataset: ('find' in at ? at.dataset() : null) ?? (this.#randomName() as ByteString),
        identity: this.#identity,
      });
      if (this.#link !== link || this.#isClosed()) throw new Error('the connection ended');
      if (this.#currentSession > 0 && session.previousDone < this.#queue.acknowledgedSeq) {
        throw new DataLostError('the server has fewer commits than it acknowledged');
      }
      this.#watchMarks(session.facts);
      this.#place = placeLabel(place);
      if ('places' in at) this.#watch ??= new SentinelWatch(at, (primary) => this.#movedTo(primary));
      this.#begin(session, link);
      return session;
    } catch (error) {
      if (this.#link === link) this.#link = null;
      link.close();
      throw error;
    } finally {
      frozen();
    }
  }

  /** Settles what was under way in the last session, then sends the rest. */
  #begin(session: Session, link: ValkeyLink): void {
    const requests = this.#queue.beginSession(session.previousDone);
    // The first time, whoever opens the store tells what was found.
    if (this.#currentSession > 0)
      this.#tellChanged(this.#session?.info.warnings ?? [], session.info.warnings);
    this.#session = session;
    this.#reviewedMs = this.#options.timers.now();
    this.#currentSession = this.#sessions;
    this.#dataset = session.facts.get(META.dataset) ?? this.#dataset;
    this.#live = link;
    this.#state = 'open';
    this.#retryMs = FIRST_RETRY_MS;
    if (this.#problem !== '') {
      const { label: store } = this.#address;
      this.#options.logger.info({ store, server: this.#place }, 'connected to Valkey again');
    }
    this.#problem = '';
    this.#advised = false;
    for (const request of requests) {
      if (this.#live === link && request.state === 'waiting') this.#send(request, link);
    }
  }

  #dropLink(): void {
    this.#attempt += 1;
    this.#retry?.();
    this.#retry = null;
    const link = this.#link;
    this.#link = null;
    this.#live = null;
    link?.close();
  }

  /** The sentinels have made another server the primary. */
  #movedTo(primary: string): void {
    if (this.#live !== null && primary !== this.#place)
      this.#down(this.#live, new Error(`the primary is ${primary} now`));
  }

  /** The link is no more: make another. */
  #down(link: ValkeyLink | null, cause: Error | null): void {
    if (link === null || link !== this.#live) return;
    this.#note(cause ?? new Error('the connection was closed'));
    this.#dropLink();
    if (this.#state === 'open') this.#reconnect(0);
  }

  #reconnect(delayMs: number): void {
    this.#retry?.();
    this.#retry = this.#options.timers.after(delayMs, () => {
      this.#retry = null;
      const connecting = this.#connect();
      const attempt = this.#attempt;
      connecting.catch((error: unknown) => {
        if (this.#state !== 'open' || attempt !== this.#attempt) return;
        if (error instanceof DataLostError) {
          this.#lose();
          return;
        }
        this.#note(error);
        this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
        this.#reconnect(this.#retryMs);
      });
    });
  }

  #note(error: unknown): void {
    const problem = error instanceof Error ? error.message : String(error);
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#advised = error instanceof ConfigError;
    this.#options.logger.warn({ store: this.#address.label, problem }, 'no connection to Valkey');
  }

  #throwLost(): never {
    this.#lose();
    throw this.#resetError();
  }

  /** The server lost data: everything fails until it is opened again. */
  #lose(): void {
    if (this.#state !== 'open') return;
    this.#state = 'lost';
    this.#options.logger.error({ store: this.#address.label }, 'Valkey lost data that it had acknowledged');
    this.#dropLink();
    this.#queue.rejectAll(() => this.#resetError());
  }

  #startTicking(): void {
    this.#keeping ??= keepProcess();
    this.#ticking ??= this.#options.timers.after(this.#options.answerTimeoutMs / TICKS, () => {
      this.#ticking = null;
      this.#tick += 1;
      this.#giveUpLate();
      if (this.#queue.length > 0) this.#startTicking();
      else this.#stopKeeping();
    });
  }

  #stopKeeping(): void {
    this.#keeping?.();
    this.#keeping = null;
  }

  /** Gives up what waits for too long. */
  #giveUpLate(): void {
    const live = this.#live;
    if (!this.#queue.giveUp(this.#tick - TICKS - 1, () => this.#unavailable())) return;
    // A server that doesn't answer on this connection may on another.
    if (live !== null) this.#down(live, new Error(`no answer within ${this.#options.answerTimeoutMs} ms`));
  }

  #unavailable(cause?: unknown): StoreUnavailableError {
    const reason =
      this.#problem === '' ? `no answer within ${this.#options.answerTimeoutMs} ms` : this.#problem;
    const advice = this.#advised
      ? ''
      : ' (is the server running, are host and port right, do both sides speak TLS or neither, does a firewall stand between?)';
    return new StoreUnavailableError(
      `Valkey at ${this.#address.label} can't be reached: ${reason}${advice}`,
      { cause },
    );
  }
}

function senderArgs({ dataset, writer, session }: CommitSender): Argument[] {
  return [argument(dataset), argument(writer), String(session)];
}

/** Fields and values of a hash, from a flat reply. */
function pairsOf(reply: Reply): Map<string, ByteString> {
  const flat = listOf(reply);
  const found = new Map<string, ByteString>();
  for (let i = 0; i < flat.length; i += 2)
    found.set(bytesOf(flat[i]) ?? '', bytesOf(flat[i + 1]) ?? ('' as ByteString));
  return found;
}

/** Keeps the process alive until it is released: while a caller waits and there is no connection, nothing else may do so. */
function keepProcess(): () => void {
  const handle = setInterval(() => {}, 2 ** 30);
  return () => clearInterval(handle);
}
