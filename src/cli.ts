#!/usr/bin/env node
/**
 * The command line. Exit codes: 0 = done, 1 = it failed, 2 = a flag, a setting or a file isn't usable (and nothing was started).
 * verify has codes of its own, see verify/report.ts.
 */
import { Command, CommanderError } from 'commander';
import type { DemoFlags } from './cli/demo.js';
import { readNamedFile } from './cli/files.js';
import type { KeygenFlags } from './cli/keygen.js';
import { type StatusFlags, status } from './cli/status.js';
import type { VerifyFlags } from './cli/verify.js';
import { type GivenSettings, parseConfigFile, resolvePeerConfig } from './config.js';
import { ConfigError, MeshError } from './errors.js';
import { VERSION } from './version.js';

const print = (line: string) => void process.stdout.write(`${line}\n`);

/** Collects a flag that may be given more than once. */
const each = (value: string, previous: string[] = []) => [...previous, value];

// Each command loads its own code when it runs: help and a bad flag don't wait for the mesh to be loaded.
function buildProgram(): Command {
  const program = new Command('valkey-mesh')
    .description('Active-active replication for stock Valkey.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError("(run 'valkey-mesh help' or 'valkey-mesh help COMMAND' to see what there is)");

  program
    .command('peer')
    .description("run one region's node beside its Valkey; clients connect to it as to a Valkey")
    .option('--region <name>', 'name of the region (required, here or in the config file)')
    .option('--config <file>', 'JSON file with these same settings; flags win over it')
    .option('--store <store>', "'memory', or the URL of this region's own Valkey (default: memory)")
    .option(
      '--listen <multiaddr>',
      'where the mesh listens; repeatable (default: /ip4/127.0.0.1/tcp/0)',
      each,
    )
    .option(
      '--announce <multiaddr>',
      'what other members are told to dial, or none; repeatable (default: as --listen)',
      each,
    )
    .option('--peer <multiaddr>', 'a member to dial; repeatable', each)
    .option('--resp <host:port>', 'where clients connect (default: 127.0.0.1:6380)')
    .option(
      '--resp-password <file>',
      'file with the password that clients must give; needed beyond this machine',
    )
    .option('--http <host:port>', 'where /healthz, /readyz, /metrics and /api/status are (default: nowhere)')
    .option(
      '--identity <file>',
      'private key of this peer; made if missing (default: a new one at each start)',
    )
    .option('--mesh-key <file>', 'key that all members share')
    .option('--allow <peerid>', 'PeerId of a member; repeatable (default: everyone who can connect)', each)
    .option(
      '--rule <rule>',
      "'PATTERN=TYPE[:POLICY]', such as 'seat:*=string:fww'; repeatable; the same on all members",
      each,
    )
    .option('--allow-flush', 'not supported yet')
    .option('--unreplicated <mode>', "what happens to commands that can't be replicated: refuse")
    .option(
      '--while-loading <mode>',
      'what clients get while an empty or lost region is brought up to the others: refuse (LOADING) or serve (default: refuse)',
    )
    .option(
      '--loading-patience <seconds>',
      'how long nothing may come until it serves what it has; 0 = for ever (default: 30)',
    )
    .option(
      '--tombstone-grace <seconds>',
      'how long what is left of a deleted key is kept, once every member knows of it (default: 60)',
    )
    .option('--log-level <level>', 'debug, info, warn, error or silent (default: info)')
    .option('--exit-with-parent', 'stop when standard input ends')
    .action(async (flags: Record<string, unknown>) => {
      const { config, exitWithParent, ...rest } = flags;
      const file =
        typeof config === 'string' ? { path: config, settings: await readConfig(config) } : undefined;
      const settings = resolvePeerConfig(asSettings(rest), file);
      const { runPeer } = await import('./cli/peer.js');
      process.exitCode = await runPeer(settings, exitWithParent === true);
    });

  program
    .command('demo')
    .description('run several regions on this machine, tell a short story with them, and stay up')
    .option('--regions <count>', 'how many regions, 2 to 8', '3')
    .option('--base-port <port>', "RESP port of the first region; the others' follow", '7001')
    .option('--http-port <port>', "HTTP port of the first region; the others' follow", '8080')
    .option('--store <kind>', 'valkey or memory', 'valkey')
    .option('--latency <ms>', 'round trip between two regions, half of it each way', '40')
    .option('--exit', 'end after the story')
    .action(async (flags: DemoFlags) => {
      const { demo } = await import('./cli/demo.js');
      process.exitCode = await demo(flags);
    });

  program
    .command('keygen')
    .description('make the identity of a peer, and the key of a mesh')
    .option(
      '--out <file>',
      'where the identity goes (default: identity.key, unless only --mesh-key is given)',
    )
    .option('--mesh-key <file>', 'where a new mesh key goes')
    .option('--json', 'print JSON')
    .action(async (flags: KeygenFlags) => {
      const { keygen } = await import('./cli/keygen.js');
      await keygen(flags, print);
    });

  program
    .command('status')
    .description('show the status of a running peer')
    .option('--url <url>', "the peer's --http door", 'http://127.0.0.1:8080')
    .option('--json', 'print JSON')
    .action((flags: StatusFlags) => status(flags, print));

  program
    .command('verify')
    .description(
      'compare all regions at a common cut; exit code 0: identical, 1: different, 3: not all could be compared',
    )
    .option('--url <url>', "the peer's --http door", 'http://127.0.0.1:8080')
    .option('--json', 'print JSON')
    .option('--deep', 'compare native values with the metadata too, and between regions')
    .option('--repair', 'put right what --deep finds')
    .action(async (flags: VerifyFlags) => {
      const { verify } = await import('./cli/verify.js');
      process.exitCode = await verify(flags, print, (line) => void process.stderr.write(`${line}\n`));
    });

  return program;
}

async function readConfig(path: string): Promise<GivenSettings> {
  const bytes = await readNamedFile('--config', path, 'give the path of a JSON file');
  return parseConfigFile(bytes.toString('utf8'), path);
}

/** Gives flags their own names back: commander turns mesh-key into meshKey. */
function asSettings(flags: Record<string, unknown>): GivenSettings {
  return Object.fromEntries(
    Object.entries(flags).map(([name, value]) => [
      name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
      value,
    ]),
  );
}

/** Says what went wrong, without a stack unless it is a bug; gives the exit code. */
function report(error: unknown): number {
  // Commander has printed its own message.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof MeshError) {
    process.stderr.write(`valkey-mesh: ${error.message}\n`);
    return error instanceof ConfigError ? 2 : 1;
  }
  process.stderr.write(
    `valkey-mesh: unexpected error; please report it\n${(error as Error).stack ?? error}\n`,
  );
  return 1;
}

try {
  await buildProgram().parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
// Connections that a library still holds must not keep a finished command alive.
process.exit();
