/** When a process is asked to stop: by SIGTERM, SIGINT, or by the end of whoever started it. */

export interface StopRequestOptions {
  /** Also when standard input ends: whoever started this process holds the other end, so its death is noticed, however it dies. Default: false. */
  readonly onStdinEnd?: boolean;
  /** Also when the IPC channel closes, if there is one: the wrapper that runs this process is gone. Default: false. */
  readonly onDisconnect?: boolean;
}

/** A stop without anyone who watches it must come to an end by itself. */
const ORPHAN_LIMIT_MS = 5_000;

/**
 * Starts to listen; `asked` resolves with the reason, once. A second signal ends the process at once, with the exit
 * code that shells give to a process killed by that signal.
 */
export function stopRequest(options: StopRequestOptions = {}): { readonly asked: Promise<string> } {
  let ask: (reason: string) => void = () => {};
  let count = 0;
  const asked = new Promise<string>((resolve) => {
    ask = (reason) => {
      count += 1;
      resolve(reason);
    };
  });
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const) {
    process.on(signal, () => {
      if (count > 0) process.exit(128 + number);
      ask(signal);
    });
  }
  const orphaned = (reason: string) => {
    setTimeout(() => process.exit(1), ORPHAN_LIMIT_MS).unref();
    ask(reason);
  };
  if (options.onStdinEnd) {
    process.stdin.on('error', () => {});
    process.stdin.once('close', () => orphaned('standard input ended'));
    process.stdin.resume();
  }
  if (options.onDisconnect && process.connected)
    process.once('disconnect', () => orphaned('the parent is gone'));
  return { asked };
}
