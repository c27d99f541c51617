/** Commands on keys of any type. */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Engine } from '../../engine.js';
import type { Need, Transaction } from '../../replica/operation.js';
import type { ScanOptions } from '../../store/store.js';
import { type Args, type Command, call, needsOf } from '../command.js';
import { CommandError, cString, syntaxError } from '../errors.js';
import { clampToSafe, integerArgument } from '../numbers.js';
import { bulksReply, integerReply, writeInteger } from '../replies.js';

const KEY = [1, 1, 1] as const;
const KEYS = [1, -1, 1] as const;
/** As C's strtoull reads it, but for negative numbers. */
const CURSOR = /^[ \t\n\v\f\r]*(?:\+?0*([0-9]{1,20})|-0+)$/;
const MAX_CURSOR = 2n ** 64n - 1n;
/** Types that Valkey has and we don't (yet): SCAN … TYPE finds none of them. */
const OTHER_TYPES = new Set(['list', 'zset', 'hash', 'stream']);
const KEYS_PAGE = 1000;

const keyOf = (args: Args): ByteString => args[1] as ByteString;

interface ScanRequest {
  readonly cursor: string;
  readonly options: ScanOptions;
  /** Asked for a type that no key has. */
  readonly nothing: boolean;
}

function parseCursor(text: ByteString): string {
  const match = CURSOR.exec(text);
  const cursor = match === null ? null : BigInt(match[1] ?? '0');
  if (cursor === null || cursor > MAX_CURSOR) throw new CommandError('ERR invalid cursor');
  return String(cursor);
}

function parseScan(args: Args): ScanRequest {
  const cursor = parseCursor(args[1] as ByteString);
  let match: ByteString | undefined;
  let count: number | undefined;
  let type: 'string' | 'set' | undefined;
  let nothing = false;
  for (let i = 2; i < args.length; i += 2) {
    const option = (args[i] as string).toUpperCase();
    const value = args[i + 1];
    if (value === undefined) throw syntaxError();
    if (option === 'MATCH') {
      match = value;
    } else if (option === 'COUNT') {
      count = clampToSafe(integerArgument(value));
      if (count < 1) throw syntaxError();
    } else if (option === 'TYPE') {
      const name = value.toLowerCase();
      nothing = OTHER_TYPES.has(name);
      if (name === 'string' || name === 'set') type = name;
      else if (!nothing) throw new CommandError(`ERR unknown type name '${cString(value)}'`);
    } else {
      throw syntaxError();
    }
  }
  const options = {
    ...(match === undefined ? {} : { match }),
    ...(count === undefined ? {} : { count }),
    ...(type === undefined ? {} : { type }),
  };
  return { cursor, options, nothing };
}

async function allKeys(engine: Engine, match: ByteString): Promise<ByteString[]> {
  const found = new Set<ByteString>();
  let cursor = '0';
  do {
    const page = await engine.reads.scan(cursor, { match, count: KEYS_PAGE });
    for (const key of page.keys) found.add(key);
    cursor = page.cursor;
  } while (cursor !== '0');
  return [...found];
}

const countPresent = (tx: Transaction, keys: readonly ByteString[]): number =>
  keys.reduce((sum, key) => sum + (tx.type(key) === 'none' ? 0 : 1), 0);

function existence(name: 'exists' | 'touch', summary: string): Command {
  return {
    name,
    kind: 'read',
    arity: -2,
    flags: ['readonly', 'fast'],
    group: 'generic',
    keys: KEYS,
    summary,
    read: async (args, { engine }) => {
      const types = await engine.reads.types(args.slice(1));
      return integerReply(types.reduce((sum, type) => sum + (type === 'none' ? 0 : 1), 0));
    },
    within: (args) => {
      const keys = args.slice(1);
      return call(needsOf(keys, false), (tx) => countPresent(tx, keys), writeInteger);
    },
  };
}

function deletion(name: 'del' | 'unlink', summary: string): Command {
  return {
    name,
    kind: 'write',
    arity: -2,
    flags: name === 'del' ? ['write'] : ['write', 'fast'],
    group: 'generic',
    keys: KEYS,
    summary,
    plan: (args) => {
      const keys = args.slice(1);
      return call(
        needsOf(keys, false),
        (tx) => keys.reduce((sum, key) => sum + (tx.delete(key) ? 1 : 0), 0),
        writeInteger,
      );
    },
  };
}

export const keyCommands: readonly Command[] = [
  deletion('del', 'Deletes one or more keys.'),
  deletion('unlink', 'Deletes one or more keys; the same as DEL here.'),
  existence('exists', 'Determines whether one or more keys exist.'),
  existence('touch', 'Returns the number of existing keys out of those specified.'),
  {
    name: 'type',
    kind: 'read',
    arity: 2,
    flags: ['readonly', 'fast'],
    group: 'generic',
    keys: KEY,
    summary: 'Determines the type of value stored at a key.',
    read: async (args, { engine }) => {
      const [type] = await engine.reads.types([keyOf(args)]);
      return (out) => out.simple(type ?? 'none');
    },
    within: (args) => {
      const key = keyOf(args);
      const needs: Need[] = [{ key }];
      return call(
        needs,
        (tx) => tx.type(key),
        (out, type) => out.simple(type),
      );
    },
  },
  {
    name: 'keys',
    kind: 'read',
    arity: 2,
    flags: ['readonly'],
    group: 'generic',
    summary: 'Returns all key names that match a pattern.',
    read: async (args, { engine }) => bulksReply(await allKeys(engine, keyOf(args))),
  },
  {
    name: 'scan',
    kind: 'read',
    arity: -2,
    flags: ['readonly'],
    group: 'generic',
    summary: 'Iterates over the key names in the database.',
    read: async (args, { engine }) => {
      const { cursor, options, nothing } = parseScan(args);
      const page = nothing ? { cursor: '0', keys: [] } : await engine.reads.scan(cursor, options);
      return (out) => {
        out.array(2);
        out.ascii(page.cursor);
        out.array(page.keys.length);
        out.bulks(page.keys);
      };
    },
  },
  {
    name: 'dbsize',
    kind: 'read',
    arity: 1,
    flags: ['readonly', 'fast'],
    group: 'server',
    summary: 'Returns the number of keys in the database.',
    read: async (_args, { engine }) => integerReply(await engine.reads.count()),
  },
];
