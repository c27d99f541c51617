/**
 * A little in-memory Valkey behind the Engine interface, so that the RESP front door can be tested on its own. Commits
 * and reads are asynchronous, as they are in a node, and can be held back to see what the door does meanwhile.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { type Decimal, formatDecimal } from '../../crdts/decimal.js';
import { globMatches } from '../../crdts/glob.js';
import type { Integer } from '../../crdts/integer.js';
import { incrementedFloat } from '../../crdts/string-key.js';
import type { Engine, LoadingStatus, NodeStatus, PeerStatus } from '../../src/engine.js';
import {
  ArgumentError,
  InvariantError,
  LimitError,
  LoadingError,
  NotAnIntegerError,
  OverflowError,
  WrongTypeError,
} from '../../src/errors.js';
import type {
  ExpiryChange,
  KeyType,
  Need,
  Operation,
  Transaction,
  Waiter,
} from '../../src/replica/operation.js';
import { type NativeReads, type ScanOptions, WRONG_TYPE, type WrongType } from '../../src/store/store.js';
import type { VerifyOptions, VerifyReport } from '../../src/verify/report.js';

interface Entry {
  value: ByteString | Set<ByteString>;
  deadlineMs: number | null;
}

interface Pending {
  readonly operation: Operation<unknown>;
  readonly waiter: Waiter<unknown>;
}

const INTEGER = /^(?:0|-?[1-9][0-9]*)$/;
const MAX = 2n ** 63n - 1n;
const MIN = -(2n ** 63n);

const PEER: PeerStatus = {
  peerId: '12D3KooWpeer',
  region: 'north',
  replica: 'bbbbbbbb.1',
  connected: true,
  appliedNumber: 3,
  behindFrames: 0,
  silentMs: 12,
  clockOffsetMs: -3,
  refused: null,
};

/** The fake, and its levers. */
export class FakeEngine implements Engine {
  readonly maxValueBytes: number;
  readonly reads: NativeReads;
  readonly entries = new Map<ByteString, Entry>();
  /** Sizes of the commits so far. */
  readonly commits: number[] = [];
  /** Regions that {@link waitFor} finds to have applied everything. */
  regionsApplied = 2;
  /** When set, every commit fails with it. */
  commitError: Error | null = null;
  /** When set, every read fails with it. */
  readError: Error | null = null;
  maxQueued = 100_000;
  /** When set, operations are refused with LoadingError. */
  loading: LoadingStatus | null = null;
  /** Most operations that have waited at once. */
  mostQueued = 0;
  /** Calls of `reads.strings`. */
  stringQuestions = 0;
  /** While set, nothing is committed and no read is answered. */
  #held = false;
  #frame = 0;
  #queue: Pending[] = [];
  #scheduled = false;
  #heldReads: (() => void)[] = [];

  constructor(maxValueBytes = 8 * 1024 * 1024) {
    this.maxValueBytes = maxValueBytes;
    this.reads = new FakeReads(this);
  }

