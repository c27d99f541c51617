/** What happens on a fresh connection before anything else is sent: log in, look at the server, load the scripts, begin a session. */
import type { ByteString } from '../../crdts/bytes.js';
import { ConfigError } from '../errors.js';
import { CLUSTER_ONLY_SCRIPTS, CLUSTER_SCRIPTS, inCluster } from './cluster-scripts.js';
import {
  BEGIN_SCRIPT,
  COMMIT_SCRIPT,
  DIGESTS_SCRIPT,
  FRAMES_SCRIPT,
  HEADERS_SCRIPT,
  IDENTITY_SCRIPT,
  NAMES_SCRIPT,
  NOTES_SCRIPT,
  REMOVE_SCRIPT,
  RETIRE_SCRIPT,
  STRINGS_SCRIPT,
  TRIM_SCRIPT,
} from './commit-script.js';
import { READ_SCRIPT, SCAN_ENTRIES_SCRIPT } from './entry-scripts.js';
import type { StoredIdentity } from './store.js';
import type { ServerAddress } from './valkey-address.js';
import { BEGIN_CLEAR_SCRIPT } from './valkey-clear.js';
import { loginProblem, tlsProblem } from './valkey-errors.js';
import { nodeField, nodeRecord } from './valkey-facts.js';
import { inspectServer, NotReadyError, type ServerInfo } from './valkey-health.js';
import {
  type Argument,
  argument,
  bytesOf,
  listOf,
  numberOf,
  type Reply,
  ServerReplyError,
  type ValkeyLink,
} from './valkey-link.js';

const SINGLE_SCRIPTS = {
  commit: COMMIT_SCRIPT,
  remove: REMOVE_SCRIPT,
  identity: IDENTITY_SCRIPT,
  notes: NOTES_SCRIPT,
  retire: RETIRE_SCRIPT,
  clear: BEGIN_CLEAR_SCRIPT,
  trim: TRIM_SCRIPT,
  frames: FRAMES_SCRIPT,
  read: READ_SCRIPT,
  scanEntries: SCAN_ENTRIES_SCRIPT,
  strings: STRINGS_SCRIPT,
  digests: DIGESTS_SCRIPT,
  headers: HEADERS_SCRIPT,
  names: NAMES_SCRIPT,
} as const;

/** Names of the scripts that a connection may call. The last ones exist in a cluster only. */
export type ScriptName = keyof typeof SINGLE_SCRIPTS | keyof typeof CLUSTER_ONLY_SCRIPTS;

/** Texts of our scripts: those that begin a session and those that are called by name. */
function scriptsFor(cluster: boolean): { readonly begin: string; readonly named: [ScriptName, string][] } {
  if (!cluster)
    return { begin: BEGIN_SCRIPT, named: Object.entries(SINGLE_SCRIPTS) as [ScriptName, string][] };
  const changed = Object.entries(SINGLE_SCRIPTS).map(([name, text]) => [name, inCluster(text)]);
  const named = Object.entries({
    ...Object.fromEntries(changed),
    ...CLUSTER_SCRIPTS,
    ...CLUSTER_ONLY_SCRIPTS,
  });
  return { begin: inCluster(BEGIN_SCRIPT), named: named as [ScriptName, string][] };
}

/** Whom a session is for, and what it must find. */
export interface SessionRequest {
  readonly writer: ByteString;
  readonly session: number;
  /** The session before; 0 when this is the first. */
  readonly previousSession: number;
  /** The dataset that must be there; null when opening. */
  readonly dataset: ByteString | null;
  /** Name for a new dataset. */
  readonly newDataset: ByteString;
  /** Stored again, in case the server lost it. */
  readonly identity: StoredIdentity | null;
}

/** A session that began. */
export interface Session {
  /** How many commits of the previous session took effect. */
  readonly previousDone: number;
  /** The hash of facts. */
  readonly facts: ReadonlyMap<string, ByteString>;
  readonly info: ServerInfo;
  readonly shas: ReadonlyMap<ScriptName, string>;
  /** How many keys a call of a script declares, and which. */
  readonly keys: readonly Argument[];
}

/** Said when the server doesn't hold what it should. */
export class DataLostError extends Error {
  override name = 'DataLostError';
}

/**
 * Prepares a fresh connection.
 *
 * Throws ConfigError for what only the operator can mend, {@link DataLostError}, {@link NotReadyError}, or the error of a lost connection.
 */
export async function beginSession(
  link: ValkeyLink,
  address: ServerAddress,
  request: SessionRequest,
): Promise<Session> {
  const { login, db, label } = address;
  const { username, password } = login;
  try {
    if (password !== null) await link.send('AUTH', username === null ? [password] : [username, password]);
    // Sentinels may still name the old primary; and while a node runs, a failover may make a replica the primary in a moment.
    const cluster = 'find' in address.at;
    const mayWait = cluster || 'places' in address.at || request.dataset !== null;
    const info = await inspectServer((name, args) => link.send(name, args), label, mayWait, cluster);
    if (db !== 0) await selectDb(link, db, label);

    const { begin, named } = scriptsFor(cluster);
    const loaded = await Promise.all(named.map(([, text]) => link.send('SCRIPT', ['LOAD', text])));
    const shas = new Map(named.map(([name], i) => [name, String(bytesOf(loaded[i]))]));
    const keys: Argument[] = 'find' in address.at ? ['1', argument(address.at.meta)] : ['0'];

    const { identity } = request;
    const args: Argument[] = [
      begin,
      ...keys,
      argument(request.writer),
      String(request.session),
      String(request.previousSession),
      argument(request.dataset ?? ('' as ByteString)),
      argument(request.newDataset),
      identity === null ? '' : nodeField(identity.peerId),
      identity === null ? '' : nodeRecord(identity, info, request.writer),
    ];
    const reply = await link.send('EVAL', args);
    if (!Array.isArray(reply)) throw refusedBegin(reply, address);
    const flat = listOf(reply[1]);
    const facts = new Map<string, ByteString>();
    for (let i = 0; i < flat.length; i += 2) {
      facts.set(bytesOf(flat[i]) ?? '', bytesOf(flat[i + 1]) ?? ('' as ByteString));
    }
    return { previousDone: numberOf(reply[0]), facts, info, shas, keys };
  } catch (error) {
    throw loginProblem(error, label) ?? tlsProblem(link.lastError, label) ?? error;
  }
}

async function selectDb(link: ValkeyLink, db: number, label: string): Promise<void> {
  try {
    await link.send('SELECT', [String(db)]);
  } catch (error) {
    if (!(error instanceof ServerReplyError) || !/out of range/.test(error.message)) throw error;
    throw new ConfigError(
      `Valkey at ${label} has no database ${db}: correct the number in the store's URL, or raise its setting databases`,
      { cause: error },
    );
  }
}

function refusedBegin(reply: Reply, address: ServerAddress): Error {
  const text = bytesOf(reply) ?? '';
  if (text === 'LOST') return new DataLostError('the data of this store is gone');
  if (text.startsWith('NOPERM')) {
    const command = text.slice('NOPERM '.length);
    return new ConfigError(
      `the user of Valkey at ${address.label} may not call ${command} on every key: allow all commands on all keys (+@all ~*)`,
    );
  }
  return new NotReadyError(`another session of this store has begun (${text})`);
}
