/**
 * A document: many keys in memory, changed here and merged with other documents. No IO: you carry its deltas, as bytes of
 * any codec, over any transport, in any order and as often as you like.
 *
 * ```ts
 * const here = createDocument({ replica: 'laptop', now: Date.now });
 * here.set(utf8('greeting'), utf8('hello'));
 * here.increment(utf8('visits'), 1);
 * for (const delta of here.takeDeltas()) there.merge(unpack(send(pack(delta))));
 * ```
 *
 * Deltas are numbered, and each names what must have been merged before it. One that comes too early is held back until it
 * is ready; one that comes again is known, and changes nothing. A delta that was lost for good is replaced by a snapshot:
 * `there.mergeSnapshot(here.snapshot())` brings `there` to all that `here` knows.
 *
 * Deltas have the wire form of the mesh's frames (frame-wire.ts); operations mean what they mean in the mesh (key-ops.ts).
 */
import { type ByteString, isByteString, utf8 } from './bytes.js';
import type { Decimal } from './decimal.js';
import { DeltaExchange } from './delta-exchange.js';
import { addDigests, keyDigest } from './digest.js';
import type { DocumentOptions, Merged } from './document-options.js';
import type { DeltaMark } from './document-snapshot.js';
import type { ReplicaId, Site } from './dot.js';
import { ArgumentError } from './errors.js';
import { deadlineOf } from './expiry.js';
import type { Integer } from './integer.js';
import {
  addMembers,
  countOn,
  deleteKey,
  type ExpiryChange,
  expireKey,
  holds,
  type KeyEdit,
  removeMembers,
  setString,
  setValue,
  winningString,
} from './key-ops.js';
import { cloneKeyState, emptyKeyState, type KeyState, type VisibleType, visibleType } from './key-state.js';
import { hasMember, membersOf } from './or-set.js';
import { Rules, requireCountable, requireMembers, requireWritable } from './rules.js';
import type { StringOp } from './string-key.js';

/** Makes a document. Throws ArgumentError for options that can't be, and DecodeError for a snapshot that is none. */
export function createDocument(options: DocumentOptions): Document {
  return new Document(options);
}

/** Many keys in memory. Made by {@link createDocument}. */
export class Document {
  readonly replica: ReplicaId;
  readonly #exchange: DeltaExchange;
  readonly #rules: Rules;
  readonly #region: ByteString;

  /** Use {@link createDocument}. */
  constructor(options: DocumentOptions) {
    this.#exchange = new DeltaExchange(options);
    this.replica = options.replica;
    this.#rules = options.rules ?? new Rules();
    this.#region = utf8(options.region ?? options.replica);
  }

