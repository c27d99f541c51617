/**
 * Commits in a cluster. One after the other; what comes meanwhile waits, and is gathered into larger batches by the caller.
 *
 * **A commit that touches one server** is one call of the commit script there, as on a single server.
 *
 * **A commit that touches several** is prepared on each: its script looks at everything that it depends on, keeps the writes aside and
 * *locks* the part, so that nothing else is committed there. If all have done so, the commit is decided, and each is told to write what it
 * kept; if not, each is told to drop it. Only when all have written, the caller is told. So of a commit that is refused nothing is written
 * anywhere, and one that was decided is finished whatever breaks: by this store when the connection is back, or by the one that is
 * opened next (cluster-settle.ts). It is decided by what the parts hold: written on any of them, or kept on all.
 * Between the first and the last write a reader of native values may see a part of it, for a moment; loads and reads of this store don't,
 * because they wait for the commits before them that touch the same slots.
 *
 * **Several writers** find each other's locks, and try again after a moment; a lock that stays is taken for left behind, and settled.
 *
 * **Slots that move.** A script writes nothing unless its server has all of every slot that it touches; the commit is tried again when the
 * slot has arrived. If a slot moves between preparing and writing, its writes are made on its new server first, under the same
 * lock, and then the rest.
 *
 * **Vectors.** Commits are numbered. Each tells, for each part, the last number that touched it, and leaves that with what it writes. So the
 * last commit that any part knows tells whether all parts have all that they should: then the marks that one part knows hold for all.
 * If a part has lost its end, only the marks that all parts know are certain (cluster-open.ts). To keep these close together, parts
 * that a commit didn't touch are told of its marks a moment later.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import {
  StaleCommitError,
  StoppedError,
  StoreRefusedError,
  StoreResetError,
  StoreUnavailableError,
} from '../errors.js';
import type { Cancel, Timers } from '../timers.js';
import type { ClusterParts, Part } from './cluster-parts.js';
import { CommitQueue, type Waiting } from './cluster-queue.js';
import {
  finishPart,
  isElsewhere,
  LOCK_PATIENCE_MS,
  lastCommitOn,
  NO_DIGESTS,
  pause,
} from './cluster-settle.js';
import { checkCommit, onlyRemoves, writeCommit } from './commit-frame.js';
import { FrameWriter } from './frame-writer.js';
import { partLogKey } from './layout.js';
import { keySlot } from './slots.js';
import type { AppliedMark, Commit, CommitResult, KeyWrite } from './store.js';
import { LOCKED_REASON } from './valkey-connection.js';

/** What commits need of their surroundings. */
export interface CommitsOptions {
  readonly parts: ClusterParts;
  readonly timers: Timers;
  readonly random: () => number;
  /** How long a caller waits. */
  readonly answerTimeoutMs: number;
  readonly writer: ByteString;
  /** Reads again what all parts know, and has it learned. */
  readonly lookAgain: () => Promise<void>;
  /** Settles a lock that was left behind. */
  readonly settle: (lock: string) => Promise<void>;
  /** Data were lost: nothing goes on. */
  readonly onLost: (error: StoreResetError) => void;
}

/** After so long, parts that lag are told of the marks that they don't know. */
const TELL_MS = 500;

/** What a commit does on one part. */
interface Share {
  readonly part: Part;
  readonly commit: Commit;
}

export class ClusterCommits {
  readonly #options: CommitsOptions;
  readonly #frame = new FrameWriter();
  /** How far each replica's frames are applied. */
  readonly marks = new Map<ReplicaId, AppliedMark>();
  /** The last commit of this writer that took effect on each part. */
  readonly #last = new Map<number, number>();
  #number = 0;
  readonly #queue: CommitQueue;
  #telling: Cancel | null = null;

  constructor(options: CommitsOptions, applied: readonly AppliedMark[]) {
    this.#options = options;
    const { timers, answerTimeoutMs } = options;
    this.#queue = new CommitQueue({ timers, answerTimeoutMs, execute: (waiting) => this.#execute(waiting) });
    for (const mark of applied) this.marks.set(mark.replica, mark);
  }

