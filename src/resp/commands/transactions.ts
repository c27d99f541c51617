/**
 * MULTI, EXEC and DISCARD. A transaction is one operation: nothing comes between its commands, here or in any other
 * region. As in Valkey, a command that fails when it runs doesn't undo the others.
 */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Need, Transaction } from '../../replica/operation.js';
import { type Call, type Command, call, type Reply } from '../command.js';
import { CommandError, describeError, INTERNAL_ERROR } from '../errors.js';
import { okReply } from '../replies.js';
import type { Queued, Session } from '../session.js';

/** Says whether a MULTI can hold the command. */
export function mayBeQueued(command: Command): boolean {
  if (command.kind === 'write') return command.flags.includes('write');
  return command.kind === 'local' ? !command.flags.includes('no_multi') : command.within !== undefined;
}

type Part = { readonly call: Call<unknown> } | { readonly reply: Reply };
type Outcome = { readonly value: unknown } | { readonly error: unknown };

function partOf({ command, args }: Queued, session: Session): Part {
  try {
    if (command.kind === 'write') return { call: command.plan(args, session) };
    if (command.kind === 'local') return { reply: command.run(args, session) };
    if (command.within === undefined) throw new Error(`${command.name} can't be queued`);
    return { call: command.within(args, session) };
  } catch (error) {
    return { reply: (out) => out.error(describeError(error, false) ?? INTERNAL_ERROR) };
  }
}

function runPart(part: Part, tx: Transaction): Outcome {
  if (!('call' in part)) return { value: undefined };
  try {
    return { value: part.call.run(tx) };
  } catch (error) {
    // What nobody foresaw may have left half a change behind: then nothing of the transaction may stay.
    if (describeError(error, false) === null) throw error;
    return { error };
  }
}

/** Joins the needs of several calls, so that each key is named once. */
export function joinNeeds(calls: readonly { readonly needs: readonly Need[] }[]): Need[] {
  const joined = new Map<ByteString, Need>();
  for (const need of calls.flatMap(({ needs }) => needs)) {
    const known = joined.get(need.key);
    if (known === undefined) {
      joined.set(need.key, need);
      continue;
    }
    const all = known.members === 'all' || need.members === 'all';
    const members = all
      ? ('all' as const)
      : [...new Set([...((known.members ?? []) as ByteString[]), ...((need.members ?? []) as ByteString[])])];
    joined.set(need.key, { key: need.key, value: known.value === true || need.value === true, members });
  }
  return [...joined.values()];
}

function exec(session: Session): Call<Outcome[]> {
  const transaction = session.transaction;
  session.transaction = null;
  if (transaction === null) throw new CommandError('ERR EXEC without MULTI');
  if (transaction.broken) {
    throw new CommandError('EXECABORT Transaction discarded because of previous errors.');
  }
  const parts = transaction.queued.map((queued) => partOf(queued, session));
  return call(
    joinNeeds(parts.flatMap((part) => ('call' in part ? [part.call] : []))),
    (tx) => parts.map((part) => runPart(part, tx)),
    (out, outcomes) => {
      out.array(parts.length);
      for (const [i, part] of parts.entries()) {
        const outcome = outcomes[i] as Outcome;
        if ('error' in outcome) out.error(describeError(outcome.error, true) ?? INTERNAL_ERROR);
        else if ('call' in part) part.call.reply(out, outcome.value);
        else part.reply(out);
      }
    },
  );
}

export const transactionCommands: readonly Command[] = [
  {
    name: 'multi',
    kind: 'local',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast', 'allow_busy', 'no_multi'],
    group: 'transactions',
    summary: 'Starts a transaction.',
    run: (_args, session) => {
      session.transaction = { queued: [], bytes: 0, broken: false };
      return okReply;
    },
  },
  {
    name: 'exec',
    kind: 'write',
    arity: 1,
    flags: ['noscript', 'loading', 'stale'],
    group: 'transactions',
    summary: 'Executes all commands in a transaction.',
    plan: (_args, session) => exec(session),
  },
  {
    name: 'discard',
    kind: 'local',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast', 'allow_busy'],
    group: 'transactions',
    summary: 'Discards a transaction.',
    run: (_args, session) => {
      if (session.transaction === null) throw new CommandError('ERR DISCARD without MULTI');
      session.transaction = null;
      return okReply;
    },
  },
];
