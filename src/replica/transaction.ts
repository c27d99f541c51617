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
import { deadlineOf } from '../../crdts/expiry.js';
import { isSweepable } from '../../crdts/forgetting.js';
import { type Integer, isInt64, requireInt64 } from '../../crdts/integer.js';
import {
  addMembers,
  countOn,
  deleteKey,
  expireKey,
  type KeyEdit,
  removeMembers,
  setString,
  setValue,
  sweepKey,
} from '../../crdts/key-ops.js';
import { appendKeyDelta, type KeyState, visibleType, winningPart } from '../../crdts/key-state.js';
import { type Dots, hasMember, membersOf } from '../../crdts/or-set.js';
import { UNLOADED } from '../../crdts/register.js';
import { type Rule, requireCountable, requireMembers, requireWritable } from '../../crdts/rules.js';
import { type HybridClock, type Stamp, stampMs } from '../../crdts/stamp.js';
import { type StringOp, stringValue } from '../../crdts/string-key.js';
import { InvariantError, LimitError, NotAnIntegerError, RuleError, WrongTypeError } from '../errors.js';
import type { CachedKey } from './key-cache.js';
import { beginChange, beginCounting, type KeyChange, mergeChange } from './key-change.js';
import { type KeyRecord, recordOf } from './key-record.js';
import type { KeyRules } from './key-rules.js';
import type { ExpiryChange, KeyType, Transaction } from './operation.js';
import { type PlainChange, PlainRecord } from './plain-record.js';
import { addQuickly, beginAdd, beginCount, countQuickly, deltaOf } from './quick-change.js';

/** One batch's transaction; its operations run on it one after the other, each begun with {@link begin}. */
export class BatchTransaction implements Transaction {
  /** What the batch's frame will say: one delta per key, but for those that were changed quickly (quick-change.ts) or are plain. */
  readonly deltas = new Map<ByteString, KeyState>();
  readonly changes = new Map<ByteString, KeyChange>();
  /** Keys that were only SET, and were plain before: they have neither a delta nor a change. */
  readonly plain: PlainChange[] = [];
  /** Records that took the place of plain ones. */
  readonly grown: KeyRecord[] = [];
  /** Counts changes, so that a caller can tell whether an operation has made any. */
  mutations = 0;
  /** The frame is wanted though it may be empty. */
  beaten = false;
  nowMs = 0;
  /** The dot of all members that are added quickly in this batch. */
  #addDots: Dots | null = null;
  readonly #replica: string;
  readonly #clock: HybridClock;
  readonly #batchMs: number;
  readonly #records: Map<ByteString, CachedKey>;
  readonly #maxValueBytes: number;
  readonly #rules: KeyRules;

  /** @param records the keys that the batch's operations need, loaded */
  constructor(
    replica: string,
    clock: HybridClock,
    now: () => number,
    records: Map<ByteString, CachedKey>,
    maxValueBytes: number,
    rules: KeyRules,
  ) {
    this.#replica = replica;
    this.#clock = clock;
    this.#batchMs = Math.floor(now());
    this.#records = records;
    this.#maxValueBytes = maxValueBytes;
    this.#rules = rules;
  }

