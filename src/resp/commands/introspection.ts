/** COMMAND: what the front door knows, told from its own table. */
import type { ByteString } from '../../../crdts/bytes.js';
import { globMatches } from '../../../crdts/glob.js';
import type { Args, Command, Reply } from '../command.js';
import { type CommandTable, keysOf } from '../dispatch.js';
import type { ReplyWriter } from '../encoder.js';
import { CommandError, syntaxError } from '../errors.js';
import { bulksReply, helpReply, integerReply } from '../replies.js';

function categories({ flags, group, kind }: Command): string[] {
  const names = [];
  if (flags.includes('write')) names.push('@write');
  if (flags.includes('readonly') || kind === 'read') names.push('@read');
  names.push(group === 'generic' ? '@keyspace' : `@${group}`);
  names.push(flags.includes('fast') ? '@fast' : '@slow');
  if (flags.includes('admin')) names.push('@admin', '@dangerous');
  return names;
}

/** A name's own entry; one that only has subcommands gets an entry made of theirs. */
function entryOf(table: CommandTable, name: string): Command | undefined {
  const own = table.byName(name);
  if (own !== undefined) return own;
  const [first] = name.includes('|') ? [] : table.subcommandsOf(name.toLowerCase());
  if (first === undefined) return undefined;
  const summary = `A container for ${name.toLowerCase()} subcommands.`;
  return { ...first, name: name.toLowerCase(), arity: -2, flags: [], summary } as Command;
}

function writeStatuses(out: ReplyWriter, values: readonly string[]): void {
  out.set(values.length);
  for (const value of values) out.simple(value);
}

function writeInfo(out: ReplyWriter, table: CommandTable, command: Command): void {
  const [first, last, step] = command.keys ?? [0, 0, 0];
  out.array(10);
  out.ascii(command.name);
  out.integer(command.arity);
  writeStatuses(out, command.flags);
  out.integer(first);
  out.integer(last);
  out.integer(step);
  writeStatuses(out, categories(command));
  out.set(0);
  out.set(0);
  const children = command.name.includes('|') ? [] : table.subcommandsOf(command.name);
  out.array(children.length);
  for (const child of children) writeInfo(out, table, child);
}

function writeDocs(out: ReplyWriter, table: CommandTable, command: Command): void {
  const children = command.name.includes('|') ? [] : table.subcommandsOf(command.name);
  out.ascii(command.name);
  out.map(children.length > 0 ? 4 : 3);
  out.ascii('summary');
  out.ascii(command.summary);
  out.ascii('since');
  out.ascii('1.0.0');
  out.ascii('group');
  out.ascii(command.group);
  if (children.length === 0) return;
  out.ascii('subcommands');
  out.map(children.length);
  for (const child of children) writeDocs(out, table, child);
}

function infoReply(table: CommandTable, names: readonly string[]): Reply {
  const entries = names.map((name) => entryOf(table, name));
  return (out) => {
    out.array(entries.length);
    for (const entry of entries) {
      if (entry === undefined) out.nil();
      else writeInfo(out, table, entry);
    }
  };
}

function docsReply(table: CommandTable, names: readonly string[]): Reply {
  const entries = names.map((name) => entryOf(table, name)).filter((entry) => entry !== undefined);
  return (out) => {
    out.map(entries.length);
    for (const entry of entries) writeDocs(out, table, entry);
  };
}

function list(args: Args, table: CommandTable): Reply {
  const names = table.names();
  const bulks = (chosen: readonly string[]): Reply => bulksReply(chosen as readonly ByteString[]);
  if (args.length === 2) return bulks(names);
  const [, , filterBy, kind, value] = args;
  if (args.length !== 5 || filterBy?.toUpperCase() !== 'FILTERBY') throw syntaxError();
  switch (kind?.toUpperCase()) {
    case 'PATTERN':
      return bulks(
        names.filter((name) =>
          globMatches((value as string).toLowerCase() as ByteString, name as ByteString),
        ),
      );
    case 'ACLCAT':
      return bulks(
        names.filter((name) => {
          const entry = entryOf(table, name);
          return entry !== undefined && categories(entry).includes(`@${(value as string).toLowerCase()}`);
        }),
      );
    case 'MODULE':
      return bulks([]);
    default:
      throw syntaxError();
  }
}

function keysIn(args: Args, table: CommandTable): ByteString[] {
  const inner = args.slice(2);
  let command: Command;
  try {
    command = table.resolve(inner);
  } catch (error) {
    const known = entryOf(table, inner[0] as string) !== undefined;
    throw known && error instanceof CommandError
      ? new CommandError('ERR Invalid number of arguments specified for command')
      : new CommandError('ERR Invalid command specified');
  }
  const keys = keysOf(command, inner);
  if (keys.length === 0) throw new CommandError('ERR The command has no key arguments');
  return keys;
}

const ENTRY = { kind: 'local', group: 'server', flags: ['loading', 'stale'] } as const;

export const introspectionCommands: readonly Command[] = [
  {
    ...ENTRY,
    name: 'command',
    arity: -1,
    summary: 'Returns detailed information about all commands.',
    run: (_args, { door }) => infoReply(door.table, door.table.names()),
  },
  {
    ...ENTRY,
    name: 'command|count',
    arity: 2,
    summary: 'Returns a count of commands.',
    run: (_args, { door }) => integerReply(door.table.names().length),
  },
  {
    ...ENTRY,
    name: 'command|info',
    arity: -2,
    summary: 'Returns information about one, multiple or all commands.',
    run: (args, { door }) => infoReply(door.table, args.length > 2 ? args.slice(2) : door.table.names()),
  },
  {
    ...ENTRY,
    name: 'command|docs',
    arity: -2,
    summary: 'Returns documentary information about one, multiple or all commands.',
    run: (args, { door }) => docsReply(door.table, args.length > 2 ? args.slice(2) : door.table.names()),
  },
  {
    ...ENTRY,
    name: 'command|list',
    arity: -2,
    summary: 'Returns a list of command names.',
    run: (args, { door }) => list(args, door.table),
  },
  {
    ...ENTRY,
    name: 'command|getkeys',
    arity: -3,
    summary: 'Extracts the key names from an arbitrary command.',
    run: (args, { door }) => bulksReply(keysIn(args, door.table)),
  },
  {
    ...ENTRY,
    name: 'command|help',
    arity: 2,
    summary: 'Returns helpful text about the different subcommands.',
    run: () =>
      helpReply('COMMAND', [
        '(no subcommand)',
        '    Return details about all commands.',
        'COUNT',
        '    Return the total number of commands in this server.',
        'DOCS [<command-name> ...]',
        '    Return documentation details about multiple commands.',
        'GETKEYS <full-command>',
        '    Return the keys from a full command.',
        'INFO [<command-name> ...]',
        '    Return details about multiple commands.',
        'LIST [FILTERBY (PATTERN <pattern> | ACLCAT <category> | MODULE <name>)]',
        '    Return a list of all commands in this server.',
      ]),
  },
];
