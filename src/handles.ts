/**
 * Handles: typed views of single keys, as the embed API hands them out. A handle holds no state: it can be kept, thrown
 * away and made again at will.
 *
 * Keys, values and members are text or bytes. Text is stored as UTF-8. What is read comes back as text, or as
 * Uint8Array from a handle that was made with `'bytes'`.
 */
import { type ByteString, fromUint8Array, text, toUint8Array, utf8 } from '../crdts/bytes.js';
import { type Integer, integer, isInt64, parseInt64 } from '../crdts/integer.js';
import type { Engine } from './engine.js';
import { ArgumentError, NotAnIntegerError, WrongTypeError } from './errors.js';
import type { ExpiryChange, Need, Operation, Transaction, Waiter } from './replica/operation.js';
import { isReservedKey } from './store/layout.js';
import { type NativeReads, WRONG_TYPE, type WrongType } from './store/store.js';

/** Text (stored as UTF-8) or bytes. */
export type Bytes = string | Uint8Array;

/** How a handle gives what it reads. */
export type Form = 'text' | 'bytes';
export type Read<F extends Form> = F extends 'bytes' ? Uint8Array : string;

/** Turns an argument into bytes. Throws ArgumentError for anything but a string or a Uint8Array. */
export function toBytes(value: Bytes, what: string): ByteString {
  if (typeof value === 'string') return utf8(value);
  if (value instanceof Uint8Array) return fromUint8Array(value);
  throw new ArgumentError(`a ${what} must be a string or a Uint8Array`);
}

/** Turns a key into bytes. Throws ArgumentError for a key under the reserved prefix, or one that is too long. */
export function toKey(engine: Engine, key: Bytes): ByteString {
  const bytes = toBytes(key, 'key');
  if (isReservedKey(bytes))
    throw new ArgumentError('keys that begin with __mesh: are reserved: choose another name');
  if (bytes.length > engine.maxValueBytes)
    throw new ArgumentError(`a key may have ${engine.maxValueBytes} bytes at most`);
  return bytes;
}

function fromBytes<F extends Form>(value: ByteString, form: F): Read<F> {
  return (form === 'bytes' ? toUint8Array(value) : text(value)) as Read<F>;
}

function checked<T>(value: T | WrongType): T {
  if (value === WRONG_TYPE) throw new WrongTypeError();
  return value;
}

/** The native reads. Throws LoadingError while the node refuses operations. */
function readsOf(engine: Engine): NativeReads {
  const refusal = engine.refusal();
  if (refusal !== null) throw refusal;
  return engine.reads;
}

/** Runs one operation and waits for its commit. */
export function run<T>(engine: Engine, operation: Operation<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    engine.submit(operation, {
      settled: (error, value) => (error === null ? resolve(value as T) : reject(error)),
    });
  });
}

type Resolve = (value: unknown) => void;
type Reject = (error: Error) => void;

/** What the promise that was made last is settled with. */
let resolveLast: Resolve;
let rejectLast: Reject;
const capture = (resolve: Resolve, reject: Reject): void => {
  resolveLast = resolve;
  rejectLast = reject;
};

/** An operation on one key, and who waits for it: few objects, and no closures, for there may be thousands under way. */
abstract class Call<T, Given = T> implements Operation<T>, Waiter<T> {
  readonly key: ByteString;
  readonly bytes: number;
  #resolve: Resolve | undefined;
  #reject: Reject | undefined;

  constructor(key: ByteString, bytes: number) {
    this.key = key;
    this.bytes = bytes;
  }

  /** Made when it is asked for, and soon forgotten. */
  abstract get needs(): readonly Need[];
  abstract run(tx: Transaction): T;

  /** What the caller gets for a value. */
  protected given(value: T): Given {
    return value as unknown as Given;
  }

  /** Runs it and waits for its commit. */
  on(engine: Engine): Promise<Given> {
    const promise = new Promise<unknown>(capture) as Promise<Given>;
    this.#resolve = resolveLast;
    this.#reject = rejectLast;
    engine.submit(this, this);
    return promise;
  }

