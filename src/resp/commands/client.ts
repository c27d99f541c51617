/** CLIENT: who is connected, and how they want to be called and answered. */
import { type ByteString, text, utf8 } from '../../../crdts/bytes.js';
import type { Args, Command, Reply } from '../command.js';
import { CommandError, cString, syntaxError } from '../errors.js';
import { integerArgument, parseInteger } from '../numbers.js';
import { helpReply, integerReply, okReply } from '../replies.js';
import type { Session } from '../session.js';

const PRINTABLE = /^[!-~]*$/;
const TYPES = new Set(['normal', 'master', 'primary', 'replica', 'slave', 'pubsub']);

/** Throws CommandError when a name has blanks or anything that isn't printable ASCII. */
export function checkClientName(name: ByteString, what = 'Client names'): void {
  if (!PRINTABLE.test(name)) {
    throw new CommandError(`ERR ${what} cannot contain spaces, newlines or special characters.`);
  }
}

/** One line of CLIENT LIST, in Valkey's fields. */
function describe(session: Session): string {
  const nowMs = Date.now();
  const fields: readonly (readonly [string, string | number])[] = [
    ['id', session.id],
    ['addr', session.address],
    ['laddr', session.localAddress],
    ['fd', -1],
    ['name', session.name],
    ['age', Math.max(0, Math.floor((nowMs - session.connectedAtMs) / 1000))],
    ['idle', Math.max(0, Math.floor((nowMs - session.lastCommandAtMs) / 1000))],
    ['flags', session.transaction === null ? 'N' : 'x'],
    ['db', 0],
    ['sub', 0],
    ['psub', 0],
    ['ssub', 0],
    ['multi', session.transaction === null ? -1 : session.transaction.queued.length],
    ['watch', 0],
    ['qbuf', session.unreadBytes],
    ['omem', session.unsentBytes],
    ['events', 'r'],
    ['cmd', session.lastCommand],
    ['user', 'default'],
    ['redir', -1],
    ['resp', session.protocol],
    ['lib-name', session.libName],
    ['lib-ver', session.libVersion],
  ];
  return fields.map(([name, value]) => `${name}=${value}`).join(' ');
}

function checkType(type: ByteString): string {
  const name = type.toLowerCase();
  if (!TYPES.has(name)) throw new CommandError(`ERR Unknown client type '${cString(type)}'`);
  return name;
}

function list(args: Args, session: Session): Reply {
  let chosen = [...session.door.sessions()];
  const option = args[2]?.toUpperCase();
  if (option === 'TYPE' && args.length === 4) {
    if (checkType(args[3] as ByteString) !== 'normal') chosen = [];
  } else if (option === 'ID' && args.length > 3) {
    const ids = new Set(
      args.slice(3).map((arg) => {
        const id = parseInteger(arg);
        if (id === null || id < 1) throw new CommandError('ERR Invalid client ID');
        return id;
      }),
    );
    chosen = chosen.filter(({ id }) => ids.has(id));
  } else if (option !== undefined) {
    throw syntaxError();
  }
  const lines = utf8(chosen.map((each) => `${text(describe(each) as ByteString)}\n`).join(''));
  return (out) => out.verbatim(lines);
}

function kill(args: Args, session: Session): Reply {
  if (args.length === 3) {
    const found = [...session.door.sessions()].find(({ address }) => address === args[2]);
    if (found === undefined) throw new CommandError('ERR No such client');
    endOrKill(found, session);
    return okReply;
  }
  if (args.length % 2 !== 0) throw syntaxError();
  const tests: ((other: Session) => boolean)[] = [];
  let skipMe = true;
  for (let i = 2; i < args.length; i += 2) {
    const value = args[i + 1] as ByteString;
    switch ((args[i] as string).toUpperCase()) {
      case 'ID': {
        const id = parseInteger(value);
        if (id === null || id < 1) throw new CommandError('ERR client-id should be greater than 0');
        tests.push((other) => other.id === id);
        break;
      }
      case 'ADDR':
        tests.push((other) => other.address === value);
        break;
      case 'LADDR':
        tests.push((other) => other.localAddress === value);
        break;
      case 'USER':
        if (value !== 'default') throw new CommandError(`ERR No such user '${cString(value)}'`);
        break;
      case 'TYPE': {
        const type = checkType(value);
        tests.push(() => type === 'normal');
        break;
      }
      case 'SKIPME':
        if (!/^(yes|no)$/i.test(value)) throw syntaxError();
        skipMe = /^yes$/i.test(value);
        break;
      default:
        throw syntaxError();
    }
  }
  const doomed = [...session.door.sessions()].filter(
    (other) => !(skipMe && other === session) && tests.every((test) => test(other)),
  );
  for (const other of doomed) endOrKill(other, session);
  return integerReply(doomed.length);
}

/** Who kills itself still gets its answer. */
function endOrKill(target: Session, killer: Session): void {
  if (target === killer) target.endAfterReplies();
  else target.kill();
}

