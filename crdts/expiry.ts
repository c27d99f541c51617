/**
 * The expiry of a key: a multi-value register of deadlines.
 *
 * Conflict rule: of concurrent deadlines the longest holds, and no expiry (PERSIST) is longer than any. A later one
 * replaces what it saw, so one region alone may also shorten it.
 *
 * What merge must answer: what the multi-value register's answers. Which sibling holds is decided when it is read.
 */
import type { DataType } from './data-type.js';
import { ArgumentError, DecodeError } from './errors.js';
import { type MultiValue, type MultiValueOp, multiValueType } from './multi-value.js';

/** A deadline in Unix milliseconds, or null: an explicit 'no expiry'. */
export type Deadline = number | null;

/** The deadlines of one key that nothing has replaced. */
export type ExpiryState = MultiValue<Deadline>;
/** What can be done to an expiry: give a deadline (null = PERSIST), or clear what was seen. */
export type ExpiryOp = MultiValueOp<Deadline>;

/** The greatest deadline that Valkey's PEXPIREAT is given, in Unix milliseconds: the year 10889 or so. */
export const MAX_DEADLINE_MS = 2 ** 48 - 1;

/** The deadline that holds: the longest of the siblings, null = no expiry. */
export function deadlineOf(state: ExpiryState | null): Deadline {
  let longest: Deadline = null;
  if (state === null) return null;
  for (const { value } of state.siblings.values()) {
    if (value === null) return null;
    if (longest === null || value > longest) longest = value;
  }
  return longest;
}

function isDeadline(value: unknown): value is Deadline {
  if (value === null) return true;
  return (
    Number.isSafeInteger(value) &&
    (value as number) >= 0 &&
    (value as number) <= MAX_DEADLINE_MS &&
    !Object.is(value, -0)
  );
}

const deadlines = multiValueType<Deadline>(
  'expiry',
  (deadline) => deadline,
  (wire) => {
    if (isDeadline(wire)) return wire;
    throw new DecodeError('a deadline is not a time in milliseconds');
  },
);

/** The data type. One deadline costs about 16 bytes on the wire. */
export const expiryType: DataType<ExpiryState, ExpiryOp> = {
  ...deadlines,

  mutate(state, op, site) {
    if (op.op === 'write' && !isDeadline(op.value)) {
      throw new ArgumentError(`a deadline must be null or whole milliseconds from 0 to ${MAX_DEADLINE_MS}`);
    }
    return deadlines.mutate(state, op, site);
  },
};
