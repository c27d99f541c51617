/**
 * `valkey-mesh peer`: one region's node, with its RESP door and, if asked for, its HTTP door, until it is told to stop.
 *
 * Standard output carries one line, when its doors are open: {@link ReadyLine} as JSON. The log goes to standard error.
 */

import type { RuleOptions } from '../../crdts/rules.js';
import { type PeerConfig, redactUrl } from '../config.js';
import { ConfigError, MeshError } from '../errors.js';
import { createIdentity, readIdentity, readMeshKey } from '../mesh/identity.js';
import { createNode, type MeshNode } from '../node.js';
import { startHttp } from '../ops/http.js';
import type { Logger, NodeOptions } from '../options.js';
import { startFrontDoor } from '../resp/front-door.js';
import { type Address, isLoopbackHost } from './address.js';
import { fileExists, readSecretFile, writeSecretFile } from './files.js';
import { createLog } from './log.js';
import { ProgressLine } from './progress.js';
import { loadRules } from './rule.js';
import { StartError } from './start-error.js';
import { stopRequest } from './stop-request.js';

/** What a peer prints when its doors are open. It may be loading then: /readyz and MESH STATUS say when it isn't any more. */
export interface ReadyLine {
  readonly peerId: string;
  readonly region: string;
  /** Where other peers can dial it. */
  readonly multiaddrs: readonly string[];
  readonly resp: Address;
  readonly http: Address | null;
  /** The store's URL, without its password. */
  readonly store: string;
  readonly pid: number;
}

/** How long a stop may take; then what is left is dropped, as in a crash. */
const STOP_LIMIT_MS = 15_000;

/** A part of the running peer that has to be stopped. */
interface Part {
  readonly name: string;
  stop(): Promise<void>;
}

/**
 * Runs a peer until a signal comes (or, with `exitWithParent`, until standard input ends); gives the exit code.
 * Throws ConfigError for a file that can't be used, StartError when something doesn't start.
 */
export async function runPeer(config: PeerConfig, exitWithParent: boolean): Promise<number> {
  const progress = new ProgressLine(process.stderr);
  const logger = progress.around(createLog(config.logLevel, { region: config.region }));
  const secrets = await readSecrets(config, logger);
  const rules = await loadRules(config.rules);
  const { asked } = stopRequest({ onStdinEnd: exitWithParent });
  process.on('uncaughtException', (err) => {
    logger.error({ err }, 'crashed; please report this');
    process.exit(1);
  });
  const parts: Part[] = [];
  try {
    const ready = await start(config, secrets, rules, logger, parts, progress);
    process.stdout.write(`${JSON.stringify(ready)}\n`);
    logger.info({ ...ready }, 'ready');
  } catch (error) {
    await stopParts(parts, logger);
    if (error instanceof MeshError) throw new StartError(error.message, { cause: error });
    throw error;
  }
  const reason = await asked;
  logger.info({ reason }, 'stopping');
  const clean = await stopParts(parts, logger);
  logger.info({ clean }, 'stopped');
  return clean ? 0 : 1;
}

async function start(
  config: PeerConfig,
  secrets: Secrets,
  rules: readonly RuleOptions[],
  logger: Logger,
  parts: Part[],
  progress: ProgressLine,
): Promise<ReadyLine> {
  const options: NodeOptions = {
    region: config.region,
    store: config.store,
    listen: config.listen,
    ...(config.announce && { announce: config.announce }),
    peers: config.peers,
    rules,
    identity: secrets.identity,
    ...(secrets.meshKey && { meshKey: secrets.meshKey }),
    ...(config.allow && { allow: config.allow }),
    whileLoading: config.whileLoading,
    loadingPatienceMs: config.loadingPatienceMs,
    tombstoneGraceMs: config.tombstoneGraceMs,
    logger,
  };
  const node: MeshNode = await createNode(options);
  parts.push({ name: 'node', stop: () => node.stop() });
  progress.follow(() => node.status().loading);
  parts.push({ name: 'progress', stop: async () => progress.stop() });
  const { host, port } = config.resp;
  const password = secrets.respPassword;
  const resp = await startFrontDoor({
    engine: node.engine,
    host,
    port,
    logger,
    ...(password !== null && { password }),
  });
  parts.push({ name: 'RESP', stop: () => resp.stop() });
  let http: Address | null = null;
  if (config.http !== null) {
    const door = await startHttp({ engine: node.engine, ...config.http, logger });
    parts.push({ name: 'HTTP', stop: () => door.stop() });
    http = { host: config.http.host, port: door.port };
  }
  return {
    peerId: node.peerId,
    region: config.region,
    multiaddrs: node.addresses(),
    resp: { host, port: resp.port },
    http,
    store: redactUrl(config.store),
    pid: process.pid,
  };
}

