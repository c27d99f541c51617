/** Commands on the node as a server: CONFIG, INFO, TIME, WAIT, and what is refused for now. */
import type { ByteString } from '../../../crdts/bytes.js';
import { globMatches } from '../../../crdts/glob.js';
import type { Args, Command } from '../command.js';
import { CommandError } from '../errors.js';
import { clampToSafe, integerArgument, parseInteger } from '../numbers.js';
import { helpReply, integerReply, okReply } from '../replies.js';
import type { Session } from '../session.js';
import { infoText } from './info.js';

/** What CONFIG GET knows: the parameters that clients and tools ask for, with what is true here. */
function parameters({ door, engine }: Session): [string, string][] {
  return [
    ['save', ''],
    ['appendonly', 'no'],
    ['maxmemory', '0'],
    ['maxmemory-policy', 'noeviction'],
    ['maxclients', String(door.maxClients)],
    ['proto-max-bulk-len', String(engine.maxValueBytes)],
    ['databases', '1'],
    ['port', String(door.port)],
    ['timeout', '0'],
    ['cluster-enabled', 'no'],
    ['notify-keyspace-events', ''],
  ];
}

async function wait(args: Args, session: Session): Promise<number> {
  const regions = integerArgument(args[1] as ByteString);
  const timeout = parseInteger(args[2] as ByteString);
  if (timeout === null) throw new CommandError('ERR timeout is not an integer or out of range');
  if (timeout < 0) throw new CommandError('ERR timeout is negative');
  const wanted = Math.max(0, clampToSafe(regions));
  return session.engine.waitFor(wanted, session.lastFrame, clampToSafe(timeout), session.signal);
}

const refusedFlush = (): never => {
  throw new CommandError(
    'ERR FLUSHALL and FLUSHDB are refused: they would delete the data of every region. Delete keys with DEL or UNLINK',
  );
};

export const serverCommands: readonly Command[] = [
  {
    name: 'info',
    kind: 'read',
    arity: -1,
    flags: ['loading', 'stale'],
    group: 'server',
    summary: 'Returns information and statistics about the server.',
    read: async (args, session) => {
      const info = await infoText(session, args.slice(1));
      return (out) => out.verbatim(info);
    },
  },
  {
    name: 'time',
    kind: 'local',
    arity: 1,
    flags: ['loading', 'stale', 'fast'],
    group: 'server',
    summary: 'Returns the server time.',
    run: (_args, { engine }) => {
      const nowMs = engine.now();
      return (out) => {
        out.array(2);
        out.ascii(String(Math.floor(nowMs / 1000)));
        out.ascii(String(Math.floor(nowMs % 1000) * 1000));
      };
    },
  },
  {
    name: 'wait',
    kind: 'exclusive',
    arity: 3,
    flags: [],
    group: 'generic',
    summary:
      'Waits until other regions have applied the last write of the connection; returns how many have.',
    run: async (args, session) => integerReply(await wait(args, session)),
  },
  {
    name: 'config|get',
    kind: 'local',
    arity: -3,
    flags: ['admin', 'noscript', 'loading', 'stale'],
    group: 'server',
    summary: 'Returns the effective values of configuration parameters.',
    run: (args, session) => {
      const patterns = args.slice(2).map((pattern) => pattern.toLowerCase() as ByteString);
      const found = parameters(session).filter(([name]) =>
        patterns.some((pattern) => globMatches(pattern, name as ByteString)),
      );
      return (out) => {
        out.map(found.length);
        for (const [name, value] of found) {
          out.ascii(name);
          out.ascii(value);
        }
      };
    },
  },
  {
    name: 'config|set',
    kind: 'local',
    arity: -4,
    flags: ['admin', 'noscript', 'loading', 'stale'],
    group: 'server',
    summary: 'Refused: options of a peer are given when it starts.',
    run: () => {
      throw new CommandError(
        "ERR CONFIG SET isn't supported: give options when the peer starts (valkey-mesh peer --help)",
      );
    },
  },
  {
    name: 'config|resetstat',
    kind: 'local',
    arity: 2,
    flags: ['admin', 'noscript', 'loading', 'stale'],
    group: 'server',
    summary: "Resets the server's statistics.",
    run: (_args, { door }) => {
      const { stats } = door;
      stats.commandsProcessed = 0;
      stats.connectionsReceived = 0;
      stats.connectionsRejected = 0;
      stats.bytesIn = 0;
      stats.bytesOut = 0;
      return okReply;
    },
  },
  {
    name: 'config|help',
    kind: 'local',
    arity: 2,
    flags: ['loading', 'stale'],
    group: 'server',
    summary: 'Returns helpful text about the different subcommands.',
    run: () =>
      helpReply('CONFIG', [
        'GET <pattern>',
        '    Return parameters matching the glob-like <pattern> and their values.',
        'RESETSTAT',
        '    Reset statistics reported by the INFO command.',
      ]),
  },
  ...(['flushall', 'flushdb'] as const).map(
    (name): Command => ({
      name,
      kind: 'local',
      arity: -1,
      flags: ['write'],
      group: 'server',
      summary: 'Refused: it would delete the data of every region.',
      run: refusedFlush,
    }),
  ),
];