  /** As {@link Store.commit}. */
  commit(commit: Commit): Promise<CommitResult> {
    const { ended } = this.#queue;
    if (ended !== null) return Promise.reject(ended);
    checkCommit(commit);
    return this.#queue.add(commit, null);
  }

  /** Resolves when the commits that were called so far and touch any of some slots (null: all) have come to an end. Rejects with StoreUnavailableError. */
  settled(slots: readonly number[] | null): Promise<void> {
    return this.#queue.settled(slots);
  }

  /** Tells the parts the marks that they don't know, or, if `all`, each of them this writer's vector too. */
  async tellMarks(all = false): Promise<void> {
    if (this.#queue.ended !== null) return;
    const lagging = this.#options.parts.all().filter((part) => all || part.behind.size > 0);
    await Promise.all(lagging.map((part) => this.#queue.add({ writes: [] }, part)));
  }

  #tellLater(): void {
    this.#telling ??= this.#options.timers.after(TELL_MS, () => {
      this.#telling = null;
      this.tellMarks().catch(() => {});
    });
  }

  /** Nothing more is committed: what waits is rejected. */
  end(error: () => Error): void {
    this.#telling?.();
    this.#telling = null;
    this.#queue.end(error);
  }

  async #execute(waiting: Waiting): Promise<void> {
    try {
      await this.#commit(waiting);
    } catch (error) {
      if (error instanceof StoreResetError) this.#options.onLost(error);
      throw error;
    }
  }

  async #commit(waiting: Waiting): Promise<void> {
    const { commit } = waiting;
    const { timers, answerTimeoutMs, settle, random } = this.#options;
    const { frame } = commit;
    const known = frame === undefined ? 0 : (this.marks.get(frame.replica)?.number ?? 0);
    if (frame !== undefined && frame.number !== known + 1)
      throw new StaleCommitError(`frame ${frame.number} does not follow ${known}`);
    await this.#checkMarks(commit);
    let lock = '';
    let lockedAtMs = 0;
    for (let tries = 0; ; tries += 1) {
      try {
        const { only } = waiting;
        const shares =
          only === null ? this.#split(commit) : [{ part: only, commit: this.#due(only, commit) }];
        if (shares.length === 1) await this.#single(shares[0]!, waiting);
        else await this.#together(shares, waiting);
        return;
      } catch (error) {
        if (!isElsewhere(error)) throw error;
        const now = performance.now();
        if (error.reason === LOCKED_REASON) {
          const theirs = error.message.slice(error.message.indexOf(LOCKED_REASON) + LOCKED_REASON.length + 1);
          if (theirs !== lock) [lock, lockedAtMs] = [theirs, now];
          else if (now - lockedAtMs > LOCK_PATIENCE_MS) await settle(lock);
        }
        if (now - waiting.calledAtMs > answerTimeoutMs || this.#queue.ended !== null) throw error;
        await pause(timers, Math.min(50, 1 + 2 ** tries * random()));
        if (error.reason !== LOCKED_REASON) await this.#refresh();
      }
    }
  }

  /** What this store remembers may lag behind what another node has applied. */
  async #checkMarks({ applied = [] }: Commit): Promise<void> {
    const other = () =>
      applied.find(
        ({ replica, after }) => after !== undefined && after !== (this.marks.get(replica)?.number ?? 0),
      );
    if (other() === undefined) return;
    await this.#options.lookAgain();
    const mark = other();
    if (mark !== undefined)
      throw new StaleCommitError(`frames of ${mark.replica} were applied by another node`);
  }

  /** Learns of marks that another node has raised. */
  learn(applied: readonly AppliedMark[]): void {
    for (const mark of applied)
      if ((this.marks.get(mark.replica)?.number ?? 0) < mark.number) this.marks.set(mark.replica, mark);
  }

  async #refresh(): Promise<void> {
    try {
      await this.#options.parts.refresh();
    } catch (error) {
      if (error instanceof StoreResetError) throw error;
      // Whoever is asked next may know.
    }
  }

  /** Says what each part has to do. */
  #split(commit: Commit): Share[] {
    const { parts } = this.#options;
    const writes = new Map<Part, KeyWrite[]>();
    for (const write of commit.writes) {
      const part = parts.of(keySlot(write.key));
      if (part === null) throw new StoreRefusedError('TRYAGAIN a slot is being moved', { reason: 'MOVED' });
      const some = writes.get(part);
      if (some === undefined) writes.set(part, [write]);
      else some.push(write);
    }
    const { frame, applied = [] } = commit;
    // Two nodes that raise a mark meet at the first part.
    const meets = applied.some(({ after }) => after !== undefined);
    const first = parts.first();
    if (first === null) throw new StoreRefusedError('CLUSTERDOWN no server', { reason: 'CLUSTERDOWN' });
    if (writes.size === 0 || (meets && !writes.has(first))) writes.set(first, []);
    const mark = frame && { replica: frame.replica, number: frame.number, stamp: frame.stamp };
    return [...writes].map(([part, some], at) => {
      const share = { writes: some, applied: at > 0 && mark ? [...applied, mark] : applied };
      return { part, commit: this.#due(part, at === 0 && frame ? { ...share, frame } : share) };
    });
  }

  /** Adds the marks that a part doesn't know yet. */
  #due(part: Part, commit: Commit): Commit {
    if (part.behind.size === 0) return commit;
    return { ...commit, applied: [...part.behind.values(), ...(commit.applied ?? [])] };
  }

  /** The vector of a commit to some parts. */
  #vector(number: number, touched: readonly Part[]): string {
    const last = new Map(this.#last);
    for (const part of touched) last.set(part.anchor, number);
    const used = new Set(this.#options.parts.all().map(({ anchor }) => anchor));
    return `${number}|${[...last]
      .filter(([anchor]) => used.has(anchor))
      .map(([anchor, at]) => `${anchor}=${at}`)
      .join(',')}`;
  }

  async #single(share: Share, waiting: Waiting): Promise<void> {
    const { part, commit } = share;
    this.#number += 1;
    const number = this.#number;
    const vector = this.#vector(number, [part]);
    const script = onlyRemoves(commit) ? 'remove' : 'commit';
    try {
      const answer = await part.connection.commit(script, (sender) => [
        writeCommit(this.#frame, commit, sender, NO_DIGESTS, (replica) => partLogKey(part.anchor, replica)),
        vector,
        '',
      ]);
      if (answer?.startsWith('DONE*')) waiting.crowded = true;
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error;
      waiting.tell(error);
      await this.#insist(null, async () => {
        if ((await lastCommitOn(part, this.#options.writer)) >= number) this.#done([share], number);
      });
      throw error;
    }
    this.#done([share], number);
  }

  /** A commit took effect: its marks hold everywhere. */
  #done(shares: readonly Share[], number: number): void {
    for (const { part, commit } of shares) {
      this.#last.set(part.anchor, number);
      for (const mark of marksOf(commit)) {
        const behind = part.behind.get(mark.replica);
        if (behind !== undefined && behind.number <= mark.number) part.behind.delete(mark.replica);
      }
    }
    const told = new Set(shares.map(({ part }) => part));
    const others = this.#options.parts.all().filter((part) => !told.has(part));
    for (const { commit } of shares) {
      for (const mark of marksOf(commit)) {
        if ((this.marks.get(mark.replica)?.number ?? 0) >= mark.number) continue;
        this.marks.set(mark.replica, mark);
        for (const part of others) part.behind.set(mark.replica, mark);
        if (others.length > 0) this.#tellLater();
      }
    }
  }

  async #together(shares: readonly Share[], waiting: Waiting): Promise<void> {
    this.#number += 1;
    const number = this.#number;
    const vector = this.#vector(
      number,
      shares.map(({ part }) => part),
    );
    const lock = `${this.#options.writer}|${vector}`;
    const script = onlyRemoves(waiting.commit) ? 'prepareRemove' : 'prepare';
    const prepared = await Promise.allSettled(
      shares.map(({ part, commit }) =>
        part.connection.commit(script, (sender) => [
          writeCommit(this.#frame, commit, sender, NO_DIGESTS, (replica) => partLogKey(part.anchor, replica)),
          vector,
          '',
        ]),
      ),
    );
    const failures = prepared.flatMap((each) => (each.status === 'rejected' ? [each.reason as Error] : []));
    if (failures.length === 0) {
      await Promise.all(shares.map((share) => this.#write(share, lock, waiting)));
      this.#done(shares, number);
      return;
    }
    const worst = failures.reduce((one, two) => (severity(two) > severity(one) ? two : one));
    if (worst instanceof StoreUnavailableError) waiting.tell(worst);
    const drop = shares.filter((_, at) => {
      const each = prepared[at]!;
      return each.status === 'fulfilled' || each.reason instanceof StoreUnavailableError;
    });
    if (!(worst instanceof StoreResetError))
      await Promise.all(drop.map(({ part }) => this.#drop(part, lock)));
    if (!(worst instanceof StoreRefusedError) || isElsewhere(worst)) throw worst;
    const { message, reason } = worst;
    throw new StoreRefusedError(message, { cause: worst, reason, inPart: true });
  }

  /** Has a part write what it kept; goes on until it has. */
  async #write({ part, commit }: Share, lock: string, waiting: Waiting): Promise<void> {
    await this.#insist(waiting, () =>
      finishPart(
        this.#options.parts,
        part,
        lock,
        commit,
        async (replacement) => {
          const answer = await part.connection.commit('apply', (sender) => [
            lock,
            String(sender.session),
            String(sender.seq),
            replacement(sender),
          ]);
          if (answer?.startsWith('DONE*')) waiting.crowded = true;
        },
        this.#frame,
      ),
    );
  }

  async #drop(part: Part, lock: string): Promise<void> {
    await this.#insist(null, async () => {
      await part.connection.commit('abort', ({ session, seq }) => [
        lock,
        String(session),
        String(seq),
        this.#options.writer,
      ]);
    });
  }

  /** Does something again until it succeeds or nothing goes on. */
  async #insist(waiting: Waiting | null, act: () => Promise<void>): Promise<void> {
    const { timers, answerTimeoutMs } = this.#options;
    for (;;) {
      const { ended } = this.#queue;
      if (ended !== null) throw ended;
      try {
        await act();
        return;
      } catch (error) {
        if (error instanceof StoreResetError || error instanceof StoppedError) throw error;
        if (error instanceof StaleCommitError) {
          // What was locked was changed: someone wrote past every node.
          throw new StoreResetError(`what a commit had locked was changed meanwhile: ${error.message}`);
        }
        const late = waiting !== null && performance.now() - waiting.calledAtMs > answerTimeoutMs;
        if (waiting !== null && (error instanceof StoreUnavailableError || late))
          waiting.tell(
            error instanceof StoreUnavailableError
              ? error
              : new StoreUnavailableError((error as Error).message),
          );
        await pause(timers, 10);
        if (isElsewhere(error)) await this.#refresh();
      }
    }
  }
}

function marksOf({ frame, applied = [] }: Commit): AppliedMark[] {
  const all = frame === undefined ? applied : [...applied, frame];
  return all.map(({ replica, number, stamp }) => ({ replica, number, stamp }));
}

/** Which of several failures counts. */
function severity(error: Error): number {
  if (error instanceof StoppedError) return 5;
  if (error instanceof StoreResetError) return 4;
  if (error instanceof StoreUnavailableError) return 3;
  return isElsewhere(error) ? 0 : error instanceof StaleCommitError ? 1 : 2;
}
