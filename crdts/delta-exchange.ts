/**
 * Delta exchange: the key states of a document, the deltas that leave it, and those that come.
 *
 * Own operations gather in an open batch. Deltas may be joined to one another only with nothing merged in between, so a merge
 * ends the batch; so does taking it. A closed batch is a frame: numbered, and named with what had been merged before it.
 *
 * What comes is merged in causal order: each replica's frames by number, and each after what it depends on. That is
 * why a plain version vector per set is enough (or-set.ts). What comes too early, or is stamped too far in the future, is held.
 */
import type { ByteString } from './bytes.js';
import type { DocumentOptions, Merged } from './document-options.js';
import { type DeltaMark, readSnapshot, writeSnapshot } from './document-snapshot.js';
import type { ReplicaId, Site } from './dot.js';
import { ArgumentError, DecodeError, InvariantError, MeshError } from './errors.js';
import { type ByteFrame, readFrameBytes } from './frame-bytes.js';
import { type FrameContent, readFrame, writeFrame } from './frame-wire.js';
import { appendKeyDelta, type KeyState } from './key-state.js';
import { KeyTable } from './key-table.js';
import { UNLOADED } from './register.js';
import { HybridClock, type Stamp, stampMs } from './stamp.js';
import { WireWriter } from './wire.js';

/** Thrown when a delta came too early and no more can be held back. Nothing was changed: offer it again later. */
export class NotReadyError extends MeshError {
  constructor(message: string) {
    super('NOT_READY', message);
  }
}

/** A frame that was read, from a tree or from bytes. */
type Frame = FrameContent | ByteFrame;

/** Key states and their deltas. Part of a document; use that (document.ts). */
export class DeltaExchange {
  readonly replica: ReplicaId;
  readonly maxValueBytes: number;
  readonly keys = new KeyTable();
  /** How far each replica's frames have been merged, its own included. */
  readonly merged = new Map<ReplicaId, DeltaMark>();
  readonly #clock: HybridClock;
  readonly #now: () => number;
  readonly #onChange: DocumentOptions['onChange'];
  readonly #maxHeld: number;
  readonly #held = new Map<string, Frame>();
  #open = new Map<ByteString, KeyState>();
  #closed: unknown[][] = [];
  /** What the frames made so far have named as merged before them; null before the first. */
  #told: Map<ReplicaId, Stamp> | null = null;

  constructor(options: DocumentOptions) {
    const { replica, now, maxValueBytes = 8 * 2 ** 20, maxHeld = 1024, maxDriftMs = 60_000 } = options;
    if (typeof now !== 'function') throw new ArgumentError('now must be a function, such as Date.now');
    if (!(maxValueBytes >= 0) || !(maxHeld >= 0)) throw new ArgumentError('a limit must be 0 or more');
    if (typeof replica !== 'string') throw new ArgumentError('a replica needs an id of its own');
    new WireWriter(0).replica(replica); // Throws where no reader would accept it.
    this.replica = replica;
    this.maxValueBytes = maxValueBytes;
    this.#clock = new HybridClock(now, { maxDriftMs });
    this.#now = now;
    this.#onChange = options.onChange;
    this.#maxHeld = maxHeld;
    if (options.snapshot !== undefined) this.#load(options.snapshot);
  }

  /** Number of frames that are held back. */
  get held(): number {
    return this.#held.size;
  }

