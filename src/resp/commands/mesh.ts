/** MESH: what the node knows of itself and of the other members. */
import { text, utf8 } from '../../../crdts/bytes.js';
import type { VerifyOptions } from '../../verify/report.js';
import type { Args, Command } from '../command.js';
import type { ReplyWriter } from '../encoder.js';
import { CommandError } from '../errors.js';
import { helpReply } from '../replies.js';

/** Writes plain data: objects as maps, booleans as 1 and 0, text as UTF-8. */
function writeData(out: ReplyWriter, value: unknown): void {
  if (value === null || value === undefined) out.nil();
  else if (typeof value === 'boolean') out.integer(value ? 1 : 0);
  else if (typeof value === 'bigint') out.integer(value);
  else if (typeof value === 'number' && Number.isInteger(value)) out.integer(value);
  else if (typeof value !== 'object') out.bulk(utf8(String(value)));
  else if (Array.isArray(value)) {
    out.array(value.length);
    for (const element of value) writeData(out, element);
  } else {
    const entries = Object.entries(value);
    out.map(entries.length);
    for (const [name, field] of entries) {
      out.bulk(utf8(name));
      writeData(out, field);
    }
  }
}

/** Reads DEEP, REPAIR and TIMEOUT ms. Throws CommandError when they are anything else. */
function verifyOptions(args: Args): VerifyOptions {
  let options: VerifyOptions = {};
  for (let at = 2; at < args.length; at += 1) {
    const word = args[at]!.toUpperCase();
    if (word === 'DEEP') options = { ...options, deep: true };
    else if (word === 'REPAIR') options = { ...options, repair: true };
    else if (word === 'TIMEOUT' && at + 1 < args.length) {
      at += 1;
      options = { ...options, timeoutMs: Number(args[at]) };
    } else throw new CommandError('ERR syntax error');
  }
  return options;
}

const ENTRY = { group: 'mesh', flags: ['loading', 'stale'] } as const;

export const meshCommands: readonly Command[] = [
  {
    ...ENTRY,
    name: 'mesh|status',
    kind: 'local',
    arity: 2,
    summary: 'Returns the state of this node.',
    run: (_args, { engine }) => {
      const status = engine.status();
      return (out) => writeData(out, status);
    },
  },
  {
    ...ENTRY,
    name: 'mesh|peers',
    kind: 'local',
    arity: 2,
    summary: 'Lists the other members as this node knows them.',
    run: (_args, { engine }) => {
      const { peers } = engine.status();
      return (out) => writeData(out, peers);
    },
  },
  {
    ...ENTRY,
    name: 'mesh|digest',
    kind: 'read',
    arity: 2,
    summary: 'Returns a digest of all keys, which is equal where regions are equal.',
    read: async (_args, { engine }) => {
      const digest = await engine.digest();
      return (out) => writeData(out, digest);
    },
  },
  {
    ...ENTRY,
    name: 'mesh|verify',
    kind: 'read',
    arity: -2,
    summary: 'Compares all regions at a common cut.',
    read: async (args, { engine }) => {
      const report = await engine.verify(verifyOptions(args));
      return (out) => writeData(out, report);
    },
  },
  {
    ...ENTRY,
    name: 'mesh|forget',
    kind: 'local',
    arity: 3,
    summary: 'Forgets a member that is gone for good; should it return, it begins anew.',
    run: ([, , peerId], { engine }) => {
      engine.forget(text(peerId!));
      return (out) => out.ok();
    },
  },
  {
    ...ENTRY,
    name: 'mesh|help',
    kind: 'local',
    arity: 2,
    summary: 'Returns helpful text about the different subcommands.',
    run: () =>
      helpReply('MESH', [
        'DIGEST',
        '    Return a digest of all keys, which is equal where regions are equal.',
        'FORGET <peer-id>',
        '    Forget a member that is gone for good; should it return, it begins anew.',
        'PEERS',
        '    Return the other members as this node knows them.',
        'STATUS',
        '    Return the state of this node.',
        'VERIFY [DEEP] [REPAIR] [TIMEOUT <milliseconds>]',
        '    Compare all regions at a common cut; with DEEP, native values with the metadata too.',
      ]),
  },
];
