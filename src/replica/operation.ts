/**
 * What an operation is: the keys it needs, and a synchronous function that runs on them once they are loaded.
 *
 * Commands of the RESP front door and calls of the embed API are both operations. Those that arrive while a commit is
 * under way form the next batch; all operations of a batch run one after the other, with nothing in between, so each sees
 * a consistent state, and what a batch changes is one frame: visible as a whole in every region, or not at all.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { Decimal } from '../../crdts/decimal.js';
import type { Integer } from '../../crdts/integer.js';
import type { Stamp } from '../../crdts/stamp.js';

/** What an operation needs of one key. The key's type, expiry and set context always come. */
export interface Need {
  readonly key: ByteString;
  /** The string's value is read or counted on: GET, INCR, APPEND … Default: false. */
  readonly value?: boolean;
  /** Elements that are read or written. Default: none. `'all'` loads the whole set: only for who must see all of it. */
  readonly members?: readonly ByteString[] | 'all';
  /**
   * The operation only writes the key, whatever it holds, and its outcome doesn't depend on that: it may run as if there were no
   * such key, and again if there was one. Without `value` and `members`. Default: false.
   */
  readonly blind?: boolean;
}

export type KeyType = 'none' | 'string' | 'set';

/** What SET does to a key's expiry. A number is a deadline in Unix milliseconds. */
export type ExpiryChange = 'clear' | 'keep' | number;

/**
 * The state that an operation sees and changes. Reads see earlier operations of the same batch. Only what `needs`
 * named may be touched: anything else throws InvariantError. All times are Unix milliseconds; a key whose deadline
 * has come is absent.
 *
 * An operation must throw (WrongTypeError, NotAnIntegerError, …) *before* its first change; each method here keeps that rule.
 */
export interface Transaction {
  /** The time at which the operation's batch happens. */
  readonly nowMs: number;
  type(key: ByteString): KeyType;
  /** A string's value, or null when the key is absent. Needs `value`. Throws WrongTypeError for another type. */
  get(key: ByteString): ByteString | null;
  /**
   * Writes a string over whatever the key holds; says whether it did. False: the key's rule is 'first write wins' and it
   * has a value. Throws RuleError where the rule says set, NotAnIntegerError where it says counter and this isn't one.
   */
  set(key: ByteString, value: ByteString, expiry: ExpiryChange): boolean;
  /** Throws what {@link set} would throw, and RuleError where it would refuse: for those who write several keys or none. */
  checkSet(key: ByteString, value: ByteString): void;
  /** Adds to an integer; an absent key counts as 0. Needs `value`. Throws WrongTypeError, NotAnIntegerError or OverflowError. */
  increment(key: ByteString, by: Integer): Integer;
  /**
   * Adds to a number, exactly; an absent key counts as 0. Needs `value`. Throws WrongTypeError, NotAFloatError, NotFiniteError or
   * FloatRangeError, and NotAnIntegerError where the key's rule says counter and `by` isn't a 64-bit integer.
   */
  incrementFloat(key: ByteString, by: Decimal): Decimal;
  /** Removes a key of any type; says whether it was there. */
  delete(key: ByteString): boolean;
  /** Adds members; gives how many were absent. Needs these `members`. Throws WrongTypeError. */
  add(key: ByteString, members: readonly ByteString[]): number;
  /** Removes members; gives how many were present. Needs these `members`. Throws WrongTypeError. */
  remove(key: ByteString, members: readonly ByteString[]): number;
  /** Says whether a member is in the set. Needs this member. Throws WrongTypeError. */
  has(key: ByteString, member: ByteString): boolean;
  /** All members. Needs `members: 'all'`. Throws WrongTypeError. */
  members(key: ByteString): ByteString[];
  /** Number of members; 0 for an absent key. Throws WrongTypeError. */
  cardinality(key: ByteString): number;
  /** The deadline; null = no expiry, undefined = no such key. */
  deadline(key: ByteString): number | null | undefined;
  /** Sets the deadline, or with null removes it; says whether the key was there. Needs `value`. A deadline that is not in the future deletes the key. */
  expire(key: ByteString, deadlineMs: number | null): boolean;
  /** Upkeep: removes what is left of a key that is gone for every member at a stable stamp (crdts/forgetting.ts); says whether there was such. */
  sweep(key: ByteString, stable: Stamp): boolean;
  /** Upkeep: makes the batch's frame even if it turns out empty, so that others hear how far this replica's clock is. */
  beat(): void;
}

/** An operation. `run` may be called more than once (after a commit that failed): it must depend on nothing but its transaction. */
export interface Operation<T> {
  readonly needs: readonly Need[];
  /** Roughly how many bytes its arguments hold, for the bounds on queue and batch. Default: 0. */
  readonly bytes?: number;
  run(tx: Transaction): T;
}

/** Who waits for an operation. */
export interface Waiter<T> {
  /**
   * Tells the outcome: an error, or the operation's value and the number of this node's frame that holds its effects (0 = it changed nothing, but
   * everything that it read is committed). Called after the commit, in the order of submission.
   */
  settled(error: Error | null, value: T | undefined, frameNumber: number): void;
}