/** Stops the parts in the reverse order of their start, so that the doors are shut before the node behind them goes. */
async function stopParts(parts: readonly Part[], logger: Logger): Promise<boolean> {
  let clean = true;
  const all = (async () => {
    for (const part of parts.toReversed()) {
      await part.stop().catch((err: unknown) => {
        clean = false;
        logger.error({ err, part: part.name }, 'did not stop cleanly');
      });
    }
  })();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      clean = false;
      logger.error({ limitMs: STOP_LIMIT_MS }, 'took too long to stop: gave up');
      resolve();
    }, STOP_LIMIT_MS);
  });
  await Promise.race([all, late]);
  clearTimeout(timer);
  return clean;
}

interface Secrets {
  readonly identity: Uint8Array;
  readonly meshKey: Uint8Array | null;
  readonly respPassword: string | null;
}

async function readSecrets(config: PeerConfig, logger: Logger): Promise<Secrets> {
  let meshKey: Uint8Array | null = null;
  if (config.meshKeyFile !== null) {
    const advice = "make it once with 'valkey-mesh keygen --mesh-key FILE', and copy it to every member";
    const path = config.meshKeyFile;
    const bytes = await readSecretFile('--mesh-key', path, advice, logger);
    meshKey = checked('--mesh-key', path, () => readMeshKey(bytes));
  }
  let respPassword: string | null = null;
  if (config.respPasswordFile !== null) {
    const bytes = await readSecretFile(
      '--resp-password',
      config.respPasswordFile,
      'write the password into it',
      logger,
    );
    respPassword = bytes.toString('utf8').replace(/\r?\n$/, '');
    if (respPassword === '')
      throw new ConfigError(
        `--resp-password ${config.respPasswordFile}: is empty; write the password into it`,
      );
  }
  if (config.http !== null && !isLoopbackHost(config.http.host)) {
    logger.warn(
      { http: config.http },
      'the HTTP door has no password; whoever can reach it can read the status',
    );
  }
  return { identity: await identity(config, logger), meshKey, respPassword };
}

/** A peer whose identity file is missing makes one: a container starts with an empty volume and must come up. */
async function identity(config: PeerConfig, logger: Logger): Promise<Uint8Array> {
  const path = config.identityFile;
  if (path === null) {
    logger.warn(
      {},
      'no --identity: this peer has another PeerId at each start, so no allow-list can name it',
    );
    return createIdentity().bytes;
  }
  if (!(await fileExists(path))) {
    const created = createIdentity();
    await writeSecretFile('--identity', path, created.bytes);
    logger.info({ path, peerId: created.peerId }, 'made a new identity, because the file was missing');
    return created.bytes;
  }
  const bytes = await readSecretFile(
    '--identity',
    path,
    "make it with 'valkey-mesh keygen --out FILE'",
    logger,
  );
  checked('--identity', path, () => readIdentity(bytes));
  return bytes;
}

/** Runs a check of a file's content; its ConfigError then names the flag and the file. */
function checked<T>(flag: string, path: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${flag} ${path}: ${error.message}`, { cause: error });
  }
}
