/** Finds the command that a request names, and refuses what can't be one, in Valkey's words. */
import type { ByteString } from '../../crdts/bytes.js';
import type { Args, Command } from './command.js';
import { CommandError, cString, wrongArity } from './errors.js';

/** How much of what a client sent an error message repeats. */
const ECHOED = 128;

interface Named {
  /** The command itself; null for a name that has only subcommands. */
  readonly command: Command | null;
  readonly subcommands: ReadonlyMap<string, Command> | null;
}

/** All commands by name. */
export class CommandTable {
  /** Every command once, subcommands as `client|id`, in the order of the table. */
  readonly all: readonly Command[];
  readonly #byName = new Map<string, Named>();

  /** A later command replaces an earlier one of the same name. */
  constructor(commands: readonly Command[]) {
    const unique = new Map(commands.map((command) => [command.name, command]));
    this.all = [...unique.values()];
    const children = new Map<string, Map<string, Command>>();
    for (const command of this.all) {
      const [parent, child] = command.name.split('|') as [string, string | undefined];
      if (child === undefined) continue;
      const siblings = children.get(parent);
      if (siblings === undefined) children.set(parent, new Map([[child, command]]));
      else siblings.set(child, command);
    }
    for (const name of new Set(this.all.map((command) => command.name.split('|')[0] as string))) {
      const named = { command: unique.get(name) ?? null, subcommands: children.get(name) ?? null };
      // Both common spellings, so that the hot path changes no letters.
      this.#byName.set(name, named);
      this.#byName.set(name.toUpperCase(), named);
    }
  }

  /** Gives the command of a request. Throws CommandError when there is none or the number of arguments is wrong. */
  resolve(args: Args): Command {
    const command = this.#find(args);
    const arity = command.arity;
    if (arity > 0 ? args.length !== arity : args.length < -arity) throw wrongArity(command.name);
    return command;
  }

  /** Gives a command by its name, `get` or `client|id`; undefined when there is none. */
  byName(name: string): Command | undefined {
    const [parent, child] = name.toLowerCase().split('|') as [string, string | undefined];
    const named = this.#byName.get(parent);
    if (named === undefined) return undefined;
    return child === undefined ? (named.command ?? undefined) : named.subcommands?.get(child);
  }

  /** Names of commands that can be called, subcommands left out. */
  names(): string[] {
    return [...new Set(this.all.map((command) => command.name.split('|')[0] as string))];
  }

  /** Subcommands of a name. */
  subcommandsOf(name: string): Command[] {
    return [...(this.#byName.get(name)?.subcommands?.values() ?? [])];
  }

  #find(args: Args): Command {
    const name = args[0] as ByteString;
    const named = this.#byName.get(name) ?? this.#byName.get(name.toLowerCase());
    if (named === undefined) throw unknownCommand(args);
    if (named.subcommands === null) return named.command as Command;
    const child = args[1];
    if (child === undefined) {
      if (named.command !== null) return named.command;
      throw wrongArity(name.toLowerCase());
    }
    const found = named.subcommands.get(child) ?? named.subcommands.get(child.toLowerCase());
    if (found === undefined) {
      throw new CommandError(
        `ERR unknown subcommand '${cString(child, ECHOED)}'. Try ${name.toUpperCase()} HELP.`,
      );
    }
    return found;
  }
}

/** Gives the keys among a request's arguments; the number of arguments has been checked. */
export function keysOf(command: Command, args: Args): ByteString[] {
  if (command.keys === undefined) return [];
  const [first, last, step] = command.keys;
  const end = last < 0 ? args.length + last : last;
  const keys: ByteString[] = [];
  for (let i = first; i <= end; i += step) keys.push(args[i] as ByteString);
  return keys;
}

/** Throws CommandError when one of the keys is the node's own. */
export function refuseReserved(command: Command, args: Args, isReserved: (key: ByteString) => boolean): void {
  if (command.keys === undefined) return;
  const [first, last, step] = command.keys;
  const end = last < 0 ? args.length + last : last;
  for (let i = first; i <= end; i += step) {
    if (isReserved(args[i] as ByteString)) {
      throw new CommandError(
        `ERR the key '${cString(args[i] as string, ECHOED)}' is reserved: valkey-mesh keeps its own data under this prefix`,
      );
    }
  }
}

function unknownCommand(args: Args): CommandError {
  let shown = '';
  for (let i = 1; i < args.length && shown.length < ECHOED; i += 1) {
    shown += `'${cString(args[i] as string, ECHOED - shown.length)}' `;
  }
  return new CommandError(
    `ERR unknown command '${cString(args[0] as string, ECHOED)}', with args beginning with: ${shown}`,
  );
}
