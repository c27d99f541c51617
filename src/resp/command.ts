/**
 * What a command is. Each command of the front door is one entry of a table (see commands/), of one of five kinds, which
 * say when it may run beside the other commands of its connection:
 *
 * - `write`: an operation. Consecutive writes don't wait for each other.
 * - `read`: asks the store itself. Consecutive reads don't wait for each other, but for earlier writes, and later writes wait for them.
 * - `get`: a read of one string, joined with those of all connections into one question to the store.
 * - `local`: needs neither store nor connection state; never waits. Only its reply does.
 * - `exclusive`: waits for everything before it, and everything after waits for it.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { Engine } from '../engine.js';
import { WrongTypeError } from '../errors.js';
import type { Need, Operation, Transaction } from '../replica/operation.js';
import { WRONG_TYPE, type WrongType } from '../store/store.js';
import type { ReplyWriter } from './encoder.js';
import { CommandError } from './errors.js';
import type { Session } from './session.js';

/** A command's arguments, the name first. */
export type Args = readonly ByteString[];

/** Writes one reply. */
export type Reply = (out: ReplyWriter) => void;

/** An operation that knows how to tell its result. */
export interface Call<T> extends Operation<T> {
  reply(out: ReplyWriter, value: T): void;
}

/** Valkey's names for what a command is like, as COMMAND INFO gives them. */
export type Flag =
  | 'write'
  | 'readonly'
  | 'denyoom'
  | 'fast'
  | 'admin'
  | 'noscript'
  | 'loading'
  | 'stale'
  | 'no_auth'
  | 'no_multi'
  | 'allow_busy';

export type Group = 'connection' | 'generic' | 'string' | 'set' | 'server' | 'transactions' | 'mesh';

interface Entry {
  /** In small letters; a subcommand is `client|id`. */
  readonly name: string;
  /** Valkey's convention: 2 = the name and one argument; -2 = at least that. A subcommand counts both words. */
  readonly arity: number;
  readonly flags: readonly Flag[];
  readonly group: Group;
  /** Where its keys are: first, last (negative: from the end) and step. Default: no keys. */
  readonly keys?: readonly [first: number, last: number, step: number];
  readonly summary: string;
}

/** Arguments that a MULTI collects become calls of one operation when EXEC comes; a command without `within` is refused in a MULTI. */
interface Within {
  readonly within?: (args: Args, session: Session) => Call<unknown>;
}

export interface WriteCommand extends Entry {
  readonly kind: 'write';
  /** Throws CommandError when the arguments make no sense. */
  readonly plan: (args: Args, session: Session) => Call<unknown>;
}

export interface ReadCommand extends Entry, Within {
  readonly kind: 'read';
  readonly read: (args: Args, session: Session) => Promise<Reply>;
}

export interface GetCommand extends Entry, Within {
  readonly kind: 'get';
}

export interface LocalCommand extends Entry {
  readonly kind: 'local';
  readonly run: (args: Args, session: Session) => Reply;
}

export interface ExclusiveCommand extends Entry, Within {
  readonly kind: 'exclusive';
  /** Null: no reply at all. */
  readonly run: (args: Args, session: Session) => Reply | null | Promise<Reply>;
}

export type Command = WriteCommand | ReadCommand | GetCommand | LocalCommand | ExclusiveCommand;

/** Makes a call of its three parts. */
export function call<T>(
  needs: readonly Need[],
  run: (tx: Transaction) => T,
  reply: (out: ReplyWriter, value: T) => void,
): Call<T> {
  return { needs, run, reply };
}

/** Needs of several keys, each named once however often it is among the arguments. */
export function needsOf(keys: readonly ByteString[], value: boolean): Need[] {
  if (keys.length === 1) return [{ key: keys[0] as ByteString, value }];
  return Array.from(new Set(keys), (key) => ({ key, value }));
}

/** What a native read found, or WrongTypeError. */
export function typed<T>(found: T | WrongType): Exclude<T, WrongType> {
  if (found === WRONG_TYPE) throw new WrongTypeError();
  return found as Exclude<T, WrongType>;
}

/** A string over the bound would be refused by the node after it had been built; this says so before. */
export function checkLength(engine: Engine, length: number): void {
  if (length > engine.maxValueBytes) {
    throw new CommandError(`ERR string exceeds maximum allowed size of ${engine.maxValueBytes} bytes`);
  }
}
