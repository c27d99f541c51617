/**
 * Transactions: operations on loaded keys, in terms of the data types. Each method changes the records in memory and
 * adds to the batch's deltas; nothing is stored or sent here.
 *
 * Time is the replica's hybrid clock: an operation that is stamped after a deadline finds the key gone, whatever the
 * machine's clock says, so regions agree on what a deadline cut off.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { type Decimal, isWhole } from '../../crdts/decimal.js';
import type { Site } from '../../crdts/dot.js';
import { type Deadline, deadlineOf, expiryType, MAX_DEADLINE_MS } from '../../crdts/expiry.js';
import { type Integer, integer, isInt64, parseInt64 } from '../../crdts/integer.js';
import {
  appendKeyDelta,
  emptyKeyState,
  type KeyState,
  visibleType,
  winningPart,
} from '../../crdts/key-state.js';
import { hasMember, isSetLive, membersOf, setType } from '../../crdts/or-set.js';
import { hasValues, valuesType } from '../../crdts/policy.js';
import { UNLOADED } from '../../crdts/register.js';
import type { Rule } from '../../crdts/rules.js';
import { type HybridClock, stampMs } from '../../crdts/stamp.js';
import {
  incremented,
  incrementedFloat,
  isStringLive,
  type StringOp,
  stringType,
  stringValue,
} from '../../crdts/string-key.js';
import {
  ArgumentError,
  InvariantError,
  LimitError,
  NotAnIntegerError,
  RuleError,
  WrongTypeError,
} from '../errors.js';
import { beginChange, type KeyChange, mergeChange } from './key-change.js';
import type { KeyRecord } from './key-record.js';
import type { KeyRules } from './key-rules.js';
import type { ExpiryChange, KeyType, Transaction } from './operation.js';

/** One batch's transaction; its operations run on it one after the other, each begun with {@link begin}. */
export class BatchTransaction implements Transaction {
  /** What the batch's frame will say: one delta per key. */
  readonly deltas = new Map<ByteString, KeyState>();
  readonly changes = new Map<ByteString, KeyChange>();
  /** Counts changes, so that a caller can tell whether an operation has made any. */
  mutations = 0;
  nowMs = 0;
  readonly #replica: string;
  readonly #clock: HybridClock;
  readonly #now: () => number;
  readonly #records: ReadonlyMap<ByteString, KeyRecord>;
  readonly #maxValueBytes: number;
  readonly #rules: KeyRules;
  #site: Site | null = null;

  /** @param records the keys that the batch's operations need, loaded */
  constructor(
    replica: string,
    clock: HybridClock,
    now: () => number,
    records: ReadonlyMap<ByteString, KeyRecord>,
    maxValueBytes: number,
    rules: KeyRules,
  ) {
    this.#replica = replica;
    this.#clock = clock;
    this.#now = now;
    this.#records = records;
    this.#maxValueBytes = maxValueBytes;
    this.#rules = rules;
  }

