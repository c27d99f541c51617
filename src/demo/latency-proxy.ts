/**
 * A TCP proxy that makes two processes on one machine as far apart as two regions: every byte arrives `oneWayMs` later
 * than it was sent, in both directions, so a round trip takes twice that. It is also what cuts a link: then it resets
 * every connection and each new one, so the peers themselves notice, as when a cable breaks.
 */
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import type { Address } from '../cli/address.js';

/** Bytes that may be under way in one direction of a connection before the sender has to wait. */
const MAX_IN_FLIGHT = 16 * 1024 * 1024;

/** One direction of a link between two regions, as its dialler sees it. */
export class LatencyProxy {
  readonly #oneWayMs: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: Address | null = null;
  #cut = false;

  private constructor(oneWayMs: number) {
    this.#oneWayMs = oneWayMs;
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** Listens on a port of the system's choice on 127.0.0.1. Refuses connections until {@link forwardTo} names a target. */
  static async listen(oneWayMs: number): Promise<LatencyProxy> {
    const proxy = new LatencyProxy(oneWayMs);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(0, '127.0.0.1', () => resolve());
    });
    return proxy;
  }

  /** The port to dial on 127.0.0.1. */
  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy is not listening');
    return address.port;
  }

  /** Where connections go from now on. */
  forwardTo(target: Address): void {
    this.#target = target;
  }

  /** Breaks every connection and refuses new ones. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Lets connections in again. */
  heal(): void {
    this.#cut = false;
  }

  /** Breaks every connection and stops listening. */
  async stop(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(near: Socket): void {
    if (this.#cut || this.#target === null) {
      near.on('error', () => {});
      near.resetAndDestroy();
      return;
    }
    const far = dial({ ...this.#target, noDelay: true, allowHalfOpen: true });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      // Errors need no word of their own: 'close' follows, and what it does to the other side is the news.
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#sockets.delete(socket);
        // Behind the bytes that are still under way.
        setTimeout(() => other.destroySoon(), this.#oneWayMs);
      });
    }
    this.#carry(near, far);
    this.#carry(far, near);
  }

  /** Moves bytes from one socket to another, each chunk `oneWayMs` after it came. Timers of equal delay fire in order. */
  #carry(from: Socket, to: Socket): void {
    let inFlight = 0;
    from.on('data', (chunk: Buffer) => {
      inFlight += chunk.length;
      if (inFlight > MAX_IN_FLIGHT) from.pause();
      setTimeout(() => {
        inFlight -= chunk.length;
        const resume = () => {
          if (from.isPaused() && inFlight <= MAX_IN_FLIGHT) from.resume();
        };
        if (to.destroyed || to.write(chunk)) resume();
        else to.once('drain', resume);
      }, this.#oneWayMs);
    });
    from.on('end', () => setTimeout(() => to.end(), this.#oneWayMs));
  }
}
