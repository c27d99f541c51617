/** The RESP front door: a TCP server through which any Redis or Valkey client uses a node. */
import { Buffer } from 'node:buffer';
import { createHash, timingSafeEqual } from 'node:crypto';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { ByteString } from '../../crdts/bytes.js';
import type { Engine } from '../engine.js';
import { ConfigError } from '../errors.js';
import type { Logger } from '../options.js';
import { isReservedKey } from '../store/layout.js';
import type { Command } from './command.js';
import { builtInCommands } from './commands/index.js';
import { Connection, type ConnectionHost, type ConnectionLimits } from './connection.js';
import { CommandTable } from './dispatch.js';
import type { DoorStats } from './session.js';
import { StringReads } from './string-reads.js';

/** Options of {@link startFrontDoor}. */
export interface FrontDoorOptions {
  readonly engine: Engine;
  /** Address to listen on. Default: '127.0.0.1'. */
  readonly host?: string;
  /** 0 = any free one. */
  readonly port: number;
  readonly logger: Logger;
  /** Clients must give it with AUTH or HELLO … AUTH, as UTF-8. Default: none is needed. */
  readonly password?: string;
  /** More clients than these are told so and disconnected. Default: 10,000. */
  readonly maxClients?: number;
  /** More commands; one of a known name replaces it. Default: none. */
  readonly extra?: readonly Command[];
  /** Bounds to change; see {@link DEFAULT_LIMITS}. */
  readonly limits?: Partial<ConnectionLimits>;
  /** Keys that clients may not name. Default: the store's own. */
  readonly isReserved?: (key: ByteString) => boolean;
}

/** A front door that is open. */
export interface FrontDoor {
  readonly port: number;
  /** Number of clients now. */
  readonly clients: number;
  /** Accepts no more clients and commands, answers what is under way within `graceMs` (default: 2,000), and closes. */
  stop(graceMs?: number): Promise<void>;
}

/** Bounds of a connection, unless options say otherwise. */
export const DEFAULT_LIMITS: ConnectionLimits = {
  maxPending: 16_384,
  maxPendingBytes: 16 * 1024 * 1024,
  maxUnsentBytes: 1024 * 1024,
  maxUnreadBytes: 256 * 1024,
  stallMs: 60_000,
};

/** What all connections together may have under way: half of what a node queues, so that it need not refuse. */
const MAX_OPERATIONS = 50_000;
const MAX_BYTES = 32 * 1024 * 1024;

/** Opens a front door. Throws ConfigError when the address can't be listened on. */
export async function startFrontDoor(options: FrontDoorOptions): Promise<FrontDoor> {
  const door = new Listener(options);
  await door.listen(options.host ?? '127.0.0.1', options.port);
  return door;
}

const digest = (text: string): Buffer => createHash('sha256').update(text, 'latin1').digest();

class Listener implements ConnectionHost, FrontDoor {
  readonly engine: Engine;
  readonly table: CommandTable;
  readonly logger: Logger;
  readonly limits: ConnectionLimits;
  readonly stringReads: StringReads;
  readonly maxClients: number;
  readonly startedAtMs = Date.now();
  readonly stats: DoorStats = {
    commandsProcessed: 0,
    connectionsReceived: 0,
    connectionsRejected: 0,
    bytesIn: 0,
    bytesOut: 0,
  };
  port = 0;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  readonly #isReserved: (key: ByteString) => boolean;
  readonly #password: Buffer | null;
  #nextId = 1;
  #operations = 0;
  #bytes = 0;
  readonly #waiting = new Set<Connection>();
  #wakeScheduled = false;
  #stopping: Promise<void> | null = null;
  #emptied: (() => void) | null = null;

  constructor(options: FrontDoorOptions) {
    this.engine = options.engine;
    this.logger = options.logger;
    this.table = new CommandTable([...builtInCommands, ...(options.extra ?? [])]);
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.stringReads = new StringReads(options.engine.reads);
    this.maxClients = options.maxClients ?? 10_000;
    this.#isReserved = options.isReserved ?? isReservedKey;
    const { password } = options;
    this.#password =
      password === undefined || password === '' ? null : digest(Buffer.from(password).toString('latin1'));
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  get clients(): number {
    return this.#connections.size;
  }

  get passwordRequired(): boolean {
    return this.#password !== null;
  }

  passwordMatches(password: ByteString): boolean {
    return this.#password !== null && timingSafeEqual(this.#password, digest(password));
  }

  isReserved(key: ByteString): boolean {
    return this.#isReserved(key);
  }

  sessions(): Iterable<Connection> {
    return this.#connections;
  }

  listen(host: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const refused = (error: NodeJS.ErrnoException): void => reject(listenError(error, host, port));
      this.#server.once('error', refused);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', refused);
        this.#server.on('error', (error) => this.logger.error({ err: error }, 'the RESP port failed'));
        this.port = (this.#server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  stop(graceMs = 2_000): Promise<void> {
    this.#stopping ??= this.#close(graceMs);
    return this.#stopping;
  }

  full(connection: Connection): boolean {
    if (this.#operations < MAX_OPERATIONS && this.#bytes < MAX_BYTES) return false;
    this.#waiting.add(connection);
    return true;
  }

  account(operations: number, bytes: number): void {
    this.#operations += operations;
    this.#bytes += bytes;
    if (this.#waiting.size === 0 || this.#wakeScheduled) return;
    if (this.#operations > MAX_OPERATIONS / 2 || this.#bytes > MAX_BYTES / 2) return;
    this.#wakeScheduled = true;
    setImmediate(() => {
      this.#wakeScheduled = false;
      const woken = [...this.#waiting];
      this.#waiting.clear();
      for (const connection of woken) connection.resume();
    });
  }

  closed(connection: Connection): void {
    this.#connections.delete(connection);
    this.#waiting.delete(connection);
    if (this.#connections.size === 0) this.#emptied?.();
  }

  #accept(socket: Socket): void {
    this.stats.connectionsReceived += 1;
    if (this.#stopping !== null) {
      socket.destroy();
      return;
    }
    if (this.#connections.size >= this.maxClients) {
      this.stats.connectionsRejected += 1;
      socket.on('error', () => {});
      socket.end('-ERR max number of clients reached\r\n', () => socket.destroy());
      return;
    }
    // A client can be gone before it is accepted; then it has no address.
    if (socket.remoteAddress === undefined) {
      socket.destroy();
      return;
    }
    this.#connections.add(new Connection(this, socket, this.#nextId));
    this.#nextId += 1;
  }

  async #close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    if (this.#connections.size > 0) {
      const emptied = new Promise<void>((resolve) => {
        this.#emptied = resolve;
      });
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, graceMs);
      });
      for (const connection of [...this.#connections]) connection.stop();
      await Promise.race([emptied, late]);
      clearTimeout(timer);
      for (const connection of [...this.#connections]) connection.kill();
    }
    await closed;
  }
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): ConfigError {
  const where = `${host}:${port}`;
  const advice: Record<string, string> = {
    EADDRINUSE: `port ${port} on ${host} is in use: stop what listens there, or choose another port (0 = any free one)`,
    EACCES: `no permission to listen on ${where}: choose a port above 1023`,
    EADDRNOTAVAIL: `${host} is not an address of this machine: choose one that is, such as 127.0.0.1 or 0.0.0.0`,
    ENOTFOUND: `the host name ${host} is unknown: give an address, such as 127.0.0.1 or 0.0.0.0`,
  };
  const message = advice[error.code ?? ''] ?? `can't listen on ${where}: ${error.message}`;
  return new ConfigError(`RESP: ${message}`, { cause: error });
}
