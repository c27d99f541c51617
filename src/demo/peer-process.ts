/**
 * One region's peer as a process of its own: the same program that `valkey-mesh peer` runs.
 *
 * The child watches its standard input, whose other end this process holds, so it ends with this process however that
 * dies, by kill -9 too. It is detached, so that Ctrl-C in the terminal reaches the demo only, which then stops in order.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ReadyLine } from '../cli/peer.js';
import { StartError } from '../cli/start-error.js';

/** The command line's own file: .ts when run from source, .js when built. */
const CLI = fileURLToPath(new URL(`../cli${extname(import.meta.url)}`, import.meta.url));
const READY_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 20_000;

/** A peer that was started; `ready` rejects with StartError, and the end of its log, when it ends or hangs before. */
export class PeerProcess {
  readonly ready: Promise<ReadyLine>;
  /** Resolves when the process is gone. */
  readonly gone: Promise<void>;
  readonly #child: ChildProcess;
  readonly #logPath: string;

  constructor(flags: readonly string[], logPath: string) {
    this.#logPath = logPath;
    const log = openSync(logPath, 'a', 0o600);
    this.#child = spawn(
      process.execPath,
      [...process.execArgv, CLI, 'peer', '--exit-with-parent', ...flags],
      {
        stdio: ['pipe', 'pipe', log],
        detached: true,
      },
    );
    closeSync(log);
    this.#child.stdin?.on('error', () => {});
    this.gone = new Promise((resolve) => {
      this.#child.once('error', () => resolve());
      this.#child.once('exit', () => resolve());
    });
    this.ready = this.#waitForReady();
    // Whoever stops a peer that isn't ready yet has no interest in why it never was.
    this.ready.catch(() => {});
  }

  /** The last lines of the log, for a report. */
  lastWords(): string {
    return readFileSync(this.#logPath, 'utf8').trimEnd().split('\n').slice(-5).join('\n');
  }

  /** Stops the peer in order, and when that takes too long, at once. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_LIMIT_MS);
    await this.gone;
    clearTimeout(timer);
  }

  async #waitForReady(): Promise<ReadyLine> {
    const line = new Promise<string>((resolve, reject) => {
      const fail = (why: string) =>
        reject(new StartError(`a peer ${why}; its log ends with:\n${this.lastWords()}`));
      const timer = setTimeout(
        () => fail(`was not ready within ${READY_LIMIT_MS / 1_000} s`),
        READY_LIMIT_MS,
      );
      timer.unref();
      void this.gone.then(() => fail('ended before it was ready'));
      createInterface({ input: this.#child.stdout! }).once('line', (text) => {
        clearTimeout(timer);
        resolve(text);
      });
    });
    return JSON.parse(await line) as ReadyLine;
  }
}