  /** The time at which an operation happens: a deadline that any known stamp has passed has passed here too. */
  nowMs(): number {
    return Math.max(Math.floor(this.#now()), stampMs(this.#clock.last));
  }

  /** The dot of the next operation. */
  nextSite(): Site {
    return { replica: this.replica, stamp: this.#clock.next() };
  }

  /** Merges what an operation of this replica changed in a key, and adds it to the open batch. Keeps the delta. */
  commit(key: ByteString, delta: KeyState): void {
    this.keys.joinCopy(key, delta);
    const earlier = this.#open.get(key);
    if (earlier === undefined) this.#open.set(key, delta);
    else appendKeyDelta(earlier, delta);
    this.#onChange?.({ key, replica: this.replica });
  }

  /** Closes the open batch; gives all frames that haven't been taken. */
  take(): unknown[][] {
    this.#close();
    const frames = this.#closed;
    this.#closed = [];
    return frames;
  }

  /** Merges a frame, and what was held back for it. */
  merge(tree: unknown): Merged {
    return this.#merge(readFrame(tree, this.maxValueBytes));
  }

  /** Merges a frame from its bytes. */
  mergeBytes(bytes: Uint8Array, unpack: (bytes: Uint8Array) => unknown): Merged {
    return this.#merge(readFrameBytes(bytes, this.maxValueBytes, unpack));
  }

  #merge(frame: Frame): Merged {
    requireValues(frame.keys);
    if (frame.number <= this.#numberOf(frame.replica)) {
      this.#release();
      return 'known';
    }
    if (frame.replica === this.replica) throw reused(this.replica);
    if (this.#isReady(frame)) {
      this.#apply(frame);
      this.#release();
      return 'merged';
    }
    const label = `${frame.replica} ${frame.number}`;
    if (this.#held.has(label)) {
      this.#release();
      return 'known';
    }
    if (this.#held.size >= this.#maxHeld)
      throw new NotReadyError(`${label} came too early, and too many deltas are held back`);
    this.#held.set(label, ownFrame(frame));
    return 'held';
  }

  /** The whole state as a tree. */
  snapshot(): unknown[] {
    this.#close();
    return writeSnapshot({ stamp: this.#clock.last, marks: this.merged, keys: this.keys });
  }

  /** Merges another one's whole state. */
  mergeSnapshot(tree: unknown): void {
    for (const key of this.#load(tree, this.#numberOf(this.replica)))
      this.#onChange?.({ key, replica: null });
    this.#release();
  }

  /** Merges a snapshot that holds at most so many of this replica's own frames; gives the keys that changed. */
  #load(tree: unknown, maxOwn = Number.POSITIVE_INFINITY): ByteString[] {
    const { stamp, marks, keys } = readSnapshot(tree, this.maxValueBytes);
    this.#close();
    if ((marks.get(this.replica)?.number ?? 0) > Math.max(maxOwn, this.#numberOf(this.replica)))
      throw reused(this.replica);
    this.#clock.observe(stamp);
    const changed: ByteString[] = [];
    for (const [key, state] of keys) if (this.keys.join(key, state)) changed.push(key);
    for (const [replica, mark] of marks)
      if (mark.number > this.#numberOf(replica)) this.merged.set(replica, mark);
    return changed;
  }

  /** Ends the open batch: what is merged from now on is no part of what its operations saw. */
  #close(): void {
    if (this.#open.size === 0) return;
    const stamp = this.#clock.last;
    const deps = new Map<ReplicaId, Stamp>();
    for (const [replica, mark] of this.merged) {
      if (replica !== this.replica && (this.#told?.get(replica) ?? 0) < mark.stamp)
        deps.set(replica, mark.stamp);
    }
    const number = this.#numberOf(this.replica) + 1;
    const full = this.#told === null;
    this.#closed.push(
      writeFrame({ replica: this.replica, number, stamp, deps, full, keys: [...this.#open] }),
    );
    for (const key of this.#open.keys()) this.keys.touch(key, stamp);
    this.#open = new Map();
    this.#told = new Map([...(this.#told ?? []), ...deps]);
    this.merged.set(this.replica, { number, stamp });
  }

  #numberOf(replica: ReplicaId): number {
    return this.merged.get(replica)?.number ?? 0;
  }

  #isReady(frame: Frame): boolean {
    if (frame.number !== this.#numberOf(frame.replica) + 1 || this.#clock.isAhead(frame.stamp)) return false;
    for (const [replica, stamp] of frame.deps) {
      if (replica !== frame.replica && (this.merged.get(replica)?.stamp ?? 0) < stamp) return false;
    }
    return true;
  }

  #apply(frame: Frame): void {
    const { replica, number, stamp } = frame;
    this.#close();
    this.#clock.observe(stamp);
    const changed: ByteString[] = [];
    const grown = this.#onChange === undefined ? null : changed;
    if ('plain' in frame) this.keys.joinPlain(frame.plain, grown);
    this.keys.joinAll(frame.keys, grown);
    this.merged.set(replica, { number, stamp });
    for (const key of changed) this.#onChange?.({ key, replica });
  }

  /** Merges what is held back and has become ready, and forgets what has become known. */
  #release(): void {
    for (let progress = this.#held.size > 0; progress; ) {
      progress = false;
      for (const [label, frame] of this.#held) {
        const known = frame.number <= this.#numberOf(frame.replica);
        if (!known && !this.#isReady(frame)) continue;
        this.#held.delete(label);
        if (!known) this.#apply(frame);
        progress = true;
      }
    }
  }
}

/** A node whose value expired in its store may send a write without its bytes; here nobody could supply them. */
function requireValues(keys: FrameContent['keys']): void {
  for (const [, delta] of keys) {
    if (delta.string?.register.value === UNLOADED) throw new DecodeError('a write came without its value');
  }
}

/** A frame that is to be kept: the bytes that it was read from are the caller's. */
function ownFrame(frame: Frame): Frame {
  if (!('plain' in frame)) return frame;
  return { ...frame, plain: { ...frame.plain, bytes: frame.plain.bytes.slice() } };
}

function reused(replica: ReplicaId): InvariantError {
  return new InvariantError(
    `the replica id ${replica} was used by another document, or by a later state of this one: take a new id`,
  );
}
