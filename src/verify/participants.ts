/** Who takes part in a verification, how each is asked, and what has become of it. */
import { DecodeError, type MeshError, PeerError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Timers } from '../timers.js';
import { ANSWER_MS, MAX_ANSWER_BYTES } from './limits.js';
import type { VerifiedRegion } from './report.js';
import { decode, encode } from './wire.js';

/** Asks one member, this one included; gives the messages of its answer. */
export type Ask = (
  peer: PeerId,
  body: Uint8Array,
  options: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly maxBytes: number },
) => AsyncIterable<Uint8Array>;

/** One member, and what is known of it. */
export class Participant {
  state: VerifiedRegion['state'] = 'compared';
  reason: string | null = null;
  digest: number | null = null;
  keys: number | null = null;
  /** Its digests by slot at the cut, once they were asked for. */
  slots: ReadonlyMap<number, number> = new Map();
  readonly peerId: PeerId;
  readonly region: string;
  readonly replica: string;
  readonly #ask: Ask;
  readonly #timers: Timers;
  readonly #stopped: AbortSignal;

  constructor(
    who: { readonly peerId: PeerId; readonly region: string; readonly replica: string },
    ask: Ask,
    timers: Timers,
    stopped: AbortSignal,
  ) {
    this.peerId = who.peerId;
    this.region = who.region;
    this.replica = who.replica;
    this.#ask = ask;
    this.#timers = timers;
    this.#stopped = stopped;
  }

  /** It was too slow for one question; another attempt may do. */
  #slow = false;

  get isSlow(): boolean {
    return this.#slow;
  }

  /** Lets it take part again, if it was only too slow. */
  retry(): void {
    if (this.#slow) [this.#slow, this.state, this.reason] = [false, 'compared', null];
  }

  /** It takes part no more. The first reason counts. */
  fail(reason: string, state: VerifiedRegion['state'] = 'failed'): void {
    if (this.state !== 'compared') return;
    this.state = state;
    this.reason = reason;
  }

  /**
   * Asks one question; gives what `read` makes of the answer. Null when the member failed: it takes part no more then. An answer
   * that never ends, or is too long, is cut off.
   */
  async ask<T>(
    question: readonly unknown[],
    read: (parts: unknown[]) => T,
    timeoutMs = ANSWER_MS,
  ): Promise<T | null> {
    let answer: { readonly value: T } | null = null;
    const came = await this.askFor(question, timeoutMs, (parts) => {
      answer = { value: read(parts) };
      return false;
    });
    if (!came) return null;
    return (answer as { readonly value: T } | null)!.value;
  }

  /**
   * Asks a question whose answer is several messages; `take` says whether it wants more. False when the member failed, or ended
   * too early; or was silent for `silenceMs`.
   */
  async askFor(
    question: readonly unknown[],
    silenceMs: number,
    take: (parts: unknown[]) => boolean,
  ): Promise<boolean> {
    if (this.state !== 'compared') return false;
    const over = new AbortController();
    const abort = (): void => over.abort();
    this.#stopped.addEventListener('abort', abort);
    const stream = this.#ask(this.peerId, encode(...question), {
      signal: over.signal,
      timeoutMs: silenceMs,
      maxBytes: MAX_ANSWER_BYTES,
    })[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.#within(silenceMs, stream.next(), over);
        if (next.done === true) throw new DecodeError('its answer is empty, or ends in the middle');
        if (!take(decode(next.value))) return true;
      }
    } catch (error) {
      if (this.state === 'compared') this.#slow = error instanceof PeerError && TOO_SLOW.test(error.message);
      this.fail(reasonOf(error));
      return false;
    } finally {
      this.#stopped.removeEventListener('abort', abort);
      over.abort();
      stream.return?.(undefined)?.catch(() => {});
    }
  }

  #within<T>(ms: number, promise: Promise<T>, over: AbortController): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.#timers.after(ms, () => reject(new PeerError(`it did not answer within ${ms} ms`)));
      const abort = (): void => reject(new PeerError('this was given up'));
      over.signal.addEventListener('abort', abort);
      promise.then(resolve, reject).finally(() => {
        cancel();
        over.signal.removeEventListener('abort', abort);
      });
    });
  }

  report(hex: (digest: number) => string): VerifiedRegion {
    const { region, peerId, state, reason, keys } = this;
    const digest = this.state === 'compared' && this.digest !== null ? hex(this.digest) : null;
    return { region, peerId, state, reason, digest, keys };
  }
}

/** What the mesh and this file say of a member that took too long. */
const TOO_SLOW = /did not answer .*within \d+ ms/;

function reasonOf(error: unknown): string {
  if (error instanceof DecodeError) return `its answer makes no sense: ${error.message}`;
  const { message, cause } = error as MeshError & { cause?: unknown };
  return cause instanceof Error && cause.message !== '' && !message.includes(cause.message)
    ? `${message}: ${cause.message}`
    : message;
}
