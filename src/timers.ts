/** Time as a port, so that a simulation can run the real code on virtual time. */

/** Cancels what was scheduled; harmless after it has run. */
export type Cancel = () => void;

/** The clock and the timer that everything in this package uses. */
export interface Timers {
  /** Unix time in milliseconds. May stand still or jump back. */
  now(): number;
  /** Runs `fn` once, `delayMs` from now. A pending timer doesn't keep the process alive. */
  after(delayMs: number, fn: () => void): Cancel;
}

/** The machine's own clock and timers. */
export const systemTimers: Timers = {
  now: () => Date.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
