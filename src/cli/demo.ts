/** `valkey-mesh demo`: several regions on this machine, a short story, and then a playground until Ctrl-C. */
import { checkPorts } from '../demo/ports.js';
import { tellStory } from '../demo/story.js';
import { createTerminal, type Terminal } from '../demo/terminal.js';
import { type DemoRegion, REGION_NAMES, World } from '../demo/world.js';
import { ConfigError } from '../errors.js';
import { obtainValkey, type ValkeyBinaries, ValkeyServerMissingError } from '../valkey-server/obtain.js';
import { StartError } from './start-error.js';
import { stopRequest } from './stop-request.js';

/** Flags as commander gives them. */
export interface DemoFlags {
  readonly regions: string;
  readonly basePort: string;
  readonly httpPort: string;
  readonly store: string;
  readonly latency: string;
  readonly exit?: boolean;
}

/** Runs the demo until it is told to stop; gives the exit code. Throws ConfigError for a bad flag, StartError when something doesn't start. */
export async function demo(flags: DemoFlags): Promise<number> {
  const regions = integer('--regions', flags.regions, 2, REGION_NAMES.length);
  const basePort = integer('--base-port', flags.basePort, 1, 65_536 - regions);
  const httpPort = integer('--http-port', flags.httpPort, 1, 65_536 - regions);
  const latencyMs = integer('--latency', flags.latency, 0, 10_000);
  if (flags.store !== 'valkey' && flags.store !== 'memory') {
    throw new ConfigError(`--store ${JSON.stringify(flags.store)}: give valkey or memory`);
  }
  // The tsx command runs this process as its child: when that is killed, nobody else would stop the demo.
  const underTsx = process.execArgv.some((arg) => arg.includes('/tsx/dist/preflight'));
  const { asked } = stopRequest({ onParentEnd: underTsx });
  await checkPorts([
    { flag: '--base-port', first: basePort, count: regions },
    { flag: '--http-port', first: httpPort, count: regions },
  ]);
  const terminal = createTerminal(process.stdout);
  const binaries = flags.store === 'valkey' ? await findValkey(terminal) : null;
  const world = new World({ regions, basePort, httpPort, oneWayMs: latencyMs / 2, binaries });
  const stopped = asked.then(() => 'stop' as const);
  try {
    const kept = binaries === null ? 'values in memory' : `its own Valkey ${binaries.version}`;
    terminal.line(terminal.bold(`valkey-mesh: ${regions} regions, each with ${kept}`));
    terminal.line(`Every link is delayed by ${latencyMs / 2} ms each way: ${latencyMs} ms apart. Starting …`);
    const play = async () => {
      const started = await world.start();
      await tellStory(world, started, terminal);
      return started;
    };
    const lost = world.lost.then((message) => {
      throw new StartError(message);
    });
    const ended = await Promise.race([play(), stopped, lost]);
    if (ended === 'stop') return 0;
    if (!flags.exit) {
      tellHowToConnect(ended, terminal);
      await Promise.race([stopped, lost]);
    }
    return 0;
  } finally {
    terminal.line(terminal.dim('\nStopping …'));
    await world.stop();
    terminal.line(terminal.dim('Everything is stopped.'));
  }
}

function tellHowToConnect(regions: readonly DemoRegion[], terminal: Terminal): void {
  terminal.heading('Now you: the regions stay up until Ctrl-C');
  const rows = regions.map(({ name, resp, http, valkeyPort }) => [
    name,
    `valkey-cli -p ${resp.port}`,
    valkeyPort === null ? 'memory' : `valkey-cli -p ${valkeyPort}`,
    `http://127.0.0.1:${http.port}/api/status`,
  ]);
  terminal.table([['region', 'write and read', 'its own Valkey (read)', 'status'], ...rows]);
}

async function findValkey(terminal: Terminal): Promise<ValkeyBinaries | null> {
  try {
    return await obtainValkey({
      onDownload: (folder) => terminal.line(terminal.dim(`Unpacking valkey-server into ${folder} …`)),
    });
  } catch (error) {
    if (!(error instanceof ValkeyServerMissingError)) throw error;
    terminal.line(terminal.bad(error.message));
    terminal.line('So this demo keeps its values in memory instead.');
    return null;
  }
}

function integer(flag: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (/^\d{1,6}$/.test(text) && value >= min && value <= max) return value;
  throw new ConfigError(`${flag} ${JSON.stringify(text)}: give a whole number from ${min} to ${max}`);
}
