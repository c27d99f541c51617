/** When a key expires, as commands say it: EX, PX, EXAT, PXAT, and the arguments of EXPIRE and its relatives. */
import type { ByteString } from '../../crdts/bytes.js';
import { MAX_DEADLINE_MS } from '../../crdts/expiry.js';
import { invalidExpire, notAnInteger } from './errors.js';
import { parseInteger } from './numbers.js';

const INT64_MIN = -(2n ** 63n);

/** How a command gives a time: in seconds or milliseconds, as a time span from now or as a Unix time. */
export interface TimeUnit {
  readonly seconds: boolean;
  readonly absolute: boolean;
}

/** Units by the option's name, in capitals. */
export const TIME_UNITS: ReadonlyMap<string, TimeUnit> = new Map([
  ['EX', { seconds: true, absolute: false }],
  ['PX', { seconds: false, absolute: false }],
  ['EXAT', { seconds: true, absolute: true }],
  ['PXAT', { seconds: false, absolute: true }],
]);

/**
 * Gives the deadline in Unix milliseconds; 0 for any time before 1970. Throws CommandError as Valkey does when it isn't
 * an integer or, unless `allowPast`, isn't positive; and, unlike Valkey, when it is beyond {@link MAX_DEADLINE_MS} (the year 10,889), which is
 * as far as a deadline of ours goes.
 */
export function deadlineOf(
  text: ByteString,
  unit: TimeUnit,
  nowMs: number,
  command: string,
  allowPast = false,
): number {
  const amount = parseInteger(text);
  if (amount === null) throw notAnInteger();
  if (amount <= 0 && !allowPast) throw invalidExpire(command);
  if (typeof amount === 'bigint') {
    // Too far ahead in any unit; or long ago, if it fits into 64 bits of milliseconds.
    if (amount > 0n || (unit.seconds && amount < INT64_MIN / 1000n)) throw invalidExpire(command);
    return 0;
  }
  const span = unit.seconds ? amount * 1000 : amount;
  const deadline = Math.max(0, unit.absolute ? span : nowMs + span);
  if (deadline > MAX_DEADLINE_MS) throw invalidExpire(command);
  return deadline;
}
