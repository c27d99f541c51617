/** When a process is asked to stop: by SIGTERM, SIGINT, or by the end of whoever started it. */

export interface StopRequestOptions {
  /** Also when standard input ends: whoever started this process holds the other end, so its death is noticed, however it dies. Default: false. */
  readonly onStdinEnd?: boolean;
  /** Also when the parent process is gone. Default: false. */
  readonly onParentEnd?: boolean;
}

/** npm and tsx pass on signals that the terminal has sent to the whole group already: so close together, two are one. */
const SAME_SIGNAL_MS = 300;
/** How often the parent is looked for. */
const PARENT_CHECK_MS = 500;
/** A stop without anyone who watches it must come to an end by itself. */
const ORPHAN_LIMIT_MS = 5_000;

/**
 * Starts to listen; `asked` resolves with the reason, once. A second signal ends the process at once, with the exit
 * code that shells give to a process killed by that signal.
 */
export function stopRequest(options: StopRequestOptions = {}): { readonly asked: Promise<string> } {
  let ask: (reason: string) => void = () => {};
  let askedAtMs = Number.POSITIVE_INFINITY;
  const asked = new Promise<string>((resolve) => {
    ask = (reason) => {
      askedAtMs = Math.min(askedAtMs, performance.now());
      resolve(reason);
    };
  });
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const) {
    process.on(signal, () => {
      if (performance.now() > askedAtMs + SAME_SIGNAL_MS) process.exit(128 + number);
      ask(signal);
    });
  }
  const orphaned = (reason: string) => {
    setTimeout(() => process.exit(1), ORPHAN_LIMIT_MS).unref();
    ask(reason);
  };
  if (options.onStdinEnd) {
    process.stdin.on('error', () => {});
    // A pipe that breaks only closes, and /dev/null only ends.
    for (const event of ['end', 'close']) process.stdin.once(event, () => orphaned('standard input ended'));
    process.stdin.resume();
  }
  if (options.onParentEnd) {
    const parent = process.ppid;
    const watch = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(watch);
      orphaned('the parent is gone');
    }, PARENT_CHECK_MS);
    watch.unref();
  }
  return { asked };
}
