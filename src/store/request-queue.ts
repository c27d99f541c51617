/**
 * What waits for an answer of the server, in the order of the calls, and what becomes of commits when one fails.
 *
 * **Chains.** A commit that is called while others are under way belongs to their chain. When one of a chain fails, so do the
 * later ones: in the server, because their numbers don't follow; here, when they were not sent yet. A chain ends when none
 * of its commits waits any more.
 */
import { StaleCommitError } from '../errors.js';
import type { CommitSender } from './commit-frame.js';
import type { WrongType } from './store.js';
import type { ScriptName } from './valkey-handshake.js';
import type { Argument, Reply } from './valkey-link.js';

/** A request, from its call until its caller has an answer and its outcome is known. */
export interface Request {
  /** A command by name, or one of our scripts. */
  readonly name: string | { readonly script: ScriptName };
  /** Its arguments, made anew each time it is sent. */
  readonly args: (sender: CommitSender) => readonly Argument[];
  /** For commits: which chain. 0: not a commit. */
  readonly chain: number;
  readonly wrongTypeAnswers: boolean;
  /** The tick at which it was called. */
  readonly calledAt: number;
  /** Number within the session in which it was sent last, for commits; 0 = not sent. */
  seq: number;
  /** `given up`: its caller was told that the outcome is unknown. */
  state: 'waiting' | 'given up' | 'done';
  readonly resolve: (reply: Reply | WrongType) => void;
  readonly reject: (error: Error) => void;
}

function chainFailed(): StaleCommitError {
  return new StaleCommitError('an earlier commit, which this one was built on, failed');
}

/** The requests of one conversation. */
export class RequestQueue {
  readonly #requests: Request[] = [];
  #chain = 0;
  #brokenChain = -1;
  #pendingCommits = 0;
  #nextSeq = 1;
  #acknowledgedSeq = 0;

  get length(): number {
    return this.#requests.length;
  }

  /** How many commits of the running session are known to have taken effect. */
  get acknowledgedSeq(): number {
    return this.#acknowledgedSeq;
  }

  /** The chain that a commit called now belongs to. Throws StaleCommitError when that chain has failed. */
  chain(): number {
    if (this.#pendingCommits === 0) this.#chain += 1;
    if (this.#chain === this.#brokenChain) throw chainFailed();
    return this.#chain;
  }

  add(request: Request): void {
    if (request.chain > 0) this.#pendingCommits += 1;
    this.#requests.push(request);
  }

  /** Gives a request that is about to be sent its number. */
  number(request: Request): void {
    if (request.chain > 0) request.seq = this.#nextSeq++;
  }

  /** Takes the number back of a request that could not be sent, and tells its caller why. */
  unsendable(request: Request, error: Error): void {
    if (request.chain > 0) this.#nextSeq = request.seq;
    this.#settle(request, () => request.reject(error));
  }

  /** The server did what was asked. */
  done(request: Request, reply: Reply | WrongType): void {
    if (request.chain > 0) this.#acknowledgedSeq = request.seq;
    this.#settle(request, () => request.resolve(reply));
  }

  /** The server did nothing of what was asked. A commit breaks its chain, or was broken with it. */
  failed(request: Request, error: Error): void {
    if (request.chain > 0 && this.isBroken(request)) {
      this.#settle(request, () => request.reject(chainFailed()));
      return;
    }
    if (request.chain > 0) {
      this.#brokenChain = request.chain;
      this.#nextSeq = request.seq;
    }
    this.#settle(request, () => request.reject(error));
  }

  /** Says whether an earlier commit of a commit's chain has failed. */
  isBroken(request: Request): boolean {
    return request.chain === this.#brokenChain;
  }

  /**
   * Settles what was under way in the last session, of which the first `done` commits took effect, and gives what is
   * to be sent in the new one.
   */
  beginSession(done: number): Request[] {
    for (const request of [...this.#requests]) {
      if (request.chain === 0) {
        if (request.state === 'given up') this.#settle(request, () => {});
      } else if (request.seq > 0 && request.seq <= done) {
        this.#settle(request, () => request.resolve(null));
      } else if (request.state === 'given up') {
        // It failed for its caller, so it must not take effect any more.
        this.#brokenChain = request.chain;
        this.#settle(request, () => {});
      } else if (this.isBroken(request)) {
        this.#settle(request, () => request.reject(chainFailed()));
      }
    }
    this.#nextSeq = 1;
    this.#acknowledgedSeq = 0;
    return [...this.#requests];
  }

  /** Gives up what was called at or before a tick; says whether there was anything. */
  giveUp(throughTick: number, error: () => Error): boolean {
    const late = this.#requests.filter((r) => r.state === 'waiting' && r.calledAt <= throughTick);
    for (const request of late) {
      if (request.state !== 'waiting') continue;
      if (request.chain > 0 && request.seq > 0) {
        // Sent, outcome unknown: it stays, for the next session to settle, but its caller waits no longer.
        request.state = 'given up';
        this.#pendingCommits -= 1;
        request.reject(error());
        continue;
      }
      this.#settle(request, () => request.reject(error()));
      if (request.chain === 0) continue;
      // Never sent, so it failed; and so do those of its chain, which wait behind it.
      this.#brokenChain = request.chain;
      for (const other of this.#requests.filter((r) => r.chain === request.chain && r.seq === 0)) {
        this.#settle(other, () => other.reject(chainFailed()));
      }
    }
    return late.length > 0;
  }

  /** Ends everything. */
  rejectAll(error: () => Error): void {
    for (const request of [...this.#requests]) this.#settle(request, () => request.reject(error()));
    this.#brokenChain = -1;
  }

  /** Takes a request out and tells its caller, unless it was given up before. */
  #settle(request: Request, tell: () => void): void {
    const told = request.state === 'given up';
    request.state = 'done';
    const at = this.#requests.indexOf(request);
    if (at >= 0) this.#requests.splice(at, 1);
    if (told) return;
    if (request.chain > 0) this.#pendingCommits -= 1;
    tell();
  }
}