  settled(error: Error | null, value: T | undefined): void {
    if (error === null) this.#resolve!(this.given(value as T));
    else this.#reject!(error);
  }
}

class Write extends Call<boolean> {
  readonly #value: ByteString;
  readonly #options: SetOptions | undefined;

  constructor(key: ByteString, value: ByteString, options: SetOptions | undefined) {
    super(key, key.length + value.length);
    this.#value = value;
    this.#options = options;
  }

  get needs(): readonly Need[] {
    return [{ key: this.key, blind: true }];
  }

  run(tx: Transaction): boolean {
    return tx.set(this.key, this.#value, expiryOf(this.#options, tx));
  }
}

class Remove extends Call<boolean> {
  get needs(): readonly Need[] {
    return [{ key: this.key }];
  }

  run(tx: Transaction): boolean {
    return tx.delete(this.key);
  }
}

class Increment extends Call<Integer, bigint> {
  readonly #by: Integer;

  constructor(key: ByteString, by: Integer) {
    super(key, 0);
    this.#by = by;
  }

  get needs(): readonly Need[] {
    return [{ key: this.key, value: true }];
  }

  run(tx: Transaction): Integer {
    return tx.increment(this.key, this.#by);
  }

  protected override given(value: Integer): bigint {
    return BigInt(value);
  }
}

class Members extends Call<number> {
  readonly #members: readonly ByteString[];
  readonly #remove: boolean;

  constructor(key: ByteString, members: readonly ByteString[], remove: boolean) {
    super(
      key,
      members.reduce((bytes, member) => bytes + member.length, key.length),
    );
    this.#members = members;
    this.#remove = remove;
  }

