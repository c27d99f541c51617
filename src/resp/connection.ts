/**
 * One client's connection: requests in, replies out in the same order.
 *
 * Commands start as they are read, as long as that can't be noticed: writes beside writes, reads beside reads. Where one
 * kind follows the other, the connection stops reading commands until those under way have been answered. So a read
 * sees the writes before it and none after it, and pipelined writes still share commits. What can't start stays in the
 * parser's buffer, and when that is long, in the client's.
 */
import type { Buffer } from 'node:buffer';
import type { Socket } from 'node:net';
import process from 'node:process';
import type { ByteString } from '../../crdts/bytes.js';
import type { Engine } from '../engine.js';
import { LoadingError } from '../errors.js';
import type { Logger } from '../options.js';
import type { Args, Call, Command, Reply } from './command.js';
import { mayBeQueued } from './commands/transactions.js';
import { refuseReserved } from './dispatch.js';
import { ReplyWriter } from './encoder.js';
import { CommandError, describeError, INTERNAL_ERROR, ProtocolError } from './errors.js';
import { RequestParser } from './parser.js';
import { ReplyQueue, Slot } from './reply-queue.js';
import type { Door, PendingTransaction, ReplyMode, Session } from './session.js';
import type { StringReads } from './string-reads.js';

/** Bounds of one connection. */
export interface ConnectionLimits {
  /** Requests under way, and their bytes. */
  readonly maxPending: number;
  readonly maxPendingBytes: number;
  /** Replies that the client hasn't read, after which no more of its commands are started. */
  readonly maxUnsentBytes: number;
  /** Bytes of requests that wait in our memory before the client's socket is paused. */
  readonly maxUnreadBytes: number;
  /** A client that has unread replies and takes none of them for so long is disconnected. */
  readonly stallMs: number;
}

/** What a connection needs of the server beyond what commands see. */
export interface ConnectionHost extends Door {
  readonly limits: ConnectionLimits;
  readonly stringReads: StringReads;
  readonly logger: Logger;
  isReserved(key: ByteString): boolean;
  /** Says whether all connections together have too much under way; if so, the connection's `resume` is called later. */
  full(connection: Connection): boolean;
  /** Requests begin (positive) and end (negative). */
  account(operations: number, bytes: number): void;
  closed(connection: Connection): void;
}

type Phase = 'read' | 'write' | 'exclusive';

/** Commands that a MULTI doesn't queue. */
const IMMEDIATE = new Set(['exec', 'discard', 'quit', 'reset']);
/** Request lines of HTTP: a browser is being misused to talk to us. */
const HTTP = new Set(['post', 'host:']);
/** As in Valkey: what says of itself that it does; but an EXEC isn't more than what it is made of. */
function answersWhileLoading(command: Command, transaction: PendingTransaction | null): boolean {
  if (command.name === 'exec' && transaction !== null)
    return transaction.queued.every((queued) => queued.command.flags.includes('loading'));
  return command.flags.includes('loading');
}

const QUEUED: Reply = (out) => out.simple('QUEUED');
/** Reads that are started at once while the size of their replies is unknown, and bounds of that number afterwards. */
const FIRST_READS = 32;
const MIN_READS = 4;
const MAX_READS = 2048;
/** Bytes of replies that reads under way may come to, by the size of the last ones. */
const READ_AHEAD_BYTES = 4 * 1024 * 1024;

/** How long a client may keep its side open after we have closed ours. */
const LINGER_MS = 1_000;

/** Serves one socket. */
export class Connection implements Session {
  readonly id: number;
  readonly door: Door;
  readonly engine: Engine;
  readonly address: string;
  readonly localAddress: string;
  readonly connectedAtMs = Date.now();
  lastCommandAtMs = this.connectedAtMs;
  lastCommand = 'NULL';
  lastFrame = 0;
  authenticated: boolean;
  name = '' as ByteString;
  libName = '' as ByteString;
  libVersion = '' as ByteString;
  noEvict = false;
  noTouch = false;
  replyMode: ReplyMode = 'on';
  transaction: PendingTransaction | null = null;
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  readonly #parser: RequestParser;
  readonly #out = new ReplyWriter();
  readonly #queue = new ReplyQueue();
  readonly #abort = new AbortController();
  #phase: Phase = 'write';
  #inFlight = 0;
  /** A command that waits for those of the other kind. */
  #blocked: ByteString[] | null = null;
  #readWindow = FIRST_READS;
  #turnScheduled = false;
  #inputEnded = false;
  /** No more commands: what is under way is answered, then the socket is closed. */
  #ending = false;
  #closed = false;
  /** The client has taken what was written: there may be room for what waited. */
  readonly #written = (): void => {
    if (this.#queue.length > 0 || this.#parser.unread > 0 || this.#blocked !== null) this.#scheduleTurn();
  };