  /** The type of a key, 'none' when it doesn't exist or has expired. */
  type(key: ByteString): VisibleType {
    const state = this.#exchange.keys.get(key);
    return state === undefined ? 'none' : visibleType(state, this.#exchange.nowMs());
  }

  /** A string's value, or null when the key doesn't exist. Throws WrongTypeError, and ResolverError when the key's resolver fails. */
  get(key: ByteString): ByteString | null {
    if (!holds(this.type(key), 'string')) return null;
    return winningString(this.#exchange.keys.get(key)!, this.#rules.of(key).resolve);
  }

  /**
   * Writes a string over whatever the key holds; says whether it did (false: its rule is 'fww', and it has a value). `expiry`:
   * 'clear', 'keep', or a deadline in Unix milliseconds. Default: 'clear'. Throws RuleError where the rule wants another type.
   */
  set(key: ByteString, value: ByteString, expiry: ExpiryChange = 'clear'): boolean {
    this.#check(value);
    const rule = this.#rules.of(key);
    requireWritable(rule, value);
    if (rule.firstWriteWins && this.type(key) !== 'none') return false;
    this.#edit(key, (state, visible, site) =>
      rule.compact
        ? setString(state, visible, value, expiry, site)
        : setValue(state, visible, { bytes: value, region: this.#region }, expiry, site),
    );
    return true;
  }

  /** Adds to an integer (a negative `by` subtracts), and gives the new one; an absent key counts as 0. Throws WrongTypeError, NotAnIntegerError, OverflowError, RuleError. */
  increment(key: ByteString, by: Integer = 1): Integer {
    return this.#count(key, { op: 'add', by }) as Integer;
  }

  /** Adds to a number, exactly, and gives the new one. Throws WrongTypeError, NotAFloatError, FloatRangeError, RuleError. */
  incrementFloat(key: ByteString, by: Decimal): Decimal {
    return this.#count(key, { op: 'addFloat', by });
  }

  /** Removes a key of any type; says whether it was there. */
  delete(key: ByteString): boolean {
    return this.#edit(key, deleteKey);
  }

  /** Adds members to a set; gives how many were absent. Throws WrongTypeError. */
  add(key: ByteString, ...members: readonly ByteString[]): number {
    for (const member of members) this.#check(member);
    requireMembers(this.#rules.of(key));
    return this.#edit(key, (state, visible, site) => addMembers(state, visible, members, site));
  }

  /** Removes members from a set; gives how many were present. Throws WrongTypeError. */
  remove(key: ByteString, ...members: readonly ByteString[]): number {
    return this.#edit(key, (state, visible, site) => removeMembers(state, visible, members, site));
  }

  /** Says whether a member is in a set. Throws WrongTypeError. */
  has(key: ByteString, member: ByteString): boolean {
    return holds(this.type(key), 'set') && hasMember(this.#exchange.keys.get(key)!.set!, member);
  }

  /** The members of a set, in no certain order. Throws WrongTypeError. */
  members(key: ByteString): ByteString[] {
    return holds(this.type(key), 'set') ? membersOf(this.#exchange.keys.get(key)!.set!) : [];
  }

  /** Sets a key's deadline in Unix milliseconds, or with null removes it; says whether the key was there. One that has passed deletes it. */
  expire(key: ByteString, deadlineMs: number | null): boolean {
    return this.#edit(key, (state, visible, site, nowMs) =>
      expireKey(state, visible, deadlineMs, nowMs, site),
    );
  }

  /** A key's deadline in Unix milliseconds; null = none, undefined = no such key. */
  deadline(key: ByteString): number | null | undefined {
    return this.type(key) === 'none' ? undefined : deadlineOf(this.#exchange.keys.get(key)!.expiry);
  }

  /** The keys that exist, in no certain order. */
  keys(): ByteString[] {
    const nowMs = this.#exchange.nowMs();
    return [...this.#exchange.keys].flatMap(([key, state]) =>
      visibleType(state, nowMs) === 'none' ? [] : [key],
    );
  }

  /** A copy of a key's state, for explainKey or a digest; null when the key was never written. */
  state(key: ByteString): KeyState | null {
    const state = this.#exchange.keys.get(key);
    return state === undefined ? null : cloneKeyState(state);
  }

  /** A number that is equal where the live data of two documents are; differs otherwise, but for one chance in 2^48. */
  digest(): number {
    let sum = 0;
    for (const [key, state] of this.#exchange.keys) sum = addDigests(sum, keyDigest(key, state));
    return sum;
  }

  /** How far each replica's deltas have been merged, its own included: who holds more has something to send. */
  get merged(): ReadonlyMap<ReplicaId, DeltaMark> {
    return this.#exchange.merged;
  }

  /** Number of deltas that are held back. */
  get held(): number {
    return this.#exchange.held;
  }

  /**
   * What was done here since the last call, as deltas for every other document; none when nothing was. Each is a tree of arrays,
   * numbers, strings, byte arrays and nulls. They are not kept here: keep them until they are sure to have arrived.
   */
  takeDeltas(): unknown[][] {
    return this.#exchange.take();
  }

  /**
   * Merges a delta from {@link takeDeltas}, and what was held back for it. Throws DecodeError when it is malformed, NotReadyError
   * when it can't be held back, InvariantError when it bears this replica's name but isn't its own. Then nothing was changed.
   */
  merge(delta: unknown): Merged {
    return this.#exchange.merge(delta);
  }

  /**
   * Merges a delta from its msgpack bytes, faster than {@link merge} does from the tree: simple writes and members of sets are read from
   * the bytes themselves, all else by `unpack`, your msgpack library's, which is given the whole or a key of it. Throws what {@link merge}
   * and `unpack` throw.
   */
  mergeBytes(bytes: Uint8Array, unpack: (bytes: Uint8Array) => unknown): Merged {
    return this.#exchange.mergeBytes(bytes, unpack);
  }

  /**
   * The whole document as a tree, to restore it ({@link DocumentOptions.snapshot}) or to bring another one up to date
   * ({@link mergeSnapshot}). What {@link takeDeltas} would give is in it, but still to be taken; what is held back is not.
   */
  snapshot(): unknown[] {
    return this.#exchange.snapshot();
  }

  /**
   * Merges a snapshot of another document: afterwards all that it knew is known here too. Throws DecodeError when it is malformed,
   * StampRangeError when it is from too far in the future, InvariantError when it holds more of this replica than this document.
   */
  mergeSnapshot(snapshot: unknown): void {
    this.#exchange.mergeSnapshot(snapshot);
  }

  #check(bytes: ByteString): void {
    if (!isByteString(bytes))
      throw new ArgumentError('keys, values and members are byte strings: encode text with utf8()');
    if (bytes.length > this.#exchange.maxValueBytes)
      throw new ArgumentError(`${bytes.length} bytes are more than maxValueBytes allows`);
  }

  #count(key: ByteString, op: Extract<StringOp, { readonly by: unknown }>): Decimal {
    const rule = this.#rules.of(key);
    requireCountable(rule);
    return this.#edit(key, (state, visible, site) => {
      const current = visible === 'string' ? winningString(state, rule.resolve) : null;
      return countOn(state, visible, current, op, site);
    });
  }

  #edit<R>(
    key: ByteString,
    operate: (state: KeyState, visible: VisibleType, site: Site, nowMs: number) => KeyEdit<R>,
  ): R {
    this.#check(key);
    const nowMs = this.#exchange.nowMs();
    const state = this.#exchange.keys.get(key) ?? emptyKeyState();
    const { delta, result } = operate(state, visibleType(state, nowMs), this.#exchange.nextSite(), nowMs);
    if (delta !== null) this.#exchange.commit(key, delta);
    return result;
  }
}
