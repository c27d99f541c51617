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
    if (this.state !== 'compared') return null;
    const over = new AbortController();
    const abort = (): void => over.abort();
    this.#stopped.addEventListener('abort', abort);
    let late = false;
    const stream = this.#ask(this.peerId, encode(...question), {
      signal: over.signal,
      timeoutMs,
      maxBytes: MAX_ANSWER_BYTES,
    })[Symbol.asyncIterator]();
    const deadline = new Promise<never>((_, reject) => {
      const cancel = this.#timers.after(timeoutMs, () => {
        late = true;
        over.abort();
        reject(new PeerError(`it did not answer within ${timeoutMs} ms`));
      });
      over.signal.addEventListener('abort', () => {
        cancel();
        if (!late) reject(new PeerError('this was given up'));
      });
    });
    deadline.catch(() => {});
    try {
      const first = await Promise.race([stream.next(), deadline]);
      if (first.done === true) throw new DecodeError('its answer is empty');
      return read(decode(first.value));
    } catch (error) {
      this.fail(reasonOf(error));
      return null;
    } finally {
      this.#stopped.removeEventListener('abort', abort);
      over.abort();
      stream.return?.(undefined)?.catch(() => {});
    }
  }

  report(hex: (digest: number) => string): VerifiedRegion {
    const { region, peerId, state, reason, keys } = this;
    const digest = this.state === 'compared' && this.digest !== null ? hex(this.digest) : null;
    return { region, peerId, state, reason, digest, keys };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof DecodeError) return `its answer makes no sense: ${error.message}`;
  const { message, cause } = error as MeshError & { cause?: unknown };
  return cause instanceof Error && cause.message !== '' && !message.includes(cause.message)
    ? `${message}: ${cause.message}`
    : message;
}
