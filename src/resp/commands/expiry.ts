/** When keys expire: EXPIRE and its relatives, TTL and its relatives, PERSIST. */
import type { ByteString } from '../../../crdts/bytes.js';
import { type Args, type Command, call } from '../command.js';
import { CommandError, cString } from '../errors.js';
import { deadlineOf, TIME_UNITS, type TimeUnit } from '../expiry-options.js';
import { integerReply, writeBoolean, writeInteger } from '../replies.js';

const KEY = [1, 1, 1] as const;

const keyOf = (args: Args): ByteString => args[1] as ByteString;

interface Conditions {
  nx: boolean;
  xx: boolean;
  gt: boolean;
  lt: boolean;
}

function parseConditions(args: Args): Conditions {
  const given: Conditions = { nx: false, xx: false, gt: false, lt: false };
  for (const option of args.slice(3)) {
    const name = option.toLowerCase();
    if (name !== 'nx' && name !== 'xx' && name !== 'gt' && name !== 'lt') {
      throw new CommandError(`ERR Unsupported option ${cString(option)}`);
    }
    given[name] = true;
  }
  if (given.nx && (given.xx || given.gt || given.lt)) {
    throw new CommandError('ERR NX and XX, GT or LT options at the same time are not compatible');
  }
  if (given.gt && given.lt) {
    throw new CommandError('ERR GT and LT options at the same time are not compatible');
  }
  return given;
}

/** Says whether the conditions let a deadline replace the current one (null = none, which counts as never). */
function permits({ nx, xx, gt, lt }: Conditions, current: number | null, next: number): boolean {
  if (nx && current !== null) return false;
  if (xx && current === null) return false;
  if (gt && (current === null || next <= current)) return false;
  return !(lt && current !== null && next >= current);
}

function expire(name: string, unit: TimeUnit, summary: string): Command {
  return {
    name,
    kind: 'write',
    arity: -3,
    flags: ['write', 'fast'],
    group: 'generic',
    keys: KEY,
    summary,
    plan: (args, { engine }) => {
      const key = keyOf(args);
      const conditions = parseConditions(args);
      const time = args[2] as ByteString;
      // So that nonsense is refused without an operation.
      deadlineOf(time, unit, engine.now(), name, true);
      return call(
        // The new deadline travels with the value, which may have expired elsewhere by the old one.
        [{ key, value: true }],
        (tx) => {
          const deadline = deadlineOf(time, unit, tx.nowMs, name, true);
          const current = tx.deadline(key);
          if (current === undefined || !permits(conditions, current, deadline)) return false;
          if (deadline > tx.nowMs) tx.expire(key, deadline);
          else tx.delete(key);
          return true;
        },
        writeBoolean,
      );
    },
  };
}

/** Tells a deadline as a number; -1 and -2 stand for no expiry and no key. */
function deadlineQuery(
  name: string,
  summary: string,
  tell: (deadline: number, nowMs: number) => number,
): Command {
  const answer = (deadline: number | null | undefined, nowMs: number): number => {
    if (deadline === undefined) return -2;
    return deadline === null ? -1 : tell(deadline, nowMs);
  };
  return {
    name,
    kind: 'read',
    arity: 2,
    flags: ['readonly', 'fast'],
    group: 'generic',
    keys: KEY,
    summary,
    read: async (args, { engine }) => {
      const [deadline] = await engine.reads.deadlines([keyOf(args)]);
      return integerReply(answer(deadline, engine.now()));
    },
    within: (args) => {
      const key = keyOf(args);
      return call([{ key }], (tx) => answer(tx.deadline(key), tx.nowMs), writeInteger);
    },
  };
}

const unitOf = (option: string): TimeUnit => TIME_UNITS.get(option) as TimeUnit;
/** Rounded to the nearest second, as in Valkey. */
const inSeconds = (ms: number): number => Math.floor((ms + 500) / 1000);

export const expiryCommands: readonly Command[] = [
  expire('expire', unitOf('EX'), 'Sets the expiration time of a key in seconds.'),
  expire('pexpire', unitOf('PX'), 'Sets the expiration time of a key in milliseconds.'),
  expire('expireat', unitOf('EXAT'), 'Sets the expiration time of a key to a Unix timestamp.'),
  expire('pexpireat', unitOf('PXAT'), 'Sets the expiration time of a key to a Unix milliseconds timestamp.'),
  deadlineQuery('ttl', 'Returns the expiration time in seconds of a key.', (deadline, nowMs) =>
    inSeconds(Math.max(0, deadline - nowMs)),
  ),
  deadlineQuery('pttl', 'Returns the expiration time in milliseconds of a key.', (deadline, nowMs) =>
    Math.max(0, deadline - nowMs),
  ),
  deadlineQuery('expiretime', 'Returns the expiration time of a key as a Unix timestamp.', (deadline) =>
    inSeconds(deadline),
  ),
  deadlineQuery(
    'pexpiretime',
    'Returns the expiration time of a key as a Unix milliseconds timestamp.',
    (deadline) => deadline,
  ),
  {
    name: 'persist',
    kind: 'write',
    arity: 2,
    flags: ['write', 'fast'],
    group: 'generic',
    keys: KEY,
    summary: 'Removes the expiration time of a key.',
    plan: (args) => {
      const key = keyOf(args);
      return call(
        [{ key, value: true }],
        (tx) => typeof tx.deadline(key) === 'number' && tx.expire(key, null),
        writeBoolean,
      );
    },
  },
];
