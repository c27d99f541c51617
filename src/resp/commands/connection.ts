/** Commands on the connection itself. */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Args, Command, Reply } from '../command.js';
import { CommandError, cString, syntaxError } from '../errors.js';
import { integerArgument, parseInteger } from '../numbers.js';
import { okReply } from '../replies.js';
import type { Session } from '../session.js';
import { checkClientName } from './client.js';
import { COMPATIBLE_VERSION } from './version.js';

const FLAGS = ['noscript', 'loading', 'stale', 'fast', 'no_auth', 'allow_busy'] as const;
const wrongPassword = (): CommandError =>
  new CommandError('WRONGPASS invalid username-password pair or user is disabled.');

/** There is one user, `default`. Without a password it may be named with any. */
function authenticate(session: Session, user: ByteString, password: ByteString): void {
  const { door } = session;
  if (user !== 'default' || (door.passwordRequired && !door.passwordMatches(password))) throw wrongPassword();
  session.authenticated = true;
}

function hello(args: Args, session: Session): Reply {
  let protocol = session.protocol;
  if (args.length > 1) {
    const asked = parseInteger(args[1] as ByteString);
    if (asked === null) throw new CommandError('ERR Protocol version is not an integer or out of range');
    if (asked !== 2 && asked !== 3) throw new CommandError('NOPROTO unsupported protocol version');
    protocol = asked;
  }
  let name: ByteString | null = null;
  let credentials: readonly [ByteString, ByteString] | null = null;
  for (let i = 2; i < args.length; i += 1) {
    const option = args[i] as ByteString;
    const left = args.length - 1 - i;
    if (option.toUpperCase() === 'AUTH' && left >= 2) {
      credentials = [args[i + 1] as ByteString, args[i + 2] as ByteString];
      i += 2;
    } else if (option.toUpperCase() === 'SETNAME' && left >= 1) {
      name = args[i + 1] as ByteString;
      checkClientName(name);
      i += 1;
    } else {
      throw new CommandError(`ERR Syntax error in HELLO option '${cString(option)}'`);
    }
  }
  if (credentials !== null) authenticate(session, ...credentials);
  if (!session.authenticated) {
    throw new CommandError(
      'NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time',
    );
  }
  if (name !== null) session.name = name;
  session.protocol = protocol;
  return (out) => {
    out.map(7);
    out.ascii('server');
    out.ascii('valkey');
    out.ascii('version');
    out.ascii(COMPATIBLE_VERSION);
    out.ascii('proto');
    out.integer(protocol);
    out.ascii('id');
    out.integer(session.id);
    out.ascii('mode');
    out.ascii('standalone');
    out.ascii('role');
    out.ascii('master');
    out.ascii('modules');
    out.array(0);
  };
}

export const connectionCommands: readonly Command[] = [
  {
    name: 'ping',
    kind: 'local',
    arity: -1,
    flags: ['fast'],
    group: 'connection',
    summary: "Returns the server's liveliness response.",
    run: (args) => {
      const message = args[1];
      if (message === undefined) return (out) => out.simple('PONG');
      if (args.length > 2) throw new CommandError("ERR wrong number of arguments for 'ping' command");
      return (out) => out.bulk(message);
    },
  },
  {
    name: 'echo',
    kind: 'local',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    group: 'connection',
    summary: 'Returns the given string.',
    run: (args) => (out) => out.bulk(args[1] as ByteString),
  },
  {
    name: 'select',
    kind: 'local',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    group: 'connection',
    summary: 'Changes the selected database; there is only 0.',
    run: (args) => {
      if (integerArgument(args[1] as ByteString) !== 0)
        throw new CommandError('ERR DB index is out of range');
      return okReply;
    },
  },
  {
    name: 'hello',
    kind: 'exclusive',
    arity: -1,
    flags: FLAGS,
    group: 'connection',
    summary: 'Handshakes with the server.',
    run: hello,
  },
  {
    name: 'auth',
    kind: 'exclusive',
    arity: -2,
    flags: FLAGS,
    group: 'connection',
    summary: 'Authenticates the connection.',
    run: (args, session) => {
      if (args.length > 3) throw syntaxError();
      if (args.length === 3) {
        authenticate(session, args[1] as ByteString, args[2] as ByteString);
      } else {
        if (!session.door.passwordRequired) {
          throw new CommandError(
            'ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?',
          );
        }
        authenticate(session, 'default' as ByteString, args[1] as ByteString);
      }
      return okReply;
    },
  },
  {
    name: 'quit',
    kind: 'exclusive',
    arity: -1,
    flags: FLAGS,
    group: 'connection',
    summary: 'Closes the connection.',
    run: (_args, session) => {
      session.endAfterReplies();
      return okReply;
    },
  },
  {
    name: 'reset',
    kind: 'exclusive',
    arity: 1,
    flags: FLAGS,
    group: 'connection',
    summary: 'Resets the connection.',
    run: (_args, session) => {
      session.transaction = null;
      session.protocol = 2;
      session.name = '' as ByteString;
      session.replyMode = 'on';
      session.noEvict = false;
      session.noTouch = false;
      session.authenticated = !session.door.passwordRequired;
      return (out) => out.simple('RESET');
    },
  },
];
