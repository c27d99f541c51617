/** The store in this process's memory: for tests, simulations, and regions that need no database. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import {
  StaleCommitError,
  StoppedError,
  StoreRefusedError,
  StoreResetError,
  StoreUnavailableError,
} from '../errors.js';
import { systemTimers, type Timers } from '../timers.js';
import { checkCommit } from './commit-frame.js';
import type { SlotContent } from './inspection.js';
import { MemoryDataset } from './memory-dataset.js';
import { MemoryScans } from './memory-scans.js';
import {
  type Commit,
  type CommitResult,
  type DropReason,
  type LoadedKey,
  type LoadRequest,
  type LoggedFrame,
  type NativeType,
  type ScanOptions,
  type Store,
  type StoredIdentity,
  type StoreFacts,
  WRONG_TYPE,
  type WrongType,
} from './store.js';

/**
 * What may go wrong with a commit. `refuse`: StoreRefusedError, nothing written. `lose`: StoreUnavailableError, and
 * nothing was written. `unknown`: StoreUnavailableError, and yet it was.
 */
export type CommitFault = 'refuse' | 'lose' | 'unknown';

/** Options of a {@link MemoryStore}. */
export interface MemoryStoreOptions {
  /** Decides what has expired. Default: the machine's. */
  readonly timers?: Timers;
  /** 0 ≤ x < 1, for randomMembers. Default: Math.random. */
  readonly random?: () => number;
  /** What another store held before. Default: nothing. */
  readonly dataset?: MemoryDataset;
  /** Delay of every answer; what is asked takes effect at once. Default: 0. */
  readonly latencyMs?: number;
  /** Asked before each commit whether it shall fail. Default: none does. */
  readonly fault?: (commit: Commit) => CommitFault | null;
}

/** Keeps a region's keys in memory. Deterministic: time and randomness are passed in. */
export class MemoryStore implements Store {
  readonly #timers: Timers;
  readonly #random: () => number;
  readonly #latencyMs: number;
  readonly #fault: (commit: Commit) => CommitFault | null;
  #dataset: MemoryDataset;
  #state: 'new' | 'open' | 'lost' | 'closed' = 'new';
  /** Commits that failed and whose callers don't know yet. */
  #untold = 0;
  #generation = 0;
  /** Whose commits these are; another one each time it is opened. */
  #writer = Symbol('writer');
  #peerId: string | null = null;
  readonly #scans = new MemoryScans();

  constructor(options: MemoryStoreOptions = {}) {
    this.#timers = options.timers ?? systemTimers;
    this.#random = options.random ?? Math.random;
    this.#latencyMs = options.latencyMs ?? 0;
    this.#fault = options.fault ?? (() => null);
    this.#dataset = options.dataset ?? new MemoryDataset();
  }

  /** What this store holds; give it to another store to start again with it. */
  get dataset(): MemoryDataset {
    return this.#dataset;
  }

