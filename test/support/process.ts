/** Runs this package's command line as a real process, and sees to it that none is left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ReadyLine } from '../../src/cli/peer.js';
import { waitFor } from './wait.js';

const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A started process and what it has written so far. */
export class CliProcess {
  stdout = '';
  stderr = '';
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  #isEnded = false;

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}, stdin: 'pipe' | 'ignore' = 'pipe') {
    this.child = spawn(process.execPath, ['--import', 'tsx', CLI, ...args], {
      cwd: ROOT,
      env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env },
      stdio: [stdin, 'pipe', 'pipe'],
    });
    running.add(this);
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    // 'close' comes after the last output, 'exit' may come before it.
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        this.#isEnded = true;
        running.delete(this);
        resolve({ code, signal });
      });
    });
  }

  /** Waits for text on standard output or standard error. Throws, with all output, when the process ends without it. */
  async says(pattern: RegExp, deadlineMs = 60_000): Promise<void> {
    const said = () => pattern.test(this.stdout) || pattern.test(this.stderr);
    await waitFor(() => this.#isEnded || said(), { deadlineMs, what: String(pattern) });
    if (!said()) throw new Error(`ended without ${pattern}:\n${this.stdout}\n${this.stderr}`);
  }

  /** Waits for a peer's ready line. */
  async ready(): Promise<ReadyLine> {
    await this.says(/"pid":\d+\}\n/);
    return JSON.parse(this.stdout.split('\n')[0]!) as ReadyLine;
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended> {
    this.child.kill(signal);
    return this.ended;
  }
}

const running = new Set<CliProcess>();

/** Kills what a test left running; call it after each test. */
export async function killLeftovers(): Promise<void> {
  await Promise.all([...running].map((left) => left.end('SIGKILL')));
}

/** Runs a command to its end. */
export async function runCli(
  args: readonly string[],
  env?: NodeJS.ProcessEnv,
): Promise<CliProcess & { code: number | null }> {
  const started = new CliProcess(args, env);
  const { code } = await started.ended;
  return Object.assign(started, { code });
}

/** Says whether a process with this id is there. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Says whether a port of 127.0.0.1 can be listened on. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Finds the first of `count` neighbouring ports that are all free now. */
export async function freePorts(count: number): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    // Below the range that systems hand out themselves, so that nobody is given one of them in the meantime.
    const first = 10_000 + Math.floor(Math.random() * 20_000);
    const free = await Promise.all(Array.from({ length: count }, (_, at) => isPortFree(first + at)));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`found no ${count} neighbouring free ports`);
}
