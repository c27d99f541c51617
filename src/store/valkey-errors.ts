/** Turns what a server refuses into errors that say what to do. */
import { ConfigError, StoreRefusedError } from '../errors.js';
import { ServerReplyError } from './valkey-link.js';

const ADVICE: readonly (readonly [prefix: string, advice: string])[] = [
  ['OOM', 'raise its maxmemory, or delete keys'],
  ['READONLY', 'it is a read-only replica now: connect to the primary'],
  ['MISCONF', "it can't write to its disk: see its log"],
  ['LOADING', 'it is still loading its data: try again shortly'],
  ['NOAUTH', "give its password in the store's URL"],
  ['WRONGPASS', "correct the password in the store's URL"],
  ['NOPERM', 'its user lacks a permission: allow all commands on all keys (+@all ~*)'],
  ['NOREPLICAS', 'too few of its replicas are in step: see min-replicas-to-write'],
  ['MASTERDOWN', 'it is a replica that lost its primary: connect to the primary'],
  ['BUSY', 'a script of someone else keeps it busy: SCRIPT KILL ends that'],
];

/** The error for a reply that refuses a command; nothing was written. */
export function refused(error: ServerReplyError, label: string): StoreRefusedError {
  const advice = ADVICE.find(([prefix]) => error.message.startsWith(prefix))?.[1];
  const text = `Valkey at ${label} refused: ${error.message}`;
  return new StoreRefusedError(advice === undefined ? text : `${text} (${advice})`, { cause: error });
}

const LOGIN = ['WRONGPASS', 'NOAUTH', 'NOPERM'];

/** The error for a refused login, which no retry mends; null when the reply says something else. */
export function loginProblem(error: unknown, label: string): ConfigError | null {
  if (!(error instanceof ServerReplyError)) return null;
  if (LOGIN.some((prefix) => error.message.startsWith(prefix)) || /\bAUTH\b/.test(error.message)) {
    return new ConfigError(
      `Valkey at ${label} refused the login: ${error.message} (check user and password in the store's URL)`,
      { cause: error },
    );
  }
  return null;
}