  /** Loses all data (or goes back to older), as a server does that was restored: calls reject with StoreResetError until open(). */
  loseData(dataset: MemoryDataset = new MemoryDataset()): void {
    this.#dataset = dataset;
    if (this.#state === 'open') this.#state = 'lost';
  }

  /** The same, and says nothing of it: calls find other data. */
  swapData(dataset: MemoryDataset): void {
    this.#dataset = dataset;
    this.#generation = dataset.generation;
  }

  async open(): Promise<StoreFacts> {
    if (this.#state === 'closed') throw new StoppedError();
    this.#state = 'open';
    this.#generation = this.#dataset.generation;
    this.#untold = 0;
    this.#writer = Symbol('writer');
    this.#peerId = null;
    if (this.#dataset.name === '') this.#dataset.name = this.#randomName();
    return this.refresh();
  }

  #randomName(): string {
    const part = () =>
      Math.floor(this.#random() * 2 ** 32)
        .toString(36)
        .padStart(7, '0');
    return part() + part() + part() + part();
  }

  refresh(): Promise<StoreFacts> {
    return this.#answer(() => {
      const { nodes, notes, applied, name, dropped } = this.#dataset;
      return {
        identities: Array.from(nodes.values(), ({ identity }) => identity),
        notes,
        applied: [...applied.values()],
        dataset: name,
        place: name,
        dropped,
        server: { kind: 'memory' },
      };
    });
  }

  saveIdentity(identity: StoredIdentity): Promise<void> {
    return this.#answer(() => {
      this.#peerId = identity.peerId;
      const usedMs = this.#timers.now();
      this.#dataset.nodes.set(identity.peerId, { identity: { ...identity }, writer: this.#writer, usedMs });
    });
  }

  retire(peerId: string, silentMs: number): Promise<boolean> {
    return this.#answer(() => {
      const node = this.#dataset.nodes.get(peerId);
      if (node === undefined) return true;
      if (node.usedMs + silentMs > this.#timers.now()) return false;
      this.#dataset.nodes.delete(peerId);
      this.#dataset.retired.add(node.writer);
      return true;
    });
  }

  load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    return this.#answer(() => requests.map((request) => this.#load(request)));
  }

  #load({ key, value, elements = [] }: LoadRequest): LoadedKey {
    const native = value ? this.#dataset.natives.string(key, this.#timers.now()) : null;
    const stored = this.#dataset.entries.get(key);
    const entries = new Map<ByteString, ByteString>();
    for (const element of elements === 'all' ? (stored?.keys() ?? []) : elements) {
      const entry = stored?.get(element);
      if (entry !== undefined) entries.set(element, entry);
    }
    return { header: this.#dataset.header(key), value: native === WRONG_TYPE ? null : native, entries };
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(commit);
    this.#check();
    const error = this.#tryCommit(commit);
    const crowded = error === null && this.#dataset.isOvertaking(this.#writer);
    if (error !== null) this.#untold += 1;
    await this.#delay();
    if (error !== null) {
      if (this.#untold > 0) this.#untold -= 1;
      throw error;
    }
    return { crowded };
  }

  #tryCommit(commit: Commit): Error | null {
    if (this.#untold > 0) {
      return new StaleCommitError('an earlier commit, which this one was built on, failed');
    }
    const fault = this.#fault(commit);
    if (fault === 'refuse') return new StoreRefusedError('the memory store was told to refuse this commit');
    const unavailable = new StoreUnavailableError('the memory store was told not to answer');
    if (fault === 'lose') return unavailable;
    try {
      this.#dataset.commit(commit, this.#timers.now());
      this.#showLife();
    } catch (error) {
      if (error instanceof StaleCommitError) {
        this.#dataset.overtaken = this.#writer;
        return error;
      }
      throw error;
    }
    return fault === 'unknown' ? unavailable : null;
  }

  #showLife(): void {
    const node = this.#peerId === null ? undefined : this.#dataset.nodes.get(this.#peerId);
    if (node === undefined) return;
    node.usedMs = this.#timers.now();
    if (node.identity.clean) node.identity = { ...node.identity, clean: false };
  }

  readFrames(replica: ReplicaId, fromNumber: number, maxBytes: number): Promise<LoggedFrame[]> {
    return this.#answer(() => {
      const frames: LoggedFrame[] = [];
      let total = 0;
      for (const frame of this.#dataset.logs.get(replica) ?? []) {
        if (frame.number < fromNumber) continue;
        total += frame.bytes.length;
        if (total > maxBytes && frames.length > 0) break;
        frames.push(frame);
      }
      return frames;
    });
  }

  trimLog(replica: ReplicaId, throughNumber: number): Promise<void> {
    return this.#answer(() => {
      const kept = (this.#dataset.logs.get(replica) ?? []).filter((frame) => frame.number > throughNumber);
      if (kept.length > 0) this.#dataset.logs.set(replica, kept);
      else this.#dataset.logs.delete(replica);
    });
  }

  digests(): Promise<Map<number, number>> {
    return this.#answer(() => new Map([...this.#dataset.slots].map(([slot, { digest }]) => [slot, digest])));
  }

  headers(slots: readonly number[], maxBytes: number): Promise<[ByteString, ByteString][][]> {
    return this.#answer(() => {
      const lists: [ByteString, ByteString][][] = [];
      let bytes = 0;
      for (const slot of slots) {
        const list = [...(this.#dataset.slots.get(slot)?.headers ?? [])];
        lists.push(list);
        for (const [key, header] of list) bytes += key.length + header.length;
        if (bytes >= maxBytes) break;
      }
      return lists;
    });
  }

  saveNotes(notes: ByteString, expected: ByteString | null): Promise<ByteString | null> {
    return this.#answer(() => {
      if (this.#dataset.notes === expected) this.#dataset.notes = notes;
      return this.#dataset.notes;
    });
  }

  async clear(reason: DropReason): Promise<void> {
    await this.#answer(() => this.#dataset.clear(reason));
  }

  slotContent(slot: number): Promise<SlotContent> {
    return this.#answer(() => {
      const held = this.#dataset.slots.get(slot);
      return { digest: held?.digest ?? 0, headers: new Map(held?.headers) };
    });
  }

  scanMembers(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; members: ByteString[] } | WrongType> {
    return this.#ofSet(key, (held) => {
      const page = pageOf([...held], cursor, count);
      return { cursor: page.cursor, members: page.items };
    });
  }

  scanEntries(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; entries: Map<ByteString, ByteString> }> {
    return this.#answer(() => this.#scans.page(this.#dataset.entries.get(key), cursor, count));
  }

  async ping(): Promise<boolean> {
    return this.#state === 'open' && this.#holds();
  }

  async close(): Promise<void> {
    this.#state = 'closed';
  }

  strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    return this.#answer(() => keys.map((key) => this.#dataset.natives.string(key, this.#timers.now())));
  }

  stringLength(key: ByteString): Promise<number | WrongType> {
    return this.#answer(() => {
      const value = this.#dataset.natives.string(key, this.#timers.now());
      return value === WRONG_TYPE ? value : (value?.length ?? 0);
    });
  }

  members(key: ByteString): Promise<ByteString[] | WrongType> {
    return this.#ofSet(key, (members) => [...members]);
  }

  contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    if (members.length === 0) return this.#answer(() => []);
    return this.#ofSet(key, (held) => members.map((member) => held.has(member)));
  }

  cardinality(key: ByteString): Promise<number | WrongType> {
    return this.#ofSet(key, (members) => members.size);
  }

  randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    return this.#ofSet(key, (members) => {
      const all = [...members];
      const pick = (below: number) => Math.floor(this.#random() * below);
      if (count < 0 && all.length > 0) {
        return Array.from({ length: -count }, () => all[pick(all.length)] as ByteString);
      }
      const picked: ByteString[] = [];
      while (picked.length < count && all.length > 0) {
        const at = pick(all.length);
        const last = all.pop() as ByteString;
        // The last one takes the place of the one that was picked.
        if (at === all.length) picked.push(last);
        else picked.push(...all.splice(at, 1, last));
      }
      return picked;
    });
  }

  types(keys: readonly ByteString[]): Promise<NativeType[]> {
    return this.#answer(() =>
      keys.map((key) => {
        const native = this.#dataset.natives.get(key, this.#timers.now());
        return native === undefined ? 'none' : typeof native.value === 'string' ? 'string' : 'set';
      }),
    );
  }

  deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    return this.#answer(() =>
      keys.map((key) => this.#dataset.natives.get(key, this.#timers.now())?.expireAtMs),
    );
  }

  scan(cursor: string, options: ScanOptions = {}): Promise<{ cursor: string; keys: ByteString[] }> {
    return this.#answer(() => {
      if (!/^\d{1,15}$/.test(cursor)) throw new StoreRefusedError('ERR invalid cursor');
      return this.#dataset.natives.scan(cursor, options, this.#timers.now());
    });
  }

  count(): Promise<number> {
    return this.#answer(() => this.#dataset.natives.count(this.#timers.now()));
  }

  #ofSet<T>(key: ByteString, read: (members: ReadonlySet<ByteString>) => T): Promise<T | WrongType> {
    return this.#answer(() => {
      const members = this.#dataset.natives.members(key, this.#timers.now());
      return members === WRONG_TYPE ? members : read(members);
    });
  }

  /** Says whether these are still the data that were opened, and this store may commit to them. */
  #holds(): boolean {
    return this.#generation === this.#dataset.generation && !this.#dataset.retired.has(this.#writer);
  }

  #check(): void {
    if (this.#state === 'closed') throw new StoppedError();
    if (this.#state === 'open' && !this.#holds()) this.#state = 'lost';
    if (this.#state === 'lost')
      throw new StoreResetError('the memory store was told to lose its data: open it again');
    if (this.#state === 'new') throw new StoreUnavailableError('the store is not open: call open() first');
  }

  /** Looks at once, in the order of the calls, and answers later. */
  async #answer<T>(look: () => T): Promise<T> {
    this.#check();
    const answer = look();
    await this.#delay();
    return answer;
  }

  #delay(): Promise<void> | null {
    if (this.#latencyMs === 0) return null;
    return new Promise((resolve) => {
      this.#timers.after(this.#latencyMs, resolve);
    });
  }
}

/** A page of a list that doesn't change meanwhile; the cursor is a position in it. */
function pageOf<T>(all: readonly T[], cursor: string, count: number): { cursor: string; items: T[] } {
  const from = Number(cursor);
  const items = all.slice(from, from + count);
  return { cursor: from + count < all.length ? String(from + count) : '0', items };
}
