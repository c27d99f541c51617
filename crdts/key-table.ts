/**
 * The keys of a document and their states. What is only a plain delta stays bytes (plain-delta.ts) in a table of records; every
 * other key has a key state.
 */
import { type ByteString, hashAt, stringOfBytes, toUint8Array } from './bytes.js';
import { cloneKeyState, type KeyState, mergeKeyState } from './key-state.js';
import { stringHeadSize, stringLengthAt } from './msgpack-bytes.js';
import type { SetState } from './or-set.js';
import { endOfPlain, type Origin, type PlainDeltas, replacesPlain, stateOfPlain } from './plain-delta.js';
import { RecordTable } from './record-table.js';
import type { Stamp } from './stamp.js';

/** A key's delta, where it is no plain one. */
export type Delta = readonly [ByteString, KeyState];

// The tag of a plain delta's record is the position of its origin. Where a key has a state, it is -1 minus the state's position.

/** Origins that are never worth tidying up for. */
const SLACK_ORIGINS = 1024;

/** Key → state. */
export class KeyTable {
  /**
   * One that is never used. V8 forgets the shape of a class that has no instances, and drops the code that was optimized for it: who makes
   * one document after the other would be slow again with each.
   */
  static readonly none = new KeyTable();
  readonly #records = new RecordTable();
  /** States of keys that are more than a plain delta. */
  readonly #states: KeyState[] = [];
  /** Frames that carried plain deltas. */
  #origins: Origin[] = [];

  /** A key's state, to be looked at and not changed; undefined when the key was never written. */
  get(key: ByteString): KeyState | undefined {
    const record = this.#find(toUint8Array(key));
    return record < 0 ? undefined : this.#stateAt(record);
  }

  /** All keys with their states, to be looked at and not changed. */
  *[Symbol.iterator](): Generator<[ByteString, KeyState]> {
    for (let record = 0; record < this.#records.length; record += 1)
      yield [this.#records.keyOf(record), this.#stateAt(record)];
  }

  /** Joins a delta or a state into a key, and may keep it; says whether the key grew. */
  join(key: ByteString, delta: KeyState): boolean {
    const bytes = toUint8Array(key);
    const hash = hashAt(bytes, 0, bytes.length);
    const record = this.#records.find(hash, bytes, 0, bytes.length);
    if (record >= 0) return this.#joinState(record, delta);
    this.#records.add(hash, bytes, 0, bytes.length, bytes.length, this.#stateTag(stateOf(delta)));
    return true;
  }

  /** Joins deltas into their keys, and may keep them; adds the keys that grew to a list, where there is one. */
  joinAll(deltas: readonly Delta[], grown: ByteString[] | null): void {
    for (const [key, delta] of deltas) if (this.join(key, delta)) grown?.push(key);
  }

  /** Joins a delta that its owner keeps: it is copied. */
  joinCopy(key: ByteString, delta: KeyState): boolean {
    return this.join(key, this.#find(toUint8Array(key)) < 0 ? cloneKeyState(delta) : delta);
  }

  /** Joins plain deltas into their keys: copies their bytes. Adds the keys that grew to a list, where there is one. */
  joinPlain({ bytes, runs, origin }: PlainDeltas, grown: ByteString[] | null): void {
    if (runs.length === 0) return;
    const tag = this.#originTag(origin);
    for (let i = 0; i < runs.length; i += 2) {
      for (let at = runs[i]!; at < runs[i + 1]!; ) {
        const keyLength = stringLengthAt(bytes, at + 1);
        const keyAt = at + 1 + stringHeadSize(bytes, at + 1, keyLength);
        const keyEnd = keyAt + keyLength;
        at = endOfPlain(bytes, keyEnd);
        if (this.#joinRecord(bytes, keyAt, keyEnd, at, origin, tag))
          grown?.push(stringOfBytes(bytes, keyAt, keyLength));
      }
    }
  }

  #joinRecord(
    bytes: Uint8Array,
    keyAt: number,
    keyEnd: number,
    end: number,
    origin: Origin,
    tag: number,
  ): boolean {
    const records = this.#records;
    const hash = hashAt(bytes, keyAt, keyEnd - keyAt);
    const record = records.find(hash, bytes, keyAt, keyEnd);
    if (record < 0) {
      records.add(hash, bytes, keyAt, keyEnd, end, tag);
      return true;
    }
    if (!this.#isReplaced(record, bytes, keyEnd, origin))
      return this.#joinState(record, stateOfPlain(bytes, keyEnd, origin));
    records.replace(record, bytes, keyAt, keyEnd, end, tag);
    return true;
  }

  /** Sets the stamp of the last frame that touched a key, which was joined as a state. */
  touch(key: ByteString, stamp: Stamp): void {
    this.#stateAt(this.#find(toUint8Array(key))).touched = stamp;
  }

  #find(key: Uint8Array): number {
    return this.#records.find(hashAt(key, 0, key.length), key, 0, key.length);
  }

  /** A key's state: its own, or one that is made of its plain delta. */
  #stateAt(record: number): KeyState {
    const records = this.#records;
    const tag = records.tagOf(record);
    if (tag < 0) return this.#states[-1 - tag]!;
    return stateOfPlain(records.bytesOf(record), records.keyEndOf(record), this.#origins[tag]!);
  }

  #joinState(record: number, delta: KeyState): boolean {
    const state = this.#stateAt(record);
    if (!mergeKeyState(state, delta)) return false;
    if (this.#records.tagOf(record) >= 0) this.#records.trim(record, this.#stateTag(state));
    return true;
  }

  /** Says whether joining a plain delta into a key gives just this delta. False = perhaps: join their states. */
  #isReplaced(record: number, bytes: Uint8Array, keyEnd: number, origin: Origin): boolean {
    const records = this.#records;
    const tag = records.tagOf(record);
    if (tag < 0) return false;
    const before = this.#origins[tag]!;
    return replacesPlain(bytes, keyEnd, origin, records.bytesOf(record), records.keyEndOf(record), before);
  }

  /** The tag for a key that has a state from now on. */
  #stateTag(state: KeyState): number {
    return -this.#states.push(state);
  }

  /** The tag for an origin's deltas. Origins whose deltas were all replaced are dropped now and then. */
  #originTag(origin: Origin): number {
    const records = this.#records;
    if (this.#origins.length >= 2 * records.length + SLACK_ORIGINS) {
      const tags = new Map<number, number>();
      const old = this.#origins;
      this.#origins = [];
      for (let record = 0; record < records.length; record += 1) {
        const tag = records.tagOf(record);
        if (tag < 0) continue;
        let next = tags.get(tag);
        if (next === undefined) {
          next = this.#origins.push(old[tag]!) - 1;
          tags.set(tag, next);
        }
        records.setTag(record, next);
      }
    }
    return this.#origins.push(origin) - 1;
  }
}

/** Makes a delta the state of a key that had none. A delta that isn't part of a set is a state as it stands. */
function stateOf(delta: KeyState): KeyState {
  if (delta.set !== null && !delta.set.whole) complete(delta.set);
  return delta;
}

/** Turns what a delta says of some members into the whole set, where nothing else was ever seen: members with dots are there. */
function complete(set: SetState): void {
  for (const [member, dots] of set.entries) if (dots.length === 0) set.entries.delete(member);
  set.whole = true;
  set.size = set.entries.size;
}