  constructor(host: ConnectionHost, socket: Socket, id: number) {
    this.#host = host;
    this.door = host;
    this.engine = host.engine;
    this.id = id;
    this.#socket = socket;
    this.address = `${socket.remoteAddress}:${socket.remotePort}`;
    this.localAddress = `${socket.localAddress}:${socket.localPort}`;
    this.authenticated = !host.passwordRequired;
    this.#parser = new RequestParser({ maxBulkBytes: host.engine.maxValueBytes }, this.authenticated);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 300_000);
    socket.setTimeout(host.limits.stallMs);
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => this.#inputEnds());
    socket.on('timeout', () => this.#stalled());
    socket.on('error', (error) =>
      this.#host.logger.debug({ client: this.address, err: error }, 'client lost'),
    );
    socket.on('close', () => this.#onClose());
  }

  get protocol(): 2 | 3 {
    return this.#out.protocol;
  }

  set protocol(protocol: 2 | 3) {
    this.#out.protocol = protocol;
  }

  get unreadBytes(): number {
    return this.#parser.unread;
  }

  get unsentBytes(): number {
    return this.#out.length + this.#socket.writableLength;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  wrote(frameNumber: number): void {
    if (frameNumber > this.lastFrame) this.lastFrame = frameNumber;
  }

  endAfterReplies(): void {
    this.#ending = true;
    this.#scheduleTurn();
  }

  kill(): void {
    this.#socket.destroy();
  }

  /** Starts no more commands, gives up waiting for other regions, and closes once everything is answered. */
  stop(): void {
    this.#ending = true;
    this.#abort.abort();
    this.#turn();
  }

  /** Goes on after the host was full. */
  resume(): void {
    this.#turn();
  }

  #received(chunk: Buffer): void {
    this.#host.stats.bytesIn += chunk.length;
    if (this.#ending) return;
    this.#parser.push(chunk);
    this.#turn();
  }

  #inputEnds(): void {
    this.#inputEnded = true;
    this.#turn();
  }

  #stalled(): void {
    if (this.#socket.writableLength === 0) return;
    this.#host.logger.warn(
      { client: this.address, unsent: this.unsentBytes },
      'client reads no replies: closed',
    );
    this.kill();
  }

