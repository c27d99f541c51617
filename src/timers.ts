/** Time as a port, so that a simulation can run the real code on virtual time. */

/** Cancels what was scheduled; harmless after it has run. */
export type Cancel = () => void;

/** The clock and the timer that everything in this package uses. */
export interface Timers {
  /** Unix time in milliseconds. May stand still or jump back. */
  now(): number;
  /** Runs `fn` once, `delayMs` from now, or after 24 days when that is earlier. A pending timer doesn't keep the process alive. */
  after(delayMs: number, fn: () => void): Cancel;
}

/** The longest that the machine's timers can wait; one that is given more goes off at once. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** The machine's own clock and timers. */
export const systemTimers: Timers = {
  now: () => Date.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, Math.min(delayMs, MAX_DELAY_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
