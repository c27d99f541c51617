/** Checks a node's options and fills in the defaults. */
import { Rules } from '../crdts/rules.js';
import { ConfigError } from './errors.js';
import { type NodeOptions, silentLogger } from './options.js';
import { systemTimers } from './timers.js';

/** Every option that has a default, filled in. */
export type CheckedOptions = ReturnType<typeof checkOptions>;

const REGION = /^[A-Za-z0-9_.-]{1,64}$/;

/** Throws ConfigError when an option is out of its range. */
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
  const mebi = 1024 * 1024;
  return {
    ...options,
    store: options.store ?? 'memory',
    rules: new Rules(options.rules),
    timers: options.timers ?? systemTimers,
    random: options.random ?? Math.random,
    logger: options.logger ?? silentLogger,
    maxDriftMs: whole('maxDriftMs', 60_000, 0, 86_400_000),
    maxValueBytes: whole('maxValueBytes', 8 * mebi, 1024, 64 * mebi),
    maxQueuedOperations: whole('maxQueuedOperations', 100_000, 1, 10_000_000),
    maxQueuedBytes: whole('maxQueuedBytes', 64 * mebi, 1024, 4096 * mebi),
    heartbeatMs: whole('heartbeatMs', 1_000, 10, 60_000),
    antiEntropyMs: whole('antiEntropyMs', 15_000, 100, 86_400_000),
    recentFramesBytes: whole('recentFramesBytes', 32 * mebi, 0, 4096 * mebi),
    heldBackBytes: whole('heldBackBytes', 32 * mebi, 65_536, 4096 * mebi),
    maxLogBytes: whole('maxLogBytes', 64 * mebi, 65_536, 65_536 * mebi),
  };
}
