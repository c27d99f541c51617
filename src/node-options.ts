/** Checks a node's options and fills in the defaults. */
import { Rules } from '../crdts/rules.js';
import { ArgumentError, ConfigError } from './errors.js';
import { type NodeOptions, silentLogger } from './options.js';
import { systemTimers } from './timers.js';

/** Every option that has a default, filled in. */
export type CheckedOptions = ReturnType<typeof checkOptions>;

const REGION = /^[A-Za-z0-9_.-]{1,64}$/;

function checkRules(rules: NodeOptions['rules']): Rules {
  if (rules !== undefined && !Array.isArray(rules))
    throw new ConfigError('rules must be an array of { pattern, type, policy }');
  try {
    return new Rules(rules);
  } catch (cause) {
    if (cause instanceof ArgumentError) throw new ConfigError(cause.message, { cause });
    throw new ConfigError(`rules must be an array of { pattern, type, policy }: ${String(cause)}`, { cause });
  }
}

function isStoreOrServer(store: unknown): boolean {
  if (typeof store !== 'object' || store === null) return false;
  if ('open' in store) return typeof store.open === 'function';
  return ['host', 'port', 'path', 'sentinels'].some((name) => name in store);
}

/** Throws ConfigError when an option is not of its form, or out of its range. */
export function checkOptions(options: NodeOptions) {
  if (typeof options?.region !== 'string' || !REGION.test(options.region)) {
    throw new ConfigError(
      `region ${JSON.stringify(options?.region)} must be 1 to 64 characters of A-Z a-z 0-9 _ . -`,
    );
  }
  const whole = (name: keyof NodeOptions, fallback: number, min: number, max: number): number => {
    const value = options[name] ?? fallback;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new ConfigError(`${name} ${String(value)} must be a whole number from ${min} to ${max}`);
    }
    return value;
  };
  for (const name of ['listen', 'announce', 'peers', 'allow'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && !(Array.isArray(value) && value.every((item) => typeof item === 'string')))
      throw new ConfigError(`${name} must be an array of strings`);
  }
  for (const name of ['identity', 'meshKey'] as const) {
    if (options[name] !== undefined && !(options[name] instanceof Uint8Array))
      throw new ConfigError(`${name} must be a Uint8Array: the bytes of the file that keygen wrote`);
  }
  const { store } = options;
  if (store !== undefined && typeof store !== 'string' && !isStoreOrServer(store))
    throw new ConfigError(
      "store must be 'memory', the URL of a Valkey server, an object with its host, path or sentinels, or a store",
    );
  if (options.mesh !== undefined && typeof options.mesh?.request !== 'function')
    throw new ConfigError('mesh must be a mesh: leave it out for the libp2p one');
  const { whileLoading = 'refuse' } = options;
  if (whileLoading !== 'refuse' && whileLoading !== 'serve')
    throw new ConfigError(`whileLoading ${JSON.stringify(whileLoading)} must be 'refuse' or 'serve'`);
  const mebi = 1024 * 1024;
  return {
    ...options,
    store: options.store ?? 'memory',
    rules: checkRules(options.rules),
    timers: options.timers ?? systemTimers,
    random: options.random ?? Math.random,
    logger: options.logger ?? silentLogger,
    maxDriftMs: whole('maxDriftMs', 60_000, 0, 86_400_000),
    maxClockOffsetMs: whole('maxClockOffsetMs', 1_000, 1, 86_400_000),
    maxValueBytes: whole('maxValueBytes', 8 * mebi, 1024, 64 * mebi),
    maxQueuedOperations: whole('maxQueuedOperations', 100_000, 1, 10_000_000),
    maxQueuedBytes: whole('maxQueuedBytes', 64 * mebi, 1024, 4096 * mebi),
    heartbeatMs: whole('heartbeatMs', 1_000, 10, 60_000),
    tombstoneGraceMs: whole('tombstoneGraceMs', 60_000, 0, 86_400_000),
    antiEntropyMs: whole('antiEntropyMs', 15_000, 100, 86_400_000),
    bigSetMembers: whole('bigSetMembers', 1_024, 2, 1_000_000_000),
    whileLoading,
    loadingPatienceMs: whole('loadingPatienceMs', 30_000, 0, 86_400_000),
    recentFramesBytes: whole('recentFramesBytes', 32 * mebi, 0, 4096 * mebi),
    heldBackBytes: whole('heldBackBytes', 32 * mebi, 65_536, 4096 * mebi),
    maxLogBytes: whole('maxLogBytes', 64 * mebi, 65_536, 65_536 * mebi),
  };
}
