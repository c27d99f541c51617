/**
 * Looks at a server's own words about itself, and says whether a region's data are safe there.
 *
 * | found | then |
 * |---|---|
 * | older than Redis 7.0 (Valkey says 7.2 or later) | refused |
 * | cluster mode, where a single server was named | refused |
 * | no cluster mode, where a cluster was named | refused |
 * | a read-only replica | refused at start; waited for after that, because a failover may be under way |
 * | maxmemory-policy allkeys-… | refused: it would drop the node's own headers, and with them what was counted |
 * | maxmemory-policy volatile-… | warning: a key with an expiry may be missing here before its time; what is replicated stays whole |
 * | no append-only file, no snapshots | warning |
 * | one of these can't be found out | warning |
 *
 * All but the snapshots stand in INFO, which managed services allow; CONFIG is asked only about those.
 */
import { ConfigError } from '../errors.js';
import { bytesOf, listOf, ServerReplyError, type ValkeyLink } from './valkey-link.js';

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
  link: ValkeyLink,
  label: string,
  mayWait: boolean,
  cluster: boolean,
): Promise<ServerInfo> {
  const fields = new Map<string, string>();
  for (const line of String(bytesOf(await link.send('INFO', []))).split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0 && !line.startsWith('#')) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
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
  const warnings = [...evictionWarnings(fields, label), ...(await persistenceWarnings(link, fields))];
  return {
    version: fields.get('valkey_version') ?? compatible,
    runId: fields.get('run_id') ?? '',
    fields,
    warnings,
  };
}

function evictionWarnings(fields: ReadonlyMap<string, string>, label: string): string[] {
  const policy = fields.get('maxmemory_policy');
  if (policy === undefined) {
    return ["maxmemory-policy can't be found out: make sure that it is noeviction"];
  }
  if (policy.startsWith('allkeys-')) {
    throw new ConfigError(
      `the server at ${label} has maxmemory-policy ${policy}: it may drop any key, those that hold what is replicated too; set maxmemory-policy to noeviction, and maxmemory high enough`,
    );
  }
  if (policy === 'noeviction') return [];
  return [
    `maxmemory-policy is ${policy}: when memory is short, Valkey drops keys with an expiry before their time here, while other regions keep them; set it to noeviction`,
  ];
}

async function persistenceWarnings(link: ValkeyLink, fields: ReadonlyMap<string, string>): Promise<string[]> {
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
  const save = await configured(link, 'save');
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
async function configured(link: ValkeyLink, name: string): Promise<string | null> {
  try {
    const [, value] = listOf(await link.send('CONFIG', ['GET', name]));
    return bytesOf(value);
  } catch (error) {
    // Managed services forbid or rename CONFIG.
    if (error instanceof ServerReplyError) return null;
    throw error;
  }
}
