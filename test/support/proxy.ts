/** A TCP proxy that breaks connections at the moments that matter: a request that never arrives, a reply that never comes back, a request that arrives after its sender is gone. */
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Breaks what goes through it on demand. */
export class BreakingProxy {
  readonly #server: Server;
  readonly #pairs = new Set<{ client: Socket; server: Socket }>();
  readonly #held: { server: Socket; chunks: Buffer[] }[] = [];
  #target: number;
  #fault: 'none' | 'lose request' | 'lose reply' | 'hold request' = 'none';
  #refusing = false;
  /** Faults that took place. */
  faults = 0;

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer({ noDelay: true }, (client) => this.#accept(client));
  }

  /** Listens on a free port of 127.0.0.1, and forwards to a port there. */
  static async listen(target: number): Promise<BreakingProxy> {
    const proxy = new BreakingProxy(target);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy does not listen');
    return address.port;
  }

  /** The next bytes from a client vanish, and its connection breaks. */
  loseNextRequest(): void {
    this.#fault = 'lose request';
  }

  /** The next bytes from the server vanish, and the connection breaks: the server did what it was told, and no one knows. */
  loseNextReply(): void {
    this.#fault = 'lose reply';
  }

  /** The next bytes from a client are kept, and its connection breaks; {@link release} delivers them. */
  holdNextRequest(): void {
    this.#fault = 'hold request';
  }

  /** Delivers what was held to the server, on the old connection; resolves when the server has answered it. */
  async release(): Promise<void> {
    for (const { server, chunks } of this.#held.splice(0)) {
      const answered = new Promise<void>((resolve) => {
        server.once('data', () => resolve());
        server.once('close', () => resolve());
      });
      for (const chunk of chunks) server.write(chunk);
      await answered;
      server.destroy();
    }
  }

  /** Breaks all connections now. */
  cut(): void {
    for (const pair of this.#pairs) this.#break(pair);
  }

  /** Refuses new connections, or takes them again. */
  refuse(refusing: boolean): void {
    this.#refusing = refusing;
  }

  async stop(): Promise<void> {
    this.cut();
    for (const { server } of this.#held) server.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #break(pair: { client: Socket; server: Socket }): void {
    this.#pairs.delete(pair);
    pair.client.destroy();
    pair.server.destroy();
  }

  #accept(client: Socket): void {
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const server = connect({ port: this.#target, host: '127.0.0.1', noDelay: true });
    const pair = { client, server };
    this.#pairs.add(pair);
    client.on('data', (chunk) => {
      if (this.#fault === 'lose request') {
        this.#happened();
        this.#break(pair);
      } else if (this.#fault === 'hold request') {
        this.#happened();
        this.#pairs.delete(pair);
        client.destroy();
        this.#held.push({ server, chunks: [chunk] });
      } else {
        server.write(chunk);
      }
    });
    server.on('data', (chunk) => {
      if (!this.#pairs.has(pair)) return;
      if (this.#fault === 'lose reply') {
        this.#happened();
        this.#break(pair);
      } else {
        client.write(chunk);
      }
    });
    for (const socket of [client, server]) {
      socket.on('error', () => {});
      socket.on('close', () => {
        if (this.#pairs.has(pair)) this.#break(pair);
      });
    }
  }

  #happened(): void {
    this.#fault = 'none';
    this.faults += 1;
  }
}