function onOrOff(value: ByteString): boolean {
  const word = value.toLowerCase();
  if (word !== 'on' && word !== 'off') throw syntaxError();
  return word === 'on';
}

const ENTRY = { group: 'connection', flags: ['noscript', 'loading', 'stale'] } as const;

export const clientCommands: readonly Command[] = [
  {
    ...ENTRY,
    name: 'client|id',
    kind: 'local',
    arity: 2,
    summary: 'Returns the unique client ID of the connection.',
    run: (_args, session) => integerReply(session.id),
  },
  {
    ...ENTRY,
    name: 'client|info',
    kind: 'local',
    arity: 2,
    summary: 'Returns information about the connection.',
    run: (_args, session) => {
      const line = `${describe(session)}\n` as ByteString;
      return (out) => out.verbatim(line);
    },
  },
  {
    ...ENTRY,
    name: 'client|list',
    kind: 'local',
    arity: -2,
    summary: 'Lists open connections.',
    run: list,
  },
  {
    ...ENTRY,
    name: 'client|kill',
    kind: 'exclusive',
    arity: -3,
    summary: 'Terminates open connections.',
    run: kill,
  },
  {
    ...ENTRY,
    name: 'client|getname',
    kind: 'local',
    arity: 2,
    summary: 'Returns the name of the connection.',
    run: (_args, { name }) => (name === '' ? (out) => out.nil() : (out) => out.bulk(name)),
  },
  {
    ...ENTRY,
    name: 'client|setname',
    kind: 'local',
    arity: 3,
    summary: 'Sets the connection name.',
    run: (args, session) => {
      checkClientName(args[2] as ByteString);
      session.name = args[2] as ByteString;
      return okReply;
    },
  },
  {
    ...ENTRY,
    name: 'client|setinfo',
    kind: 'local',
    arity: 4,
    summary: 'Sets information specific to the client or connection.',
    run: (args, session) => {
      const option = (args[2] as string).toLowerCase();
      const value = args[3] as ByteString;
      if (option !== 'lib-name' && option !== 'lib-ver') {
        throw new CommandError(`ERR Unrecognized option '${cString(args[2] as string)}'`);
      }
      checkClientName(value, option);
      if (option === 'lib-name') session.libName = value;
      else session.libVersion = value;
      return okReply;
    },
  },
  {
    ...ENTRY,
    name: 'client|no-evict',
    kind: 'local',
    arity: 3,
    summary: 'Accepted for compatibility: the front door evicts no clients.',
    run: (args, session) => {
      session.noEvict = onOrOff(args[2] as ByteString);
      return okReply;
    },
  },
  {
    ...ENTRY,
    name: 'client|no-touch',
    kind: 'local',
    arity: 3,
    summary: 'Accepted for compatibility.',
    run: (args, session) => {
      session.noTouch = onOrOff(args[2] as ByteString);
      return okReply;
    },
  },
  {
    ...ENTRY,
    name: 'client|reply',
    kind: 'exclusive',
    arity: 3,
    summary: 'Instructs the server whether to reply to commands.',
    run: (args, session) => {
      const mode = (args[2] as string).toLowerCase();
      if (mode === 'on') {
        session.replyMode = 'on';
        return okReply;
      }
      if (mode === 'off') session.replyMode = 'off';
      else if (mode !== 'skip') throw syntaxError();
      else if (session.replyMode !== 'off') session.replyMode = 'skip-next';
      return null;
    },
  },
  {
    ...ENTRY,
    name: 'client|getredir',
    kind: 'local',
    arity: 2,
    summary: 'Returns the client ID to which invalidation messages go: none.',
    run: () => integerReply(-1),
  },
  {
    ...ENTRY,
    name: 'client|unblock',
    kind: 'local',
    arity: -3,
    summary: 'Accepted for compatibility: no command here blocks on keys.',
    run: (args) => {
      integerArgument(args[2] as ByteString);
      return integerReply(0);
    },
  },
  {
    ...ENTRY,
    name: 'client|help',
    kind: 'local',
    arity: 2,
    summary: 'Returns helpful text about the different subcommands.',
    run: () =>
      helpReply('CLIENT', [
        'GETNAME',
        '    Return the name of the current connection.',
        'ID',
        '    Return the ID of the current connection.',
        'INFO',
        '    Return information about the current client connection.',
        'KILL <ip:port> | ID <id> | ADDR <ip:port> | LADDR <ip:port> | TYPE <type> | USER <name> | SKIPME (YES|NO)',
        '    Kill connections.',
        'LIST [TYPE <type> | ID <id> ...]',
        '    Return information about client connections.',
        'NO-EVICT (ON|OFF)',
        '    Accepted for compatibility.',
        'REPLY (ON|OFF|SKIP)',
        '    Control the replies sent to the current connection.',
        'SETINFO (LIB-NAME|LIB-VER) <value>',
        '    Set client library information.',
        'SETNAME <name>',
        '    Assign the name <name> to the current connection.',
      ]),
  },
];