  /** Starts the next operation. */
  begin(): void {
    this.nowMs = Math.max(this.#batchMs, stampMs(this.#clock.last));
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
    const found = this.#records.get(key);
    if (found instanceof PlainRecord && rule.compact && typeof expiry === 'string') {
      this.#setPlain(found, value);
      return true;
    }
    const record = this.#record(key);
    const { state } = record;
    const visible = this.#type(record);
    if (visible !== 'none' && rule.firstWriteWins) return false;
    const site = this.#site();
    this.#edit(
      record,
      rule.compact
        ? setString(state, visible, value, expiry, site)
        : setValue(state, visible, { bytes: value, region: this.#rules.region }, expiry, site),
    );
    return true;
  }

  #setPlain(record: PlainRecord, value: ByteString): void {
    const stamp = this.#clock.next(this.nowMs);
    if (stamp <= record.stamp) throw new InvariantError('the clock is behind what it observed');
    this.mutations += 1;
    const { change } = record;
    if (change === null) {
      record.change = { record, origin: null, stamp, value };
      this.plain.push(record.change);
    } else {
      change.stamp = stamp;
      change.value = value;
    }
  }

  checkSet(key: ByteString, value: ByteString): void {
    const rule = this.#checkRule(key, value);
    if (rule.firstWriteWins && this.type(key) !== 'none') {
      throw new RuleError(
        'the rule for this key says that the first write wins, and it has a value: delete it first',
      );
    }
  }

  increment(key: ByteString, by: Integer): Integer {
    return this.#countQuickly(key, by) ?? (this.#count(key, { op: 'add', by }) as Integer);
  }

  incrementFloat(key: ByteString, by: Decimal): Decimal {
    if (this.#rules.of(key).type !== 'counter') return this.#count(key, { op: 'addFloat', by });
    if (!isWhole(by) || !isInt64(by)) throw new NotAnIntegerError();
    return this.#count(key, { op: 'add', by });
  }

  delete(key: ByteString): boolean {
    const record = this.#record(key);
    return this.#edit(record, deleteKey(record.state, this.#type(record), this.#site()));
  }

  add(key: ByteString, members: readonly ByteString[]): number {
    const record = this.#record(key);
    requireMembers(this.#rules.of(key));
    for (const member of members) this.#checkSize(member);
    const added = this.#addQuickly(record, members);
    if (added !== null) return added;
    return this.#edit(record, addMembers(record.state, this.#type(record), members, this.#site()));
  }

  remove(key: ByteString, members: readonly ByteString[]): number {
    const record = this.#record(key);
    return this.#edit(record, removeMembers(record.state, this.#type(record), members, this.#site()));
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
    // From now on the bytes stand in the header (key-record.ts).
    if (record.state.string?.register.value === UNLOADED && !record.nativeMissing)
      throw new InvariantError('expire needs the value');
    return this.#edit(
      record,
      expireKey(record.state, this.#type(record), deadlineMs, this.nowMs, this.#site()),
    );
  }

  sweep(key: ByteString, stable: Stamp): boolean {
    const record = this.#record(key);
    return isSweepable(record.state, stable) && this.#edit(record, sweepKey(record.state, this.#site()));
  }

  beat(): void {
    this.beaten = true;
    this.#clock.next();
  }

  #checkRule(key: ByteString, value: ByteString): Rule {
    this.#checkSize(value);
    const rule = this.#rules.of(key);
    requireWritable(rule, value);
    return rule;
  }

  /** Null, and nothing is changed: {@link #count} must do it. */
  #countQuickly(key: ByteString, by: Integer): Integer | null {
    const record = this.#record(key);
    requireCountable(this.#rules.of(key));
    requireInt64(by);
    const known = this.changes.get(key);
    const quick = known === undefined ? beginCount(record) : known.quick;
    if (quick?.kind !== 'count') return null;
    const change = known ?? beginCounting(record, quick);
    const sum = countQuickly(record.state, quick, by, this.#site());
    if (sum !== null) this.#changedQuickly(change, known === undefined);
    return sum;
  }

  /** Null, and nothing is changed: the general way must do it. */
  #addQuickly(record: KeyRecord, members: readonly ByteString[]): number | null {
    const { key } = record;
    if (members.length === 0) return null;
    const known = this.changes.get(key);
    const change = known ?? beginChange(record, this.#rules.resolve);
    this.#addDots ??= [this.#site()];
    if (known === undefined) change.quick = beginAdd(record, this.#addDots);
    if (change.quick?.kind !== 'add') return null;
    const absent = addQuickly(change, change.quick, members);
    this.#changedQuickly(change, known === undefined);
    return absent;
  }

  #changedQuickly(change: KeyChange, first: boolean): void {
    this.mutations += 1;
    change.grew = true;
    if (first) this.changes.set(change.record.key, change);
  }

  #count(key: ByteString, op: Extract<StringOp, { readonly by: unknown }>): Decimal {
    const record = this.#record(key);
    requireCountable(this.#rules.of(key));
    const current = this.#holds(record, 'string') ? this.#text(record) : null;
    return this.#edit(record, countOn(record.state, this.#type(record), current, op, this.#site()));
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
    if (!(record instanceof PlainRecord)) return record;
    return this.#whole(record);
  }

  /** Goes on with a key record where a plain one was, and with a delta and a change for what was done to it. */
  #whole(plain: PlainRecord): KeyRecord {
    const record = recordOf(plain);
    this.#records.set(plain.key, record);
    this.grown.push(record);
    const { change } = plain;
    if (change === null) return record;
    plain.change = null;
    this.plain.splice(this.plain.indexOf(change), 1);
    const site = { replica: this.#replica, stamp: change.stamp };
    // Told in another way, but changed before.
    this.mutations -= 1;
    this.#edit(record, setString(record.state, this.#type(record), change.value!, 'clear', site));
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
  #site(): Site {
    return { replica: this.#replica, stamp: this.#clock.next(this.nowMs) };
  }

  #checkSize(value: ByteString): void {
    if (value.length > this.#maxValueBytes) {
      throw new LimitError(
        `a value of ${value.length} bytes is over the limit of ${this.#maxValueBytes}: raise maxValueBytes everywhere, or split it`,
      );
    }
  }

  /** Applies an edit to the record and the batch; gives its result. */
  #edit<Result>(record: KeyRecord, { delta, result }: KeyEdit<Result>): Result {
    if (delta === null) return result;
    let change = this.changes.get(record.key);
    if (change === undefined) {
      change = beginChange(record, this.#rules.resolve);
      this.changes.set(record.key, change);
    }
    this.mutations += 1;
    if (change.quick !== null) {
      this.deltas.set(record.key, deltaOf(change, this.#replica));
      change.quick = null;
    }
    mergeChange(change, delta);
    record.nativeMissing = false;
    const before = this.deltas.get(record.key);
    if (before === undefined) this.deltas.set(record.key, delta);
    else appendKeyDelta(before, delta);
    return result;
  }
}
