/** One request on the loopback network: reliable and in order, with a latency for each chunk, until its link is cut. */
import { PeerError } from '../errors.js';
import type { Timers } from '../timers.js';
import type { MeshHandlers, PeerId, RequestOptions } from './mesh.js';

/** Default of `RequestOptions.timeoutMs`. */
export const DEFAULT_TIMEOUT_MS = 10_000;

interface Wire {
  readonly timers: Timers;
  latency(): number;
}

interface Parties {
  readonly asker: PeerId;
  readonly responder: PeerId;
  readonly protocol: string;
  readonly body: Uint8Array;
}

/** Runs the responder's handler for one asker, one chunk at a time. */
export class LoopbackRequest {
  readonly #abort = new AbortController();
  #chunks: AsyncIterator<Uint8Array> | undefined;
  #failure: Error | undefined;
  #done = false;
  /** Rejects the `next` that is under way. */
  #fail: ((error: Error) => void) | undefined;

  constructor(
    private readonly wire: Wire,
    readonly parties: Parties,
    private readonly options: RequestOptions,
    private readonly handlers: MeshHandlers,
  ) {}

  /** Pulls one chunk from the handler and brings it to the asker; undefined at the end. Throws PeerError when it can't. */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#failure !== undefined) throw this.#failure;
    const { signal, timeoutMs = DEFAULT_TIMEOUT_MS } = this.options;
    const { responder, protocol } = this.parties;
    const aborted = () => this.end(new PeerError(`the request ${protocol} to ${responder} was aborted`));
    if (signal?.aborted === true) aborted();
    signal?.addEventListener('abort', aborted, { once: true });
    const cancel = this.wire.timers.after(timeoutMs, () =>
      this.end(new PeerError(`${responder} did not answer ${protocol} within ${timeoutMs} ms`)),
    );
    try {
      return await new Promise<Uint8Array | undefined>((resolve, reject) => {
        if (this.#failure !== undefined) reject(this.#failure);
        this.#fail = reject;
        this.#pull().then(resolve, reject);
      });
    } finally {
      this.#fail = undefined;
      cancel();
      signal?.removeEventListener('abort', aborted);
    }
  }

  /** Ends the request for both sides: the asker's pending `next` throws, the handler's signal aborts. Harmless when it is over. */
  end(reason: Error): void {
    if (this.#done || this.#failure !== undefined) return;
    this.#failure = reason;
    this.#abort.abort(reason);
    this.#fail?.(reason);
    // A handler that is busy takes the return when its current step is over; what it throws then concerns nobody.
    this.#chunks?.return?.()?.then(undefined, () => {});
  }

  async #pull(): Promise<Uint8Array | undefined> {
    const { asker, protocol, body } = this.parties;
    if (this.#chunks === undefined) await this.#travel();
    let step: IteratorResult<Uint8Array>;
    try {
      this.#chunks ??= this.handlers
        .onRequest(asker, protocol, body, this.#abort.signal)
        [Symbol.asyncIterator]();
      step = await this.#chunks.next();
    } catch (error) {
      await this.#travel();
      const failure = new PeerError(error instanceof Error ? error.message : String(error), { cause: error });
      this.end(failure);
      throw failure;
    }
    const chunk = step.done === true ? undefined : step.value.slice();
    await this.#travel();
    if (step.done === true) this.#done = true;
    return chunk;
  }

  /** Takes one latency; throws when the request ended meanwhile. */
  async #travel(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.wire.timers.after(this.wire.latency(), resolve);
    });
    if (this.#failure !== undefined) throw this.#failure;
  }
}