  get needs(): readonly Need[] {
    return [{ key: this.key, members: this.#members }];
  }

  run(tx: Transaction): number {
    return this.#remove ? tx.remove(this.key, this.#members) : tx.add(this.key, this.#members);
  }
}

export interface SetOptions {
  /** Milliseconds until the key expires, in every region. Default: no expiry; a present one is cleared. */
  readonly ttlMs?: number;
  /** Leave a present expiry as it is. Default: false. */
  readonly keepTtl?: boolean;
}

/** Throws ArgumentError for options that say nothing, or two things. */
function checkOptions({ ttlMs, keepTtl }: SetOptions): void {
  if (ttlMs !== undefined && !(Number.isSafeInteger(ttlMs) && ttlMs > 0))
    throw new ArgumentError('ttlMs must be a whole number of milliseconds above 0');
  if (ttlMs !== undefined && keepTtl === true) throw new ArgumentError('give ttlMs or keepTtl, not both');
}

/** What the options say of a key's expiry. */
function expiryOf(options: SetOptions | undefined, tx: Transaction): ExpiryChange {
  if (options?.ttlMs !== undefined) return tx.nowMs + options.ttlMs;
  return options?.keepTtl === true ? 'keep' : 'clear';
}

/** A string key as a register: the last write wins. Every method rejects with WrongTypeError when the key holds a set. */
export class RegisterHandle<F extends Form = 'text'> {
  readonly #engine: Engine;
  readonly #key: ByteString;
  readonly #form: F;

  constructor(engine: Engine, key: Bytes, form: F) {
    this.#engine = engine;
    this.#key = toKey(engine, key);
    this.#form = form;
  }

  /** Reads the value; null = absent. */
  async get(): Promise<Read<F> | null> {
    const [value] = await readsOf(this.#engine).strings([this.#key]);
    const bytes = checked(value ?? null);
    return bytes === null ? null : fromBytes(bytes, this.#form);
  }

  /**
   * Writes the value, over whatever the key holds; resolves when it is committed in this region's store. False: the
   * key's policy is 'fww' and it has a value already.
   */
  set(value: Bytes, options?: SetOptions): Promise<boolean> {
    // Not an async function: that would be two promises more for each write.
    try {
      if (options !== undefined) checkOptions(options);
      // A copy: the caller's may change before the operation runs.
      const kept = options && { ...options };
      return new Write(this.#key, toBytes(value, 'value'), kept).on(this.#engine);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Removes the key; says whether it was there. */
  delete(): Promise<boolean> {
    return new Remove(this.#key, 0).on(this.#engine);
  }
}

/**
 * A string key as a counter: every region's increments count. Of integers only: a value that INCRBYFLOAT gave a fraction is none.
 */
export class CounterHandle {
  readonly #engine: Engine;
  readonly #key: ByteString;

  constructor(engine: Engine, key: Bytes) {
    this.#engine = engine;
    this.#key = toKey(engine, key);
  }

  /**
   * Adds (default 1) and gives this region's new value. Rejects with NotAnIntegerError when the key holds something
   * else or the step is not a 64-bit integer, with OverflowError when the value would leave 64 bits.
   */
  increment(by: number | bigint = 1): Promise<bigint> {
    const whole = typeof by === 'bigint' || Number.isSafeInteger(by);
    const step = typeof by === 'bigint' ? integer(by) : by;
    if (!whole || !isInt64(step)) return Promise.reject(new NotAnIntegerError());
    return new Increment(this.#key, step).on(this.#engine);
  }

  /** Subtracts (default 1); as {@link increment}. */
  decrement(by: number | bigint = 1): Promise<bigint> {
    return this.increment(typeof by === 'bigint' ? -by : -by);
  }

  /** Reads the value; an absent key counts as 0. Rejects with NotAnIntegerError when the key holds something else. */
  async value(): Promise<bigint> {
    const [value] = await readsOf(this.#engine).strings([this.#key]);
    const bytes = checked(value ?? null);
    if (bytes === null) return 0n;
    const parsed = parseInt64(bytes) ?? (/^-?[1-9][0-9]{0,40}$/.test(bytes) ? BigInt(bytes) : null);
    if (parsed === null) throw new NotAnIntegerError();
    return BigInt(parsed);
  }

  /** Removes the key: increments that it saw are gone, concurrent ones in other regions stay. Says whether it was there. */
  delete(): Promise<boolean> {
    return new Remove(this.#key, 0).on(this.#engine);
  }
}

/** A set key, add-wins. Every method rejects with WrongTypeError when the key holds a string. */
export class SetHandle<F extends Form = 'text'> {
  readonly #engine: Engine;
  readonly #key: ByteString;
  readonly #form: F;

  constructor(engine: Engine, key: Bytes, form: F) {
    this.#engine = engine;
    this.#key = toKey(engine, key);
    this.#form = form;
  }

  /** Adds members; gives how many were absent. Present ones are refreshed: they survive a concurrent removal. */
  add(...members: readonly Bytes[]): Promise<number> {
    return this.#change(members, false);
  }

  /** Removes members; gives how many were present. */
  delete(...members: readonly Bytes[]): Promise<number> {
    return this.#change(members, true);
  }

  /** Says whether a member is there. */
  async has(member: Bytes): Promise<boolean> {
    const found = checked(await readsOf(this.#engine).contains(this.#key, [toBytes(member, 'member')]));
    return found[0] === true;
  }

  /** Number of members. */
  async size(): Promise<number> {
    return checked(await readsOf(this.#engine).cardinality(this.#key));
  }

  /** All members, in no order. */
  async values(): Promise<Read<F>[]> {
    const members = checked(await readsOf(this.#engine).members(this.#key));
    return members.map((member) => fromBytes(member, this.#form));
  }

  /** Removes the set: members that this region hasn't seen stay. Says whether it was there. */
  clear(): Promise<boolean> {
    return new Remove(this.#key, 0).on(this.#engine);
  }

  /** Iterates over the members, as they are when it begins. */
  async *[Symbol.asyncIterator](): AsyncIterator<Read<F>> {
    yield* await this.values();
  }

  #change(members: readonly Bytes[], remove: boolean): Promise<number> {
    try {
      if (members.length === 0) throw new ArgumentError('name at least one member');
      const named = members.map((member) => toBytes(member, 'member'));
      return new Members(this.#key, named, remove).on(this.#engine);
    } catch (error) {
      return Promise.reject(error);
    }
  }
}
