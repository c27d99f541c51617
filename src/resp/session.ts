/** What commands see of their connection, and of the front door that it came through. */
import type { ByteString } from '../../crdts/bytes.js';
import type { Engine } from '../engine.js';
import type { Args, Command } from './command.js';
import type { CommandTable } from './dispatch.js';

/** What the front door counts; INFO shows it. */
export interface DoorStats {
  commandsProcessed: number;
  connectionsReceived: number;
  connectionsRejected: number;
  bytesIn: number;
  bytesOut: number;
}

/** The front door as its commands see it. */
export interface Door {
  readonly engine: Engine;
  readonly table: CommandTable;
  readonly stats: DoorStats;
  readonly maxClients: number;
  readonly port: number;
  readonly startedAtMs: number;
  readonly passwordRequired: boolean;
  /** The connections that are open, in the order in which they came. */
  sessions(): Iterable<Session>;
  /** Compares in a time that says nothing about the password. */
  passwordMatches(password: ByteString): boolean;
}

/** A command that waits for EXEC. */
export interface Queued {
  readonly command: Command;
  readonly args: Args;
}

/** A MULTI that hasn't come to its EXEC. */
export interface PendingTransaction {
  readonly queued: Queued[];
  /** Bytes of the arguments that wait. */
  bytes: number;
  /** A command could not be queued: EXEC will refuse. */
  broken: boolean;
}

/** What CLIENT REPLY asked for. */
export type ReplyMode = 'on' | 'off' | 'skip-next';

/** One connection. */
export interface Session {
  readonly id: number;
  readonly door: Door;
  readonly engine: Engine;
  readonly address: string;
  readonly localAddress: string;
  readonly connectedAtMs: number;
  readonly lastCommandAtMs: number;
  readonly lastCommand: string;
  readonly unreadBytes: number;
  readonly unsentBytes: number;
  /** Aborted when the connection is gone, or the door is closing. */
  readonly signal: AbortSignal;
  /** The number of the frame with this connection's last write; 0 = it hasn't written. */
  readonly lastFrame: number;
  protocol: 2 | 3;
  authenticated: boolean;
  name: ByteString;
  libName: ByteString;
  libVersion: ByteString;
  noEvict: boolean;
  noTouch: boolean;
  replyMode: ReplyMode;
  transaction: PendingTransaction | null;
  /** Raises {@link lastFrame}. */
  wrote(frameNumber: number): void;
  /** Closes the connection once everything up to now has been answered. */
  endAfterReplies(): void;
  /** Closes it now. */
  kill(): void;
}
