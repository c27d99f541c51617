/**
 * Looks at a server's own words about itself, and says whether a region's data are safe there.
 *
 * | found | then |
 * |---|---|
 * | older than Redis 7.0 (Valkey says 7.2 or later) | refused |
 * | cluster mode, where a single server was named | refused |
 * | no cluster mode, where a cluster was named | refused |
 * | a read-only replica | refused at start; waited for after that, because a failover may be under way |
 * | maxmemory-policy allkeys-… | refused: it would drop the node's own headers, and with them what was counted; a warning if it is set while a node runs |
 * | maxmemory-policy volatile-… | warning: a key with an expiry may be missing here before its time; what is replicated stays whole |
 * | no append-only file, no snapshots | warning |
 * | one of these can't be found out | warning |
 *
 * All but the snapshots stand in INFO, which managed services allow; CONFIG is asked only about those.
 *
 * Settings can be changed while a server runs, so a connection looks again from time to time ({@link reviewServer}). What it finds then is
 * told, not refused: a store that goes away would not bring back what was evicted. A new connection refuses it.
 */
import { ConfigError, StoreRefusedError } from '../errors.js';
import { type Argument, bytesOf, listOf, type Reply, ServerReplyError } from './valkey-link.js';

/** Sends a command. Rejects with ServerReplyError or StoreRefusedError when the server refuses it. */
export type Ask = (name: string, args: readonly Argument[]) => Promise<Reply>;

/** What INFO says about a server. */
export interface ServerInfo {
  readonly version: string;
  readonly runId: string;
  readonly fields: ReadonlyMap<string, string>;
  /** What the operator should know, as sentences. */
  readonly warnings: readonly string[];
}

/** Said when the server is there but can't be used now; trying again may help. */
export class NotReadyError extends Error {
  override name = 'NotReadyError';
}

/**
 * Asks a server about itself. `mayWait`: a replica is no mistake of the operator, but a failover under way. `cluster`: it must be part of one.
 * Throws ConfigError for what only the operator can mend, {@link NotReadyError}, or the error of a lost connection.
 */
export async function inspectServer(
  ask: Ask,
  label: string,
  mayWait: boolean,
  cluster: boolean,
): Promise<ServerInfo> {
  const fields = await infoOf(ask);
  const compatible = fields.get('redis_version') ?? '0';
  if (Number.parseInt(compatible, 10) < 7) {
    throw new ConfigError(
      `the server at ${label} has version ${compatible}: use Valkey 7.2 or later, or Redis 7.0`,
    );
  }
  if (!cluster && fields.get('cluster_enabled') === '1') {
    throw new ConfigError(
      `the server at ${label} runs in cluster mode: write redis+cluster://host:port as the store's URL`,
    );
  }
  if (cluster && fields.get('cluster_enabled') !== '1') {
    throw new ConfigError(
      `the server at ${label} doesn't run in cluster mode: write redis://host:port as the store's URL`,
    );
  }
  if (fields.get('loading') === '1') throw new NotReadyError('it is still loading its data');
  if (fields.get('role') === 'slave') {
    const message = `the server at ${label} is a read-only replica: give the primary's address`;
    throw mayWait ? new NotReadyError(message) : new ConfigError(message);
  }
  if (evictsAll(fields)) throw new ConfigError(evictionWarnings(fields, label)[0]!);
  return {
    version: fields.get('valkey_version') ?? compatible,
    runId: fields.get('run_id') ?? '',
    fields,
    warnings: await warningsOf(ask, fields, label),
  };
}

/** Asks a server that is in use again; gives the warnings that hold now. Rejects as `ask` does. */
export async function reviewServer(ask: Ask, label: string): Promise<readonly string[]> {
  return warningsOf(ask, await infoOf(ask), label);
}

async function infoOf(ask: Ask): Promise<Map<string, string>> {
  const fields = new Map<string, string>();
  for (const line of String(bytesOf(await ask('INFO', []))).split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0 && !line.startsWith('#')) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

async function warningsOf(ask: Ask, fields: ReadonlyMap<string, string>, label: string): Promise<string[]> {
  return [...evictionWarnings(fields, label), ...(await persistenceWarnings(ask, fields))];
}

function evictsAll(fields: ReadonlyMap<string, string>): boolean {
  return fields.get('maxmemory_policy')?.startsWith('allkeys-') === true;
}

function evictionWarnings(fields: ReadonlyMap<string, string>, label: string): string[] {
  const policy = fields.get('maxmemory_policy');
  if (policy === undefined) {
    return ["maxmemory-policy can't be found out: make sure that it is noeviction"];
  }
  if (evictsAll(fields)) {
    return [
      `the server at ${label} has maxmemory-policy ${policy}: it may drop any key, those that hold what is replicated too; set maxmemory-policy to noeviction, and maxmemory high enough`,
    ];
  }
  if (policy === 'noeviction') return [];
  return [
    `maxmemory-policy is ${policy}: when memory is short, Valkey drops keys with an expiry before their time here, while other regions keep them; set it to noeviction`,
  ];
}

async function persistenceWarnings(ask: Ask, fields: ReadonlyMap<string, string>): Promise<string[]> {
  const lost = 'of Valkey loses';
  switch (fields.get('aof_enabled')) {
    case '1':
      return [];
    case undefined:
      return [
        "whether Valkey keeps its data over a restart can't be found out: make sure that appendonly is yes",
      ];
    default:
  }
  const save = await configured(ask, 'save');
  const advice = 'to be fetched from other regions; set appendonly yes';
  if (save === null) {
    return [
      `appendonly is off, and save can't be read (CONFIG is not allowed here): a restart ${lost} recent data, if not all, ${advice}`,
    ];
  }
  if (save === '') return [`appendonly is off and save is empty: a restart ${lost} everything, ${advice}`];
  return [`appendonly is off: a restart ${lost} recent data, ${advice}`];
}

/** A setting of the server; null when its user may not ask. */
async function configured(ask: Ask, name: string): Promise<string | null> {
  try {
    const [, value] = listOf(await ask('CONFIG', ['GET', name]));
    return bytesOf(value);
  } catch (error) {
    // Managed services forbid or rename CONFIG.
    if (error instanceof ServerReplyError || error instanceof StoreRefusedError) return null;
    throw error;
  }
}
