/**
 * Starts a real Valkey server for the demo and the tests, and sees to it that it is gone afterwards, whatever happens
 * to this process.
 *
 * A wrapper shell starts a watchdog and then *becomes* the server (exec), so that there is no moment at which the server
 * runs unwatched. The watchdog reads from a pipe whose other end only this process holds: when this process dies, even
 * of kill -9, the pipe ends and the watchdog ends the server.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { MeshError } from '../../crdts/errors.js';
import { obtainValkey, type ValkeyBinaries } from './obtain.js';

/** Thrown when a server can't be started; the message holds the end of its log. */
export class ValkeyServerStartError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('VALKEY_SERVER_START', message, options);
  }
}

/** Options of {@link launchValkey}. */
export interface LaunchOptions {
  /** Data folder, kept afterwards. Default: a temporary one, removed at the end. */
  readonly dir?: string;
  /** Default: a free one. */
  readonly port?: number;
  /** Keep data over restarts in an append-only file. Default: false. */
  readonly appendonly?: boolean;
  /** More arguments of valkey-server, such as ['--maxmemory', '10mb']. */
  readonly args?: readonly string[];
  /** Lines of a sentinel's config: starts a sentinel, which keeps them in its folder, instead of a server of keys. */
  readonly sentinel?: readonly string[];
  /** The server to start. Default: what obtainValkey finds. */
  readonly binaries?: ValkeyBinaries;
  /** How long the server may take to accept connections, and to stop before it is killed. Default: 20,000. */
  readonly deadlineMs?: number;
}

/** A server that was started here. */
export interface LaunchedValkey {
  readonly port: number;
  /** `redis://127.0.0.1:port`. */
  readonly url: string;
  /** Process id of the running server; that of the last one when it is stopped. */
  readonly pid: number;
  readonly dir: string;
  readonly binaries: ValkeyBinaries;
  /** Stops the server (SIGTERM, then SIGKILL) and removes its temporary folder. Harmless when repeated. */
  stop(): Promise<void>;
  /** Sends a signal. SIGKILL and SIGTERM: resolves when the process is gone; its folder stays. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts the server on the same port and folder again, after stopping it if it runs. */
  restart(): Promise<void>;
}

// $1 = folder to remove after a crash of the parent, or empty; the rest is the server's command line.
const WRAPPER = `
remove=$1; shift
(
  trap '' INT TERM HUP
  read -r word <&3 && exit
  kill -TERM $$
  tries=0
  while kill -0 $$ && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -KILL $$
  if [ -n "$remove" ]; then rm -rf "$remove"; fi
) >/dev/null 2>&1 </dev/null &
exec 3<&-
exec "$@"
`;

const READY = 'Ready to accept connections';
const SENTINEL_READY = 'Sentinel ID is';
const PORT_TAKEN = /Address already in use|Failed listening on port/;