  /** Holds commits and reads back until {@link release}. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    for (const go of this.#heldReads.splice(0)) go();
    this.#schedule();
  }

  /** Reads and operations that wait. */
  get waiting(): { reads: number; operations: number } {
    return { reads: this.#heldReads.length, operations: this.#queue.length };
  }

  now(): number {
    return Date.now();
  }

  refusal(): LoadingError | null {
    return this.loading === null ? null : new LoadingError('the fake is loading');
  }

  submit<T>(operation: Operation<T>, waiter: Waiter<T>): void {
    if (this.#queue.length >= this.maxQueued) {
      setImmediate(() =>
        waiter.settled(new LimitError('too many operations wait for a commit'), undefined, 0),
      );
      return;
    }
    this.#queue.push({ operation, waiter: waiter as Waiter<unknown> });
    this.mostQueued = Math.max(this.mostQueued, this.#queue.length);
    this.#schedule();
  }

  lastFrame(): number {
    return this.#frame;
  }

  async waitFor(regions: number, _frame: number, timeoutMs: number, signal?: AbortSignal): Promise<number> {
    if (regions > this.regionsApplied) {
      await new Promise<void>((resolve) => {
        const timer = timeoutMs > 0 ? setTimeout(resolve, timeoutMs) : undefined;
        signal?.addEventListener('abort', () => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return this.regionsApplied;
  }

  status(): NodeStatus {
    return {
      version: '0.1.0',
      peerId: '12D3KooWself',
      region: 'süd',
      replica: 'aaaaaaaa.1',
      state: this.loading === null ? 'ready' : 'loading',
      loading: this.loading,
      addresses: ['/ip4/127.0.0.1/tcp/4001'],
      startedAtMs: 1,
      uptimeMs: 2,
      store: { kind: 'fake' },
      frames: { own: this.#frame, applied: 0, heldBack: 0, skewed: 0, repaired: 0, refused: 0 },
      queue: { operations: this.#queue.length, bytes: 0 },
      conflicts: 0,
      clock: { offsetMs: 2, spreadMs: 3, off: false, heard: 1, warning: null },
      forgetting: {
        stableMs: 1_700_000_000_000,
        members: [PEER.peerId, '12D3KooWaway'],
        waitingFor: ['12D3KooWaway'],
        forgotten: 5,
        swept: 6,
      },
      peers: [PEER],
    };
  }

  /** What was verified with, and what {@link verify} gives. */
  readonly verified: VerifyOptions[] = [];
  report: VerifyReport = {
    outcome: 'identical',
    regions: [],
    reasons: [],
    cut: {},
    heldMs: 0,
    differingSlots: 0,
    differingKeys: [],
    moreKeys: false,
    deep: null,
    tookMs: 1,
  };

  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    this.verified.push(options);
    return this.report;
  }

  forget(peerId: string): void {
    throw new ArgumentError(`${peerId} is no member: MESH PEERS lists them`);
  }

  async digest(): Promise<{ digest: string; slots: number }> {
    return { digest: '0123456789ab', slots: this.entries.size };
  }

  /** The live entry of a key. */
  live(key: ByteString): Entry | undefined {
    const entry = this.entries.get(key);
    if (entry !== undefined && entry.deadlineMs !== null && entry.deadlineMs <= Date.now()) {
      this.entries.delete(key);
      return undefined;
    }
    return entry;
  }

  /** Answers a read a little later, with what is there then. */
  async later(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#held) await new Promise<void>((resolve) => this.#heldReads.push(resolve));
    if (this.readError !== null) throw this.readError;
  }

  #schedule(): void {
    if (this.#scheduled || this.#held || this.#queue.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.#held) this.#commit();
    });
  }

  #commit(): void {
    const batch = this.#queue.splice(0);
    this.commits.push(batch.length);
    const outcomes = batch.map(({ operation }): { error: Error | null; value: unknown; changed: boolean } => {
      if (this.commitError !== null) return { error: this.commitError, value: undefined, changed: false };
      const tx = new FakeTransaction(this, operation.needs);
      try {
        const value = operation.run(tx);
        return { error: null, value, changed: tx.changed };
      } catch (error) {
        return { error: error as Error, value: undefined, changed: tx.changed };
      }
    });
    if (outcomes.some(({ changed }) => changed)) this.#frame += 1;
    setImmediate(() => {
      for (const [i, { error, value, changed }] of outcomes.entries()) {
        batch[i]?.waiter.settled(error, value, changed ? this.#frame : 0);
      }
      this.#schedule();
    });
  }
}

class FakeTransaction implements Transaction {
  readonly nowMs = Date.now();
  changed = false;
  readonly #engine: FakeEngine;
  readonly #needs = new Map<ByteString, Need>();

  constructor(engine: FakeEngine, needs: readonly Need[]) {
    this.#engine = engine;
    for (const need of needs) {
      if (this.#needs.has(need.key)) throw new InvariantError('a key is needed twice');
      this.#needs.set(need.key, need);
    }
  }

  sweep(): boolean {
    return false;
  }

  beat(): void {}

  type(key: ByteString): KeyType {
    const value = this.#entry(key)?.value;
    return value === undefined ? 'none' : value instanceof Set ? 'set' : 'string';
  }

  get(key: ByteString): ByteString | null {
    if (this.#needs.get(key)?.value !== true) throw new InvariantError('the value is not needed');
    const value = this.#entry(key)?.value ?? null;
    if (value instanceof Set) throw new WrongTypeError();
    return value;
  }

  checkSet(): void {}

  set(key: ByteString, value: ByteString, expiry: ExpiryChange): boolean {
    const old = this.#entry(key)?.deadlineMs ?? null;
    this.changed = true;
    const deadlineMs = expiry === 'clear' ? null : expiry === 'keep' ? old : expiry;
    this.#engine.entries.set(key, { value, deadlineMs });
    return true;
  }

  increment(key: ByteString, by: Integer): Integer {
    const old = this.get(key) ?? '0';
    if (!INTEGER.test(old) || BigInt(old) > MAX || BigInt(old) < MIN) throw new NotAnIntegerError();
    const sum = BigInt(old) + BigInt(by);
    if (sum > MAX || sum < MIN) throw new OverflowError();
    this.set(key, String(sum) as ByteString, 'keep');
    return sum;
  }

  incrementFloat(key: ByteString, by: Decimal): Decimal {
    const sum = incrementedFloat(this.get(key), by);
    this.set(key, formatDecimal(sum), 'keep');
    return sum;
  }

  delete(key: ByteString): boolean {
    if (this.#entry(key) === undefined) return false;
    this.changed = true;
    return this.#engine.entries.delete(key);
  }

  add(key: ByteString, members: readonly ByteString[]): number {
    const set = this.#set(key, members) ?? new Set<ByteString>();
    const before = set.size;
    for (const member of members) set.add(member);
    if (!this.#engine.entries.has(key)) this.#engine.entries.set(key, { value: set, deadlineMs: null });
    this.changed = true;
    return set.size - before;
  }

  remove(key: ByteString, members: readonly ByteString[]): number {
    const set = this.#set(key, members);
    if (set === null) return 0;
    const before = set.size;
    for (const member of members) set.delete(member);
    if (set.size === 0) this.#engine.entries.delete(key);
    if (before !== set.size) this.changed = true;
    return before - set.size;
  }

  has(key: ByteString, member: ByteString): boolean {
    return this.#set(key, [member])?.has(member) ?? false;
  }

  members(key: ByteString): ByteString[] {
    return [...(this.#set(key, 'all') ?? [])];
  }

  cardinality(key: ByteString): number {
    return this.#set(key, [])?.size ?? 0;
  }

  deadline(key: ByteString): number | null | undefined {
    return this.#entry(key)?.deadlineMs;
  }

  expire(key: ByteString, deadlineMs: number | null): boolean {
    const entry = this.#entry(key);
    if (this.#needs.get(key)?.value !== true) throw new InvariantError('the value is not needed');
    if (entry === undefined) return false;
    if (deadlineMs !== null && deadlineMs <= this.nowMs) return this.delete(key);
    entry.deadlineMs = deadlineMs;
    this.changed = true;
    return true;
  }

  #entry(key: ByteString): Entry | undefined {
    if (!this.#needs.has(key)) throw new InvariantError(`the key ${key} is not needed`);
    return this.#engine.live(key);
  }

  #set(key: ByteString, members: readonly ByteString[] | 'all'): Set<ByteString> | null {
    const needed = this.#needs.get(key)?.members ?? [];
    const missing =
      members === 'all' ? needed !== 'all' : needed !== 'all' && members.some((m) => !needed.includes(m));
    if (missing) throw new InvariantError('a member is not needed');
    const value = this.#entry(key)?.value ?? null;
    if (typeof value === 'string') throw new WrongTypeError();
    return value;
  }
}

class FakeReads implements NativeReads {
  readonly #engine: FakeEngine;

  constructor(engine: FakeEngine) {
    this.#engine = engine;
  }

  async strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    this.#engine.stringQuestions += 1;
    await this.#engine.later();
    return keys.map((key) => {
      const value = this.#engine.live(key)?.value ?? null;
      return value instanceof Set ? WRONG_TYPE : value;
    });
  }

  async stringLength(key: ByteString): Promise<number | WrongType> {
    const [value] = await this.strings([key]);
    return typeof value === 'symbol' ? value : (value?.length ?? 0);
  }

  async members(key: ByteString): Promise<ByteString[] | WrongType> {
    await this.#engine.later();
    const value = this.#engine.live(key)?.value ?? [];
    return typeof value === 'string' ? WRONG_TYPE : [...value];
  }

  async contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    const all = await this.members(key);
    return typeof all === 'symbol' ? all : members.map((member) => all.includes(member));
  }

  async cardinality(key: ByteString): Promise<number | WrongType> {
    const all = await this.members(key);
    return typeof all === 'symbol' ? all : all.length;
  }

  async randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    const all = await this.members(key);
    if (typeof all === 'symbol' || all.length === 0) return all;
    if (count < 0) {
      return Array.from({ length: -count }, () => all[Math.floor(Math.random() * all.length)] as ByteString);
    }
    return all
      .map((member) => ({ member, order: Math.random() }))
      .sort((a, b) => a.order - b.order)
      .slice(0, count)
      .map(({ member }) => member);
  }

  async types(keys: readonly ByteString[]): Promise<KeyType[]> {
    await this.#engine.later();
    return keys.map((key) => {
      const value = this.#engine.live(key)?.value;
      return value === undefined ? 'none' : value instanceof Set ? 'set' : 'string';
    });
  }

  async deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    await this.#engine.later();
    return keys.map((key) => this.#engine.live(key)?.deadlineMs);
  }

  async scan(cursor: string, options: ScanOptions = {}): Promise<{ cursor: string; keys: ByteString[] }> {
    const start = Number(cursor);
    const all = [...this.#engine.entries.keys()].filter((key) => this.#engine.live(key) !== undefined);
    const page = all.slice(start, start + (options.count ?? 10));
    const types = await this.types(page);
    const keys = page.filter(
      (key, i) =>
        (options.match === undefined || globMatches(options.match, key)) &&
        (options.type === undefined || types[i] === options.type),
    );
    const next = start + page.length;
    return { cursor: next < all.length ? String(next) : '0', keys };
  }

  async count(): Promise<number> {
    await this.#engine.later();
    return [...this.#engine.entries.keys()].filter((key) => this.#engine.live(key) !== undefined).length;
  }
}
