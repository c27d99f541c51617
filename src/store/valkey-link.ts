/**
 * One connection to Valkey or to a sentinel, from connect to loss. It never reconnects and never queues: valkey-connection.ts does,
 * because what is sent again after a loss, and in which order, is the store's own business.
 */
import type { ConnectionOptions } from 'node:tls';
import { Command, Redis } from 'ioredis';
import type { ByteString } from '../../crdts/bytes.js';
import { isAscii } from '../../crdts/bytes.js';
import type { Place } from './valkey-address.js';

/** What a server answers: strings come as their bytes. */
export type Reply = Buffer | string | number | null | Reply[];

/** An argument of a command. */
export type Argument = string | Buffer;

/** An error that the server answered, as opposed to a broken connection. */
export class ServerReplyError extends Error {
  override name = 'ServerReplyError';
}

/** A ByteString as an argument. */
export function argument(value: ByteString): Argument {
  return isAscii(value) ? value : Buffer.from(value, 'latin1');
}

/** The bytes of a reply; null for nil. Throws when it isn't a string. */
export function bytesOf(reply: Reply | undefined): ByteString | null {
  if (reply === null || reply === undefined) return null;
  if (Buffer.isBuffer(reply)) return reply.toString('latin1') as ByteString;
  if (typeof reply === 'string') return Buffer.from(reply).toString('latin1') as ByteString;
  throw new TypeError(`the server answered ${typeof reply} where a string was due`);
}

/** The items of a reply. Throws when it isn't an array. */
export function listOf(reply: Reply | undefined): Reply[] {
  if (Array.isArray(reply)) return reply;
  throw new TypeError(`the server answered ${typeof reply} where an array was due`);
}

/** The number in a reply. Throws when there is none. */
export function numberOf(reply: Reply | undefined): number {
  const value = typeof reply === 'number' ? reply : Number(bytesOf(reply) ?? Number.NaN);
  if (Number.isNaN(value)) throw new TypeError('the server answered something else where a number was due');
  return value;
}

/** A connection to one server. */
export class ValkeyLink {
  readonly #redis: Redis;
  /** The last error that the connection met; null while there was none. */
  lastError: Error | null = null;

  /**
   * @param tls Node's options of a TLS connection; null = no TLS
   * @param onEnd called once when the connection, once made, is lost or closed
   */
  constructor(place: Place, tls: ConnectionOptions | null, connectTimeoutMs: number, onEnd: () => void) {
    // Logging in and choosing the database are the handshake's, which tells a wrong password from a lost connection.
    this.#redis = new Redis({
      ...place,
      ...(tls === null ? {} : { tls }),
      lazyConnect: true,
      retryStrategy: () => null,
      maxRetriesPerRequest: null,
      autoResendUnfulfilledCommands: false,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      disableClientInfo: true,
      protocol: 2,
      connectTimeout: connectTimeoutMs,
    });
    this.#redis.on('error', (error: Error) => {
      this.lastError = error;
    });
    this.#redis.once('end', onEnd);
  }

  /** Connects. Rejects when that fails; `lastError` says why. */
  async connect(): Promise<void> {
    try {
      await this.#redis.connect();
    } catch (error) {
      throw this.lastError ?? error;
    }
  }

  /** Sends a command at once. Rejects with {@link ServerReplyError} when the server says so, with another error when the connection ends first. */
  send(name: string, args: readonly Argument[]): Promise<Reply> {
    const command = new Command(name, args as Argument[], { replyEncoding: null });
    // Errors of ioredis carry the command's arguments, which are users' data: only the text goes on.
    return (this.#redis.sendCommand(command) as Promise<Reply>).catch((error: Error) => {
      throw error.name === 'ReplyError' ? new ServerReplyError(error.message) : new Error(error.message);
    });
  }

  /** Drops the connection. */
  close(): void {
    this.#redis.disconnect();
  }
}
