/** The log of a peer: one JSON object per line on standard error. */
import pino from 'pino';
import type { PeerConfig } from '../config.js';
import type { Logger } from '../options.js';

/** Makes the log. Writing never blocks on a reader that is gone, and never throws. */
export function createLog(level: PeerConfig['logLevel'], fields: object): Logger {
  const out = pino.destination({ dest: 2, sync: true });
  // Whoever read the log is gone (EPIPE): a peer doesn't stop for that.
  out.on('error', () => {});
  return pino(
    { level, base: { ...fields, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
    out,
  );
}
