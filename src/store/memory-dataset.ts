/**
 * What a memory store holds. It stands apart from the store, so that a simulation can open another store on the same
 * data, as a node does that is started again.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { StaleCommitError } from '../errors.js';
import { MemoryNatives } from './memory-natives.js';
import { keySlot } from './slots.js';
import type {
  AppliedMark,
  Commit,
  DroppedData,
  DropReason,
  KeyWrite,
  LoggedFrame,
  StoredIdentity,
} from './store.js';

/** Headers and digest of a slot that holds any header. */
export interface MemorySlot {
  digest: number;
  readonly headers: Map<ByteString, ByteString>;
}

/** A node that uses the data: who it is, which store object commits for it, and when that one last did (Unix milliseconds). */
export interface MemoryNode {
  identity: StoredIdentity;
  readonly writer: symbol;
  usedMs: number;
}

/** The data of a memory store. */
export class MemoryDataset {
  /** Random; empty until a store opens it for the first time. A copy has the same. */
  name = '';
  readonly slots = new Map<number, MemorySlot>();
  readonly entries = new Map<ByteString, Map<ByteString, ByteString>>();
  readonly natives = new MemoryNatives();
  readonly logs = new Map<ReplicaId, LoggedFrame[]>();
  readonly applied = new Map<ReplicaId, AppliedMark>();
  readonly nodes = new Map<string, MemoryNode>();
  /** Store objects that may not commit any more. */
  readonly retired = new WeakSet<symbol>();
  /** Whose commit failed last because another one was faster; null = nobody's since then. */
  overtaken: symbol | null = null;
  dropped: DroppedData | null = null;
  notes: ByteString | null = null;
  /** Counts how often it was cleared: who opened it before must open it again. */
  generation = 0;

  header(key: ByteString): ByteString | null {
    return this.slots.get(keySlot(key))?.headers.get(key) ?? null;
  }

  /** A store object has committed: says whether another one's last commit had failed for such a reason. */
  isOvertaking(writer: symbol): boolean {
    const { overtaken } = this;
    if (overtaken !== writer) this.overtaken = null;
    return overtaken !== null && overtaken !== writer;
  }

  /** Removes all that nodes have written; natives without a header stay. */
  clear(reason: DropReason): void {
    for (const { headers } of this.slots.values()) for (const key of headers.keys()) this.natives.delete(key);
    this.slots.clear();
    this.entries.clear();
    this.logs.clear();
    this.applied.clear();
    this.nodes.clear();
    this.notes = null;
    this.dropped = { dataset: this.name, reason };
    this.name = '';
    this.generation += 1;
  }

  /** Makes one commit, or throws StaleCommitError and changes nothing. */
  commit({ writes, frame, applied = [] }: Commit, now: number): void {
    if (frame !== undefined) {
      const last = this.applied.get(frame.replica)?.number ?? 0;
      if (frame.number !== last + 1) {
        throw new StaleCommitError(`the store has moved on: frame ${frame.number} does not follow ${last}`);
      }
    }
    for (const { replica, after } of applied) {
      if (after !== undefined && after !== (this.applied.get(replica)?.number ?? 0))
        throw new StaleCommitError('the store has moved on: those frames are applied already');
    }
    for (const { key, expected } of writes) {
      if (this.header(key) !== expected)
        throw new StaleCommitError('the store has moved on: another header is there');
    }

    if (frame !== undefined) {
      const { replica, number, stamp } = frame;
      const log = this.logs.get(replica) ?? [];
      this.logs.set(replica, log);
      log.push({ replica, number, stamp, bytes: frame.bytes.slice() });
      this.applied.set(replica, { replica, number, stamp });
    }
    for (const { replica, number, stamp } of applied) {
      if (number > (this.applied.get(replica)?.number ?? 0))
        this.applied.set(replica, { replica, number, stamp });
    }
    const touched = new Set<number>();
    for (const write of writes) touched.add(this.#writeHeader(write));
    for (const slot of touched) if (this.slots.get(slot)?.headers.size === 0) this.slots.delete(slot);
    for (const write of writes) {
      this.#writeEntries(write);
      this.#writeNative(write, now);
      if (write.expireAtMs !== undefined) this.natives.expire(write.key, write.expireAtMs, now);
    }
  }

  #writeHeader({ key, header, digest }: KeyWrite): number {
    const number = keySlot(key);
    const slot = this.slots.get(number) ?? { digest: 0, headers: new Map() };
    this.slots.set(number, slot);
    slot.digest = (slot.digest + digest) % 2 ** 48;
    if (header === null) slot.headers.delete(key);
    else slot.headers.set(key, header);
    return number;
  }

  #writeEntries({ key, header, clearEntries, entries = [] }: KeyWrite): void {
    if (clearEntries || header === null) this.entries.delete(key);
    const stored = this.entries.get(key) ?? new Map<ByteString, ByteString>();
    for (const [element, entry] of entries) if (entry !== null) stored.set(element, entry);
    for (const [element, entry] of entries) if (entry === null) stored.delete(element);
    if (stored.size > 0) this.entries.set(key, stored);
    else this.entries.delete(key);
  }

  #writeNative({ key, native }: KeyWrite, now: number): void {
    const { natives } = this;
    if (native === undefined) return;
    if (native.kind === 'string') {
      natives.set(key, native.value, now);
    } else if (native.kind === 'delete') {
      natives.delete(key);
    } else if (native.kind === 'rebuild') {
      this.#rebuild(key, now);
    } else if (native.add.length + native.remove.length > 0) {
      // A value of another type is replaced by what the entries say.
      if (typeof natives.get(key, now)?.value === 'string') this.#rebuild(key, now);
      const held = natives.get(key, now)?.value;
      const members = held instanceof Set ? held : new Set<ByteString>();
      const wasEmpty = members.size === 0;
      for (const member of native.add) members.add(member);
      for (const member of native.remove) members.delete(member);
      if (members.size === 0) natives.delete(key);
      else if (wasEmpty) natives.set(key, members, now);
    }
  }

  #rebuild(key: ByteString, now: number): void {
    const entries = this.entries.get(key);
    if (entries === undefined) this.natives.delete(key);
    else this.natives.set(key, new Set(entries.keys()), now);
  }
}