  #onClose(): void {
    this.#closed = true;
    this.#ending = true;
    this.#blocked = null;
    this.#abort.abort();
    this.#queue.clear();
    this.#host.closed(this);
  }

  /** Settled results arrive many in a row: one turn after the last of them writes all and starts what waited. */
  #scheduleTurn(): void {
    if (this.#turnScheduled || this.#closed) return;
    this.#turnScheduled = true;
    process.nextTick(() => {
      this.#turnScheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#closed) return;
    this.#answer();
    this.#start();
    this.#answer();
    const { maxUnreadBytes } = this.#host.limits;
    if (this.#parser.unread > maxUnreadBytes && this.#waits()) this.#socket.pause();
    else if (this.#socket.isPaused()) this.#socket.resume();
    if (this.#ending && this.#queue.length === 0 && this.#inFlight === 0) this.#leave();
  }

  /** Closes our side; the client's input is thrown away until it closes its own, because closing at once could lose the last reply. */
  #leave(): void {
    if (this.#socket.writableEnded) return;
    this.#socket.end();
    this.#socket.resume();
    setTimeout(() => this.kill(), LINGER_MS).unref();
  }

  /** Says whether commands that have arrived can't be started now. */
  #waits(): boolean {
    return this.#blocked !== null || this.#throttled();
  }

  #throttled(): boolean {
    const { maxPending, maxPendingBytes, maxUnsentBytes } = this.#host.limits;
    return (
      (this.#phase === 'exclusive' && this.#inFlight > 0) ||
      this.#queue.length >= maxPending ||
      this.#queue.bytes >= maxPendingBytes ||
      (this.#phase === 'read' && this.#inFlight >= this.#readWindow) ||
      this.unsentBytes >= maxUnsentBytes ||
      this.#host.full(this)
    );
  }

  /** Writes finished replies, as much as the client takes. */
  #answer(): void {
    const out = this.#out;
    const socket = this.#socket;
    for (;;) {
      const room = this.#host.limits.maxUnsentBytes - socket.writableLength;
      if (room > 0 && this.#queue.length > 0) this.#drain(room);
      if (out.length === 0) return;
      this.#host.stats.bytesOut += out.length;
      socket.write(out.take(), this.#written);
    }
  }

  #drain(room: number): void {
    const [replies, bytes] = [this.#queue.length, this.#out.length];
    this.#queue.drain(this.#out, room, (error) => this.#unexpected(error));
    const written = replies - this.#queue.length;
    if (written === 0 || this.#phase !== 'read') return;
    const average = Math.max(1, (this.#out.length - bytes) / written);
    this.#readWindow = Math.min(MAX_READS, Math.max(MIN_READS, Math.floor(READ_AHEAD_BYTES / average)));
  }

  /** Starts commands until one has to wait or all are started. */
  #start(): void {
    try {
      while (!this.#ending && !this.#throttled()) {
        const args = this.#blocked ?? this.#parser.next();
        if (args === null) {
          if (this.#inputEnded) this.#ending = true;
          return;
        }
        this.#blocked = null;
        if (!this.#execute(args)) {
          this.#blocked = args;
          return;
        }
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#host.logger.debug({ client: this.address }, error.message);
      this.#reply((out) => out.error(error.message));
      this.#ending = true;
    }
  }

  /** Starts a command; false when it must wait for others. */
  #execute(args: ByteString[]): boolean {
    let command: Command;
    try {
      command = this.#admit(args);
    } catch (error) {
      this.#refuse(args, error);
      return true;
    }
    if (this.transaction !== null && !IMMEDIATE.has(command.name)) {
      this.#enqueue(this.transaction, command, args);
      return true;
    }
    if (command.kind !== 'local' && this.#inFlight > 0) {
      const phase = command.kind === 'get' ? 'read' : command.kind;
      if (phase !== this.#phase || phase === 'exclusive') return false;
    }
    if (command.kind === 'exclusive' && this.#queue.length > 0) {
      // It may change how replies look: those before it go first.
      this.#answer();
      if (this.#queue.length > 0) return false;
    }
    this.#host.stats.commandsProcessed += 1;
    this.lastCommand = command.name;
    this.lastCommandAtMs = Date.now();
    try {
      this.#run(command, args);
    } catch (error) {
      this.#reply(this.#errorReply(error, command.kind === 'write'));
    }
    return true;
  }

  /** Finds the command and checks what can be checked without running it. Throws CommandError. */
  #admit(args: ByteString[]): Command {
    const name = (args[0] as string).toLowerCase();
    if (HTTP.has(name)) {
      this.#host.logger.warn({ client: this.address }, 'an HTTP request came to the RESP port: closed');
      this.kill();
    }
    const command = this.#host.table.resolve(args);
    if (!this.authenticated && !command.flags.includes('no_auth')) {
      throw new CommandError('NOAUTH Authentication required.');
    }
    const loading = this.engine.refusal();
    if (loading !== null && !answersWhileLoading(command, this.transaction)) throw loading;
    refuseReserved(command, args, (key) => this.#host.isReserved(key));
    return command;
  }

  /** Answers a command that could not even be started; it breaks a MULTI. */
  #refuse(args: ByteString[], error: unknown): void {
    let told = this.#errorReply(error, false);
    if (this.transaction !== null) this.transaction.broken = true;
    if (
      (args[0] as string).toLowerCase() === 'exec' &&
      (error instanceof CommandError || error instanceof LoadingError)
    ) {
      this.transaction = null;
      const reason = describeError(error, false)!.replace(/^ERR /, '');
      told = (out) => out.error(`EXECABORT Transaction discarded because of: ${reason}`);
    }
    this.#reply(told);
  }

  #enqueue(transaction: PendingTransaction, command: Command, args: Args): void {
    const bytes = args.reduce((sum, arg) => sum + arg.length, transaction.bytes);
    if (!mayBeQueued(command)) {
      transaction.broken = true;
      this.#reply((out) => out.error('ERR Command not allowed inside a transaction'));
    } else if (
      bytes > this.#host.limits.maxPendingBytes ||
      transaction.queued.length >= this.#host.limits.maxPending
    ) {
      transaction.broken = true;
      transaction.queued.length = 0;
      this.#reply((out) => out.error('ERR the transaction is too large'));
    } else {
      transaction.queued.push({ command, args });
      transaction.bytes = bytes;
      this.#reply(QUEUED);
    }
  }

  #run(command: Command, args: ByteString[]): void {
    switch (command.kind) {
      case 'local':
        this.#reply(command.run(args, this));
        break;
      case 'write':
        this.#submit(command.plan(args, this));
        break;
      case 'get': {
        const slot = this.#begin('read');
        this.#host.stringReads.get(args[1] as ByteString, (error, value) => {
          if (error !== null) slot.reply = this.#errorReply(error, false);
          else slot.reply = (out) => out.bulkOrNil(value);
          this.#finish(slot);
        });
        break;
      }
      case 'read': {
        // Before the slot: what throws at once has none.
        const result = command.read(args, this);
        this.#await(this.#begin('read'), result, false);
        break;
      }
      case 'exclusive': {
        const result = command.run(args, this);
        this.#parser.trusted = this.authenticated;
        if (!(result instanceof Promise)) this.#reply(result);
        else this.#await(this.#begin('exclusive'), result, command.flags.includes('write'));
        break;
      }
    }
  }

  #submit(call: Call<unknown>): void {
    const slot = this.#begin('write');
    slot.call = call;
    this.engine.submit(call, slot);
  }

  /** An operation's outcome. */
  answered(slot: Slot, error: Error | null, value: unknown, frameNumber: number): void {
    if (error !== null) {
      slot.call = null;
      slot.reply = this.#errorReply(error, true);
    } else {
      slot.value = value;
      this.wrote(frameNumber);
    }
    this.#finish(slot);
  }

  #await(slot: Slot, result: Promise<Reply>, wrote: boolean): void {
    result.then(
      (reply) => {
        slot.reply = reply;
        this.#finish(slot);
      },
      (error: unknown) => {
        slot.reply = this.#errorReply(error, wrote);
        this.#finish(slot);
      },
    );
  }

  #begin(phase: Phase): Slot {
    const slot = new Slot(this, this.#takeSilence(), this.#parser.commandBytes);
    this.#queue.push(slot);
    this.#phase = phase;
    this.#inFlight += 1;
    this.#host.account(1, slot.bytes);
    return slot;
  }

  #finish(slot: Slot): void {
    if (slot.done) return;
    slot.done = true;
    this.#inFlight -= 1;
    this.#host.account(-1, -slot.bytes);
    this.#scheduleTurn();
  }

  /** Answers at once, in its turn. */
  #reply(reply: Reply | null): void {
    if (reply === null) return;
    const slot = new Slot(this, this.#takeSilence(), 0);
    slot.reply = reply;
    slot.done = true;
    this.#queue.push(slot);
    // With nothing before it, the reply need not be kept.
    if (this.#queue.length === 1)
      this.#queue.drain(this.#out, Number.POSITIVE_INFINITY, (error) => this.#unexpected(error));
  }

  #takeSilence(): boolean {
    if (this.replyMode === 'on') return false;
    if (this.replyMode === 'skip-next') this.replyMode = 'on';
    return true;
  }

  #errorReply(error: unknown, wrote: boolean): Reply {
    const told = describeError(error, wrote);
    if (told === null) this.#unexpected(error);
    return (out) => out.error(told ?? INTERNAL_ERROR);
  }

  #unexpected(error: unknown): void {
    this.#host.logger.error({ err: error, client: this.address }, 'a command failed unexpectedly');
  }
}
