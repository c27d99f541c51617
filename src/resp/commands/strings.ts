/** String commands. Each write is one operation, so its conditions hold at the moment at which it writes. */
import type { ByteString } from '../../../crdts/bytes.js';
import type { ExpiryChange, Need, Transaction } from '../../replica/operation.js';
import { type Args, type Call, type Command, call, checkLength, needsOf, typed } from '../command.js';
import type { ReplyWriter } from '../encoder.js';
import { wrongArity } from '../errors.js';
import { deadlineOf, TIME_UNITS, type TimeUnit } from '../expiry-options.js';
import { integerReply, writeBoolean, writeBulkOrNil, writeInteger, writeOk } from '../replies.js';
import { parseSetOptions, type SetOptions } from './set-options.js';

/** SET without options: the most frequent write, so it costs no closures. */
class PlainSet implements Call<boolean> {
  readonly needs: readonly Need[];
  readonly #key: ByteString;
  readonly #value: ByteString;

  constructor(key: ByteString, value: ByteString) {
    this.needs = [{ key, blind: true }];
    this.#key = key;
    this.#value = value;
  }

  run(tx: Transaction): boolean {
    return tx.set(this.#key, this.#value, 'clear');
  }

  reply(out: ReplyWriter, written: boolean): void {
    // Under 'first write wins' a later write is refused as with NX.
    if (written) out.ok();
    else out.bulkOrNil(null);
  }
}

/** Writes, or throws where the key's rule refuses. */
function write(tx: Transaction, key: ByteString, value: ByteString, expiry: ExpiryChange): void {
  tx.checkSet(key, value);
  tx.set(key, value, expiry);
}

/** Writes with a deadline; one that isn't in the future leaves no key. */
function setUntil(tx: Transaction, key: ByteString, value: ByteString, deadlineMs: number): void {
  if (deadlineMs > tx.nowMs) write(tx, key, value, deadlineMs);
  else {
    tx.checkSet(key, value);
    tx.delete(key);
  }
}

function setWithOptions(
  key: ByteString,
  value: ByteString,
  options: SetOptions,
): Call<ByteString | null | boolean> {
  const { only, get, keepTtl, time } = options;
  return call<ByteString | null | boolean>(
    [{ key, value: get }],
    (tx) => {
      const deadline = time === null ? null : deadlineOf(time.amount, time.unit, tx.nowMs, 'set');
      const old = get ? tx.get(key) : null;
      let refused = only !== null && (tx.type(key) === 'none') !== (only === 'NX');
      if (!refused) {
        if (deadline !== null && deadline <= tx.nowMs) setUntil(tx, key, value, deadline);
        else refused = !tx.set(key, value, deadline ?? (keepTtl ? 'keep' : 'clear'));
      }
      return get ? old : !refused;
    },
    (out, result) => {
      if (result === true) out.ok();
      else out.bulkOrNil(result === false ? null : result);
    },
  );
}

function setExpiring(name: string, unit: TimeUnit): (args: Args) => Call<undefined> {
  return (args) => {
    const [, key, time, value] = args as [ByteString, ByteString, ByteString, ByteString];
    return call<undefined>(
      [{ key }],
      (tx) => setUntil(tx, key, value, deadlineOf(time, unit, tx.nowMs, name)) as undefined,
      writeOk,
    );
  };
}

function pairsOf(args: Args, name: string): [ByteString, ByteString][] {
  if (args.length % 2 === 0) throw wrongArity(name);
  const pairs: [ByteString, ByteString][] = [];
  for (let i = 1; i < args.length; i += 2) pairs.push([args[i] as ByteString, args[i + 1] as ByteString]);
  return pairs;
}

const keyOf = (args: Args): ByteString => args[1] as ByteString;

const getString = (args: Args): Call<ByteString | null> => {
  const key = keyOf(args);
  return call([{ key, value: true }], (tx) => tx.get(key), writeBulkOrNil);
};

/** MGET takes a key of another type for an absent one. */
function writeStrings(out: ReplyWriter, values: readonly (ByteString | null)[]): void {
  out.array(values.length);
  for (const value of values) out.bulkOrNil(value);
}

const KEY = [1, 1, 1] as const;
const WRITE = ['write', 'denyoom'] as const;
const FAST_WRITE = ['write', 'denyoom', 'fast'] as const;
const FAST_READ = ['readonly', 'fast'] as const;

export const stringCommands: readonly Command[] = [
  {
    name: 'get',
    kind: 'get',
    arity: 2,
    flags: FAST_READ,
    group: 'string',
    keys: KEY,
    summary: 'Returns the string value of a key.',
    within: getString,
  },
  {
    name: 'set',
    kind: 'write',
    arity: -3,
    flags: WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Sets the string value of a key, ignoring its type. The key is created if it does not exist.',
    plan: (args) => {
      const [, key, value] = args as [ByteString, ByteString, ByteString];
      if (args.length === 3) return new PlainSet(key, value);
      return setWithOptions(key, value, parseSetOptions(args, 3, 'set'));
    },
  },
  {
    name: 'setnx',
    kind: 'write',
    arity: 3,
    flags: FAST_WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Sets the string value of a key only when the key does not exist.',
    plan: (args) => {
      const [, key, value] = args as [ByteString, ByteString, ByteString];
      return call(
        [{ key }],
        (tx) => {
          if (tx.type(key) !== 'none') return false;
          tx.set(key, value, 'clear');
          return true;
        },
        writeBoolean,
      );
    },
  },
  {
    name: 'setex',
    kind: 'write',
    arity: 4,
    flags: WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Sets the string value and expiration time of a key.',
    plan: setExpiring('setex', TIME_UNITS.get('EX') as TimeUnit),
  },
  {
    name: 'psetex',
    kind: 'write',
    arity: 4,
    flags: WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Sets the string value and expiration time in milliseconds of a key.',
    plan: setExpiring('psetex', TIME_UNITS.get('PX') as TimeUnit),
  },
  {
    name: 'getset',
    kind: 'write',
    arity: 3,
    flags: FAST_WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Returns the previous string value of a key after setting it to a new value.',
    plan: (args) => {
      const [, key, value] = args as [ByteString, ByteString, ByteString];
      return call(
        [{ key, value: true }],
        (tx) => {
          const old = tx.get(key);
          write(tx, key, value, 'clear');
          return old;
        },
        writeBulkOrNil,
      );
    },
  },
  {
    name: 'getdel',
    kind: 'write',
    arity: 2,
    flags: ['write', 'fast'],
    group: 'string',
    keys: KEY,
    summary: 'Returns the string value of a key after deleting the key.',
    plan: (args) => {
      const key = keyOf(args);
      return call(
        [{ key, value: true }],
        (tx) => {
          const old = tx.get(key);
          if (old !== null) tx.delete(key);
          return old;
        },
        writeBulkOrNil,
      );
    },
  },
  {
    name: 'getex',
    kind: 'write',
    arity: -2,
    flags: ['write', 'fast'],
    group: 'string',
    keys: KEY,
    summary: 'Returns the string value of a key after setting its expiration time.',
    plan: (args) => {
      const key = keyOf(args);
      const { time, persist } = parseSetOptions(args, 2, 'getex');
      return call(
        [{ key, value: true }],
        (tx) => {
          const value = tx.get(key);
          if (value === null) return null;
          if (time !== null) {
            const deadline = deadlineOf(time.amount, time.unit, tx.nowMs, 'getex');
            if (deadline > tx.nowMs) tx.expire(key, deadline);
            else tx.delete(key);
          } else if (persist && tx.deadline(key) !== null) {
            tx.expire(key, null);
          }
          return value;
        },
        writeBulkOrNil,
      );
    },
  },
  {
    name: 'mget',
    kind: 'read',
    arity: -2,
    flags: FAST_READ,
    group: 'string',
    keys: [1, -1, 1],
    summary: 'Atomically returns the string values of one or more keys.',
    read: async (args, { engine }) => {
      const found = await engine.reads.strings(args.slice(1));
      const values = found.map((value) => (typeof value === 'symbol' ? null : value));
      return (out) => writeStrings(out, values);
    },
    within: (args) => {
      const keys = args.slice(1);
      return call(
        needsOf(keys, true),
        (tx) => keys.map((key) => (tx.type(key) === 'string' ? tx.get(key) : null)),
        writeStrings,
      );
    },
  },
  {
    name: 'mset',
    kind: 'write',
    arity: -3,
    flags: WRITE,
    group: 'string',
    keys: [1, -1, 2],
    summary: 'Atomically creates or modifies the string values of one or more keys.',
    plan: (args) => {
      const pairs = pairsOf(args, 'mset');
      return call(
        needsOf(
          pairs.map(([key]) => key),
          false,
        ),
        (tx) => {
          for (const [key, value] of pairs) tx.checkSet(key, value);
          for (const [key, value] of pairs) tx.set(key, value, 'clear');
        },
        writeOk,
      );
    },
  },
  {
    name: 'msetnx',
    kind: 'write',
    arity: -3,
    flags: WRITE,
    group: 'string',
    keys: [1, -1, 2],
    summary: 'Atomically modifies the string values of one or more keys only when all keys do not exist.',
    plan: (args) => {
      const pairs = pairsOf(args, 'msetnx');
      return call(
        needsOf(
          pairs.map(([key]) => key),
          false,
        ),
        (tx) => {
          if (pairs.some(([key]) => tx.type(key) !== 'none')) return false;
          for (const [key, value] of pairs) tx.checkSet(key, value);
          for (const [key, value] of pairs) tx.set(key, value, 'clear');
          return true;
        },
        writeBoolean,
      );
    },
  },
  {
    name: 'strlen',
    kind: 'read',
    arity: 2,
    flags: FAST_READ,
    group: 'string',
    keys: KEY,
    summary: 'Returns the length of a string value.',
    read: async (args, { engine }) => integerReply(typed(await engine.reads.stringLength(keyOf(args)))),
    within: (args) => {
      const key = keyOf(args);
      return call([{ key, value: true }], (tx) => tx.get(key)?.length ?? 0, writeInteger);
    },
  },
  {
    name: 'append',
    kind: 'write',
    arity: 3,
    flags: FAST_WRITE,
    group: 'string',
    keys: KEY,
    summary: 'Appends a string to the value of a key. Creates the key if it does not exist.',
    plan: (args, { engine }) => {
      const [, key, suffix] = args as [ByteString, ByteString, ByteString];
      return call(
        [{ key, value: true }],
        (tx) => {
          const old = tx.get(key) ?? '';
          checkLength(engine, old.length + suffix.length);
          const value = (old + suffix) as ByteString;
          write(tx, key, value, 'keep');
          return value.length;
        },
        writeInteger,
      );
    },
  },
];
