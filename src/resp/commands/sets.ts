/** Set commands. */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Transaction } from '../../replica/operation.js';
import { type Args, type Call, type Command, call, typed } from '../command.js';
import { CommandError, syntaxError } from '../errors.js';
import { clampToSafe, integerArgument, parseInteger } from '../numbers.js';
import {
  bulksReply,
  integerReply,
  writeBoolean,
  writeBulkOrNil,
  writeBulks,
  writeInteger,
  writeSet,
} from '../replies.js';
import { pop, popWithin } from './spop.js';

/** Most members that SRANDMEMBER gives with repeats; Valkey has no bound and can be made to hang. */
const MAX_REPEATED = 1_048_576;

const KEY = [1, 1, 1] as const;

const keyOf = (args: Args): ByteString => args[1] as ByteString;
const membersOf = (args: Args): ByteString[] => args.slice(2);

/** Calls that name members: the members are needed, and each once. */
function onMembers<T>(
  args: Args,
  run: (tx: Transaction, key: ByteString, members: readonly ByteString[]) => T,
  reply: Call<T>['reply'],
): Call<T> {
  const key = keyOf(args);
  const members = membersOf(args);
  const distinct = members.length === 1 ? members : [...new Set(members)];
  return call([{ key, members: distinct }], (tx) => run(tx, key, members), reply);
}

function randomCount(args: Args): number | null {
  if (args.length > 3) throw syntaxError();
  if (args.length === 2) return null;
  const count = integerArgument(args[2] as ByteString);
  if (count === -(2n ** 63n)) {
    throw new CommandError(
      'ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807',
    );
  }
  if (count < -MAX_REPEATED) {
    throw new CommandError(
      `ERR value is out of range, at most ${MAX_REPEATED} members are given with repeats`,
    );
  }
  return clampToSafe(count);
}

function popCount(args: Args): number | null {
  if (args.length > 3) throw syntaxError();
  if (args.length === 2) return null;
  const count = parseInteger(args[2] as ByteString);
  if (count === null || count < 0) throw new CommandError('ERR value is out of range, must be positive');
  return clampToSafe(count);
}

function chooseRandom(members: readonly ByteString[], count: number): ByteString[] {
  if (members.length === 0) return [];
  if (count < 0) {
    return Array.from(
      { length: -count },
      () => members[Math.floor(Math.random() * members.length)] as ByteString,
    );
  }
  const rest = [...members];
  const chosen: ByteString[] = [];
  while (chosen.length < count && rest.length > 0) {
    const at = Math.floor(Math.random() * rest.length);
    chosen.push(rest[at] as ByteString);
    rest[at] = rest[rest.length - 1] as ByteString;
    rest.pop();
  }
  return chosen;
}

export const setCommands: readonly Command[] = [
  {
    name: 'sadd',
    kind: 'write',
    arity: -3,
    flags: ['write', 'denyoom', 'fast'],
    group: 'set',
    keys: KEY,
    summary: "Adds one or more members to a set. Creates the key if it doesn't exist.",
    plan: (args) => onMembers(args, (tx, key, members) => tx.add(key, members), writeInteger),
  },
  {
    name: 'srem',
    kind: 'write',
    arity: -3,
    flags: ['write', 'fast'],
    group: 'set',
    keys: KEY,
    summary: 'Removes one or more members from a set. Deletes the set if the last member was removed.',
    plan: (args) => onMembers(args, (tx, key, members) => tx.remove(key, members), writeInteger),
  },
  {
    name: 'smembers',
    kind: 'read',
    arity: 2,
    flags: ['readonly'],
    group: 'set',
    keys: KEY,
    summary: 'Returns all members of a set.',
    read: async (args, { engine }) => {
      const members = typed(await engine.reads.members(keyOf(args)));
      return (out) => writeSet(out, members);
    },
    within: (args) => {
      const key = keyOf(args);
      return call([{ key, members: 'all' }], (tx) => tx.members(key), writeSet);
    },
  },
  {
    name: 'sismember',
    kind: 'read',
    arity: 3,
    flags: ['readonly', 'fast'],
    group: 'set',
    keys: KEY,
    summary: 'Determines whether a member belongs to a set.',
    read: async (args, { engine }) => {
      const [found] = typed(await engine.reads.contains(keyOf(args), membersOf(args)));
      return integerReply(found ? 1 : 0);
    },
    within: (args) =>
      onMembers(args, (tx, key, members) => tx.has(key, members[0] as ByteString), writeBoolean),
  },
  {
    name: 'smismember',
    kind: 'read',
    arity: -3,
    flags: ['readonly', 'fast'],
    group: 'set',
    keys: KEY,
    summary: 'Determines whether multiple members belong to a set.',
    read: async (args, { engine }) => {
      const found = typed(await engine.reads.contains(keyOf(args), membersOf(args)));
      return (out) => {
        out.array(found.length);
        for (const has of found) writeBoolean(out, has);
      };
    },
    within: (args) =>
      onMembers(
        args,
        (tx, key, members) => members.map((member) => tx.has(key, member)),
        (out, found) => {
          out.array(found.length);
          for (const has of found) writeBoolean(out, has);
        },
      ),
  },
  {
    name: 'scard',
    kind: 'read',
    arity: 2,
    flags: ['readonly', 'fast'],
    group: 'set',
    keys: KEY,
    summary: 'Returns the number of members in a set.',
    read: async (args, { engine }) => integerReply(typed(await engine.reads.cardinality(keyOf(args)))),
    within: (args) => {
      const key = keyOf(args);
      return call([{ key }], (tx) => tx.cardinality(key), writeInteger);
    },
  },
  {
    name: 'srandmember',
    kind: 'read',
    arity: -2,
    flags: ['readonly'],
    group: 'set',
    keys: KEY,
    summary: 'Gets one or multiple random members from a set.',
    read: async (args, { engine }) => {
      const count = randomCount(args);
      const members = typed(await engine.reads.randomMembers(keyOf(args), count ?? 1));
      return count === null ? (out) => out.bulkOrNil(members[0] ?? null) : bulksReply(members);
    },
    within: (args) => {
      const key = keyOf(args);
      const count = randomCount(args);
      const needs = [{ key, members: 'all' as const }];
      if (count === null) {
        return call(needs, (tx) => chooseRandom(tx.members(key), 1)[0] ?? null, writeBulkOrNil);
      }
      return call(needs, (tx) => chooseRandom(tx.members(key), count), writeBulks);
    },
  },
  {
    name: 'spop',
    kind: 'exclusive',
    arity: -2,
    flags: ['write', 'fast'],
    group: 'set',
    keys: KEY,
    summary:
      'Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.',
    run: async (args, session) => {
      const count = popCount(args);
      const popped = await pop(session, keyOf(args), count ?? 1);
      return count === null ? (out) => out.bulkOrNil(popped[0] ?? null) : (out) => writeSet(out, popped);
    },
    within: (args) => {
      const count = popCount(args);
      const { needs, run } = popWithin(keyOf(args), count ?? 1, chooseRandom);
      if (count === null) return call(needs, (tx) => run(tx)[0] ?? null, writeBulkOrNil);
      return call(needs, run, writeSet);
    },
  },
];
