/**
 * Every error that a client can see, and the one place where errors become RESP.
 *
 * | condition | reply |
 * |---|---|
 * | {@link CommandError} (syntax, arity, unknown command …) | its own text, which is Valkey's |
 * | WRONGTYPE | `WRONGTYPE Operation against a key holding the wrong kind of value` |
 * | NOT_AN_INTEGER, OVERFLOW, NOT_A_FLOAT, NOT_FINITE | `ERR` + Valkey's text |
 * | LIMIT, ARGUMENT, RULE, FLOAT_RANGE | `ERR` + message; nothing was written |
 * | STORE_REFUSED | Valkey's own prefix where it has one (`OOM`, `READONLY`, `MISCONF` …), else `ERR` (`NOAUTH`, `NOPERM` are about the node's login, not the client's); nothing was written |
 * | STORE_UNAVAILABLE, STORE_RESET on a read | `MASTERDOWN …`: clients may try again by themselves |
 * | STORE_UNAVAILABLE, STORE_RESET on a write | `STOREDOWN …`: nobody knows whether it took effect. No client library repeats a command because of an unknown prefix, so an INCR isn't counted twice behind the user's back |
 * | LOADING | `LOADING …`, as from a Valkey that loads its data at start: clients wait and try again by themselves; nothing was written |
 * | STOPPED | `ERR this node is shutting down` |
 * | anything else | `ERR internal error`, and a log entry |
 */
import { MeshError } from '../errors.js';

/** An error reply with its prefix, as sent: `ERR syntax error`. */
export class CommandError extends MeshError {
  constructor(reply: string) {
    super('COMMAND', reply);
  }
}

/** Thrown by the parser: what arrived isn't RESP. The connection is closed after the reply. */
export class ProtocolError extends MeshError {
  constructor(reason: string) {
    super('PROTOCOL', `ERR Protocol error: ${reason}`);
  }
}

export const syntaxError = (): CommandError => new CommandError('ERR syntax error');
export const notAnInteger = (): CommandError =>
  new CommandError('ERR value is not an integer or out of range');
export const invalidExpire = (command: string): CommandError =>
  new CommandError(`ERR invalid expire time in '${command}' command`);
export const wrongArity = (command: string): CommandError =>
  new CommandError(`ERR wrong number of arguments for '${command}' command`);

/** Valkey builds messages with C strings, which end at the first zero byte. */
export function cString(value: string, maxLength = Number.POSITIVE_INFINITY): string {
  const end = value.indexOf('\0');
  const length = Math.min(end === -1 ? value.length : end, maxLength);
  return length === value.length ? value : value.slice(0, length);
}

const STORE_PREFIX = /^(ERR|OOM|READONLY|MISCONF|NOREPLICAS|LOADING|BUSY|TRYAGAIN|CLUSTERDOWN) /;

/** Gives the reply line (without `-`) for an error; null when it is unexpected, so that the caller logs it. */
export function describeError(error: unknown, wrote: boolean): string | null {
  if (!(error instanceof MeshError)) return null;
  switch (error.code) {
    case 'COMMAND':
    case 'PROTOCOL':
      return error.message;
    case 'WRONGTYPE':
      return `WRONGTYPE ${error.message}`;
    case 'NOT_AN_INTEGER':
    case 'OVERFLOW':
    case 'NOT_A_FLOAT':
    case 'NOT_FINITE':
    case 'FLOAT_RANGE':
    case 'LIMIT':
    case 'RULE':
    case 'ARGUMENT':
      return `ERR ${error.message}`;
    case 'STORE_REFUSED':
      return STORE_PREFIX.test(error.message) ? error.message : `ERR ${error.message}`;
    case 'STORE_UNAVAILABLE':
    case 'STORE_RESET':
      return wrote
        ? `STOREDOWN it is unknown whether this write took effect: ${error.message}`
        : `MASTERDOWN ${error.message}`;
    case 'LOADING':
      return `LOADING ${error.message}`;
    case 'STOPPED':
      return 'ERR this node is shutting down';
    default:
      return null;
  }
}

/** What a client is told about an error that nobody foresaw. */
export const INTERNAL_ERROR = 'ERR internal error';