  /** Starts the next operation. */
  begin(): void {
    this.#site = null;
    this.nowMs = Math.max(Math.floor(this.#now()), stampMs(this.#clock.last));
  }

  type(key: ByteString): KeyType {
    return this.#type(this.#record(key));
  }

  get(key: ByteString): ByteString | null {
    const record = this.#record(key);
    return this.#holds(record, 'string') ? this.#text(record) : null;
  }

  set(key: ByteString, value: ByteString, expiry: ExpiryChange): boolean {
    const rule = this.#checkRule(key, value);
    const record = this.#record(key);
    const { state } = record;
    const exists = this.#type(record) !== 'none';
    if (exists && rule.firstWriteWins) return false;
    const delta = emptyKeyState();
    if (rule.compact) {
      delta.string = stringType.mutate(
        state.string ?? stringType.empty(),
        { op: 'write', value },
        this.#stamp(),
      );
      if (state.values !== null && hasValues(state.values)) {
        delta.values = valuesType.mutate(state.values, { op: 'clear' }, this.#stamp());
      }
    } else {
      const written = { bytes: value, region: this.#rules.region };
      delta.values = valuesType.mutate(
        state.values ?? valuesType.empty(),
        { op: 'write', value: written },
        this.#stamp(),
      );
      if (state.string !== null && isStringLive(state.string)) {
        delta.string = stringType.mutate(state.string, { op: 'delete' }, this.#stamp());
      }
    }
    if (state.set !== null && isSetLive(state.set))
      delta.set = setType.mutate(state.set, { op: 'clear' }, this.#stamp());
    if (typeof expiry === 'number') this.#setDeadline(state, delta, expiry);
    else if (expiry === 'clear' || !exists) this.#clearDeadline(state, delta);
    this.#apply(record, delta);
    return true;
  }

  checkSet(key: ByteString, value: ByteString): void {
    const rule = this.#checkRule(key, value);
    if (rule.firstWriteWins && this.type(key) !== 'none') {
      throw new RuleError(
        'the rule for this key says that the first write wins, and it has a value: delete it first',
      );
    }
  }

  increment(key: ByteString, by: bigint): bigint {
    const { record, current } = this.#countable(key);
    const step = integer(by);
    const next: Integer = incremented(current, step);
    this.#count(record, current !== null, { op: 'add', by: step });
    return BigInt(next);
  }

  incrementFloat(key: ByteString, by: Decimal): Decimal {
    if (this.#rules.of(key).type === 'counter') {
      this.#countable(key);
      if (!isWhole(by) || !isInt64(by)) throw new NotAnIntegerError();
      return integer(this.increment(key, BigInt(by)));
    }
    const { record, current } = this.#countable(key);
    const next = incrementedFloat(current, by);
    this.#count(record, current !== null, { op: 'addFloat', by });
    return next;
  }

  delete(key: ByteString): boolean {
    const record = this.#record(key);
    if (this.#type(record) === 'none') return false;
    this.#sweep(record);
    return true;
  }

  add(key: ByteString, members: readonly ByteString[]): number {
    const record = this.#record(key);
    const rule = this.#rules.of(key);
    if (rule.type !== 'any' && rule.type !== 'set')
      throw new RuleError(`the rule for this key says that it holds a ${rule.type}`);
    const exists = this.#holds(record, 'set');
    for (const member of members) this.#checkSize(member);
    const absent = new Set<ByteString>();
    for (const member of members) if (!exists || !hasMember(record.state.set!, member)) absent.add(member);
    if (!exists) this.#sweep(record);
    const delta = emptyKeyState();
    delta.set = setType.mutate(record.state.set ?? setType.empty(), { op: 'add', members }, this.#stamp());
    this.#apply(record, delta);
    return absent.size;
  }

  remove(key: ByteString, members: readonly ByteString[]): number {
    const record = this.#record(key);
    if (!this.#holds(record, 'set')) return 0;
    const present = [...new Set(members)].filter((member) => hasMember(record.state.set!, member));
    if (present.length === 0) return 0;
    const delta = emptyKeyState();
    delta.set = setType.mutate(record.state.set!, { op: 'remove', members: present }, this.#stamp());
    this.#apply(record, delta);
    return present.length;
  }

  has(key: ByteString, member: ByteString): boolean {
    const record = this.#record(key);
    return this.#holds(record, 'set') && hasMember(record.state.set!, member);
  }

  members(key: ByteString): ByteString[] {
    const record = this.#record(key);
    return this.#holds(record, 'set') ? membersOf(record.state.set!) : [];
  }

  cardinality(key: ByteString): number {
    const record = this.#record(key);
    return this.#holds(record, 'set') ? record.state.set!.size : 0;
  }

  deadline(key: ByteString): number | null | undefined {
    const record = this.#record(key);
    return this.#type(record) === 'none' ? undefined : deadlineOf(record.state.expiry);
  }

  expire(key: ByteString, deadlineMs: number | null): boolean {
    const record = this.#record(key);
    if (this.#type(record) === 'none') return false;
    if (deadlineMs !== null && deadlineMs <= this.nowMs) return this.delete(key);
    if (deadlineMs === null && deadlineOf(record.state.expiry) === null) return true;
    const delta = emptyKeyState();
    this.#setDeadline(record.state, delta, deadlineMs);
    // From now on the bytes stand in the header.
    if (record.state.string?.register.value === UNLOADED) throw new InvariantError('expire needs the value');
    this.#apply(record, delta);
    return true;
  }

  #checkRule(key: ByteString, value: ByteString): Rule {
    this.#checkSize(value);
    const rule = this.#rules.of(key);
    if (rule.type === 'set') throw new RuleError('the rule for this key says that it holds a set');
    if (rule.type === 'counter' && parseInt64(value) === null) throw new NotAnIntegerError();
    return rule;
  }

  /** A key that may be counted on, and its string; null when it doesn't exist. Throws WrongTypeError and RuleError. */
  #countable(key: ByteString): { readonly record: KeyRecord; readonly current: ByteString | null } {
    const record = this.#record(key);
    const rule = this.#rules.of(key);
    if (rule.type === 'set') throw new RuleError('the rule for this key says that it holds a set');
    if (!rule.compact)
      throw new RuleError(`the rule for this key (${rule.policy}) takes whole values: write it with SET`);
    if (!this.#holds(record, 'string')) return { record, current: null };
    if (winningPart(record.state) !== 'string') {
      throw new RuleError('this key was written under another rule: SET it anew before counting on it');
    }
    return { record, current: stringValue(record.state.string!) };
  }

  #count(record: KeyRecord, exists: boolean, op: Extract<StringOp, { readonly by: unknown }>): void {
    if (!exists) this.#sweep(record);
    // The data type knows which values can't be counted on; it throws before anything has changed.
    const string = stringType.mutate(record.state.string ?? stringType.empty(), op, this.#stamp());
    this.#apply(record, { ...emptyKeyState(), string });
  }

  /** The visible string of a key that holds one. */
  #text(record: KeyRecord): ByteString | null {
    return winningPart(record.state) === 'values'
      ? this.#rules.resolve(record.key, record.state.values!)
      : stringValue(record.state.string!);
  }

  #record(key: ByteString): KeyRecord {
    const record = this.#records.get(key);
    if (record === undefined) throw new InvariantError('an operation touched a key that it did not ask for');
    return record;
  }

  #type(record: KeyRecord): KeyType {
    // A native value that is gone (expired, evicted, removed past us) is gone for operations too, as it is for reads.
    const type = visibleType(record.state, this.nowMs);
    return record.nativeMissing && winningPart(record.state) === 'string' ? 'none' : type;
  }

  #holds(record: KeyRecord, wanted: 'string' | 'set'): boolean {
    const type = this.#type(record);
    if (type !== 'none' && type !== wanted) throw new WrongTypeError();
    return type === wanted;
  }

  /** The dot of what is changed next; no two changes share one. */
  #stamp(): Site {
    this.#site ??= { replica: this.#replica, stamp: this.#clock.next() };
    return this.#site;
  }

  /** Removes all that is left of a key: every type, visible or hidden, expired or not, and its deadlines. */
  #sweep(record: KeyRecord): void {
    const { state } = record;
    const delta = emptyKeyState();
    let any = false;
    if (state.string !== null && isStringLive(state.string)) {
      delta.string = stringType.mutate(state.string, { op: 'delete' }, this.#stamp());
      any = true;
    }
    if (state.set !== null && isSetLive(state.set)) {
      delta.set = setType.mutate(state.set, { op: 'clear' }, this.#stamp());
      any = true;
    }
    if (state.values !== null && hasValues(state.values)) {
      delta.values = valuesType.mutate(state.values, { op: 'clear' }, this.#stamp());
      any = true;
    }
    if (this.#clearDeadline(state, delta)) any = true;
    if (any) this.#apply(record, delta);
  }

  #clearDeadline(state: KeyState, delta: KeyState): boolean {
    if (state.expiry === null || state.expiry.siblings.size === 0) return false;
    delta.expiry = expiryType.mutate(state.expiry, { op: 'clear' }, this.#stamp());
    return true;
  }

  #setDeadline(state: KeyState, delta: KeyState, value: Deadline): void {
    if (value !== null && !(Number.isSafeInteger(value) && value >= 0 && value <= MAX_DEADLINE_MS)) {
      throw new ArgumentError('a deadline must be a time in whole milliseconds, below 2^48');
    }
    delta.expiry = expiryType.mutate(
      state.expiry ?? expiryType.empty(),
      { op: 'write', value },
      this.#stamp(),
    );
  }

  #checkSize(value: ByteString): void {
    if (value.length > this.#maxValueBytes) {
      throw new LimitError(
        `a value of ${value.length} bytes is over the limit of ${this.#maxValueBytes}: raise maxValueBytes everywhere, or split it`,
      );
    }
  }

  #apply(record: KeyRecord, delta: KeyState): void {
    let change = this.changes.get(record.key);
    if (change === undefined) {
      change = beginChange(record, this.#rules.resolve);
      this.changes.set(record.key, change);
    }
    this.mutations += 1;
    mergeChange(change, delta);
    record.nativeMissing = false;
    const before = this.deltas.get(record.key);
    if (before === undefined) this.deltas.set(record.key, delta);
    else appendKeyDelta(before, delta);
    this.#site = null;
  }
}