/** A TCP port of 127.0.0.1 that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string')
    throw new ValkeyServerStartError('no TCP port is free');
  return address.port;
}

class Launched implements LaunchedValkey {
  port: number;
  pid = 0;
  readonly dir: string;
  readonly binaries: ValkeyBinaries;
  readonly #options: LaunchOptions;
  readonly #temporary: boolean;
  readonly #deadlineMs: number;
  #child: ChildProcess | null = null;
  #gone: Promise<void> = Promise.resolve();

  constructor(options: LaunchOptions, binaries: ValkeyBinaries, port: number) {
    this.#options = options;
    this.#temporary = options.dir === undefined;
    this.dir = options.dir ?? mkdtempSync(join(tmpdir(), 'valkey-mesh-'));
    this.binaries = binaries;
    this.port = port;
    this.#deadlineMs = options.deadlineMs ?? 20_000;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts the server; resolves with its log when it ended before it was ready, and with null when it is ready. */
  async start(): Promise<string | null> {
    await mkdir(this.dir, { recursive: true });
    const logFile = join(this.dir, 'valkey.log');
    const log = await open(logFile, 'w');
    const { appendonly = false, args = [], sentinel } = this.#options;
    const common = [
      '--port',
      String(this.port),
      '--bind',
      '127.0.0.1',
      '--dir',
      this.dir,
      '--daemonize',
      'no',
    ];
    const server =
      sentinel === undefined
        ? [this.binaries.path, ...common, '--save', '', '--appendonly', appendonly ? 'yes' : 'no', ...args]
        : [this.binaries.path, await this.#sentinelConfig(sentinel), '--sentinel', ...common, ...args];
    const ready = sentinel === undefined ? READY : SENTINEL_READY;
    const child = spawn('/bin/sh', ['-c', WRAPPER, 'sh', this.#temporary ? this.dir : '', ...server], {
      // Its own session: Ctrl-C in the terminal reaches this process, which stops the server in its own time.
      detached: true,
      env: this.binaries.env,
      stdio: ['ignore', log.fd, log.fd, 'pipe'],
    });
    const lifeline = child.stdio[3] as Writable & { unref?: () => void };
    let failure: Error | null = null;
    let ended = false;
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#gone = new Promise((resolve) => {
      const end = () => {
        if (ended) return;
        ended = true;
        // A word, not just the end of the pipe: the watchdog then leaves without a look at a pid that may be someone else's by now.
        lifeline.end('gone\n');
        if (this.#child === child) this.#child = null;
        resolve();
      };
      child.once('exit', end);
      child.once('error', (error) => {
        failure = error;
        end();
      });
    });
    lifeline.on('error', () => {});
    lifeline.unref?.();
    child.unref();
    await log.close();

    const deadline = Date.now() + this.#deadlineMs;
    for (;;) {
      const text = await readFile(logFile, 'latin1').catch(() => '');
      if (failure !== null)
        throw new ValkeyServerStartError('valkey-server could not be started', { cause: failure });
      if (ended) return text;
      if (text.includes(ready)) return null;
      if (Date.now() > deadline) {
        await this.kill('SIGKILL');
        throw new ValkeyServerStartError(
          `valkey-server was not ready in ${this.#deadlineMs} ms:\n${text.slice(-2000)}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The sentinel writes what it learns into its config, so that is kept. */
  async #sentinelConfig(lines: readonly string[]): Promise<string> {
    const file = join(this.dir, 'sentinel.conf');
    await writeFile(file, `${lines.join('\n')}\n`, { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    return file;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    child.kill(signal);
    if (signal !== 'SIGKILL' && signal !== 'SIGTERM') return;
    // While it is waited for, it may keep this process alive.
    child.ref();
    const killer = setTimeout(() => child.kill('SIGKILL'), this.#deadlineMs);
    await this.#gone;
    clearTimeout(killer);
  }

  async stop(): Promise<void> {
    // A stopped (SIGSTOP) server can't act on SIGTERM.
    this.#child?.kill('SIGCONT');
    await this.kill('SIGTERM');
    if (this.#temporary) await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }

  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    const log = await this.start();
    if (log !== null)
      throw new ValkeyServerStartError(`valkey-server did not start again:\n${log.slice(-2000)}`);
  }
}

/**
 * Starts a Valkey server on 127.0.0.1 and waits until it accepts connections.
 *
 * Throws {@link ValkeyServerStartError} when it doesn't, and ValkeyServerMissingError when there is none to start.
 */
export async function launchValkey(options: LaunchOptions = {}): Promise<LaunchedValkey> {
  const binaries = options.binaries ?? (await obtainValkey());
  const launched = new Launched(options, binaries, options.port ?? (await freePort()));
  try {
    for (let attempt = 1; ; attempt += 1) {
      const log = await launched.start();
      if (log === null) return launched;
      // Someone else took the port since it was found free.
      if (options.port === undefined && attempt < 10 && PORT_TAKEN.test(log))
        launched.port = await freePort();
      else throw new ValkeyServerStartError(`valkey-server ended before it was ready:\n${log.slice(-2000)}`);
    }
  } catch (error) {
    await launched.stop();
    throw error;
  }
}
