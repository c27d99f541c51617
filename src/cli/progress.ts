/**
 * The progress of loading, on a terminal: one line below the log that is written over as keys come. Where standard error is no
 * terminal there is none; the log tells it every few seconds then, as it does anyway.
 */
import type { LoadingStatus } from '../engine.js';
import type { Logger } from '../options.js';
import { describeLoading } from '../sync/loading.js';

/** Where the line goes: standard error. */
export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const EVERY_MS = 500;
/** To the first column, and erase. */
const CLEAR = '\r\x1b[2K';

export class ProgressLine {
  readonly #terminal: Terminal;
  #shown = '';
  #timer: NodeJS.Timeout | undefined;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** The same log, which steps over the line. */
  around(logger: Logger): Logger {
    if (this.#terminal.isTTY !== true) return logger;
    const over =
      (level: keyof Logger) =>
      (fields: object, message: string): void => {
        const line = this.#shown;
        this.#show('');
        logger[level](fields, message);
        this.#show(line);
      };
    return { debug: over('debug'), info: over('info'), warn: over('warn'), error: over('error') };
  }

  /** Shows the progress for as long as there is one. */
  follow(loading: () => LoadingStatus | null): void {
    if (this.#terminal.isTTY !== true) return;
    this.#timer = setInterval(() => {
      const status = loading();
      this.#show(status === null ? '' : describeLoading(status));
    }, EVERY_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#show('');
  }

  #show(line: string): void {
    if (line === '' && this.#shown === '') return;
    this.#shown = line;
    this.#terminal.write(CLEAR + line.slice(0, (this.#terminal.columns ?? 80) - 1));
  }
}
