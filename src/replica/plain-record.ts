/**
 * Plain records: what a node holds in memory of a key that is a plain string and nothing else, or was one, or was never written.
 *
 * Most keys are that, and there may be many. A key record (key-record.ts) is a dozen objects; this is one, that shares with the
 * other writes of its batch who made them and when. A SET that finds one changes it without a delta, nor a change, of its own: what it
 * did follows from what it left. Whatever else wants the key gets {@link PlainRecord.toRecord}, and goes on with that.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { registerDigest, subtractDigests } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { emptyKeyState, type KeyState } from '../../crdts/key-state.js';
import type { Origin } from '../../crdts/plain-delta.js';
import { type Register, UNLOADED } from '../../crdts/register.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { KeyWrite } from '../store/store.js';
import { packBytes } from './msgpack.js';
import { plainHeader, readPlainHeader } from './plain-headers.js';

/** Values up to this many bytes stay with their record; longer ones stay in the store. */
export const MAX_CACHED_VALUE_BYTES = 256;

const NEVER: Origin = { replica: '', stamp: 0 };

/** What a batch has made of a record so far: one write, the last. */
export interface PlainChange {
  readonly record: PlainRecord;
  /** The frame that carries it; null = the one that the batch will make. */
  origin: Origin | null;
  /** Of the write. */
  stamp: Stamp;
  /** null = deleted. */
  value: ByteString | null;
}

export class PlainRecord {
  readonly key: ByteString;
  /** The frame that wrote it last; shared by all keys that it wrote. */
  #origin: Origin;
  /** How far the write's own stamp is below the frame's. */
  #behind: number;
  /** null = deleted, or never written. */
  value: Register['value'];
  /** What the batch that is being made does to it; null between batches. */
  change: PlainChange | null = null;
  /** Used since the cache last looked: evict another one first. */
  used = true;

  /** A key that was never written; or one whose header was read. */
  constructor(key: ByteString, origin = NEVER, behind = 0, value: Register['value'] = null) {
    this.key = key;
    this.#origin = origin;
    this.#behind = behind;
    this.value = value;
  }

  /** The record that a header makes whose native value isn't loaded; null when the key is, or was, more than a plain string. */
  static fromHeader(key: ByteString, header: ByteString | null): PlainRecord | null {
    if (header === null) return new PlainRecord(key);
    const read = readPlainHeader(header);
    return read && new PlainRecord(key, read.origin, read.behind, read.deleted ? null : UNLOADED);
  }

  /** The record of a key state, if that is all there is to it. */
  static fromState(key: ByteString, state: KeyState): PlainRecord | null {
    const { touched, string, set, values, expiry } = state;
    if (string === null || set !== null || values !== null || expiry !== null || string.counter !== null)
      return null;
    const { stamp, replica, value } = string.register;
    const behind = touched - stamp;
    if (stamp === 0 || behind < 0 || behind >= 2 ** 28) return null;
    return new PlainRecord(key, { replica, stamp: touched }, behind, value);
  }

  get isWritten(): boolean {
    return this.#origin !== NEVER;
  }

  /** The greatest stamp of the frames that touched it; 0 = none did. */
  get touched(): Stamp {
    return this.#origin.stamp;
  }

  /** The write's own stamp; 0 = never written. */
  get stamp(): Stamp {
    return this.#origin.stamp - this.#behind;
  }

  get replica(): ReplicaId {
    return this.#origin.replica;
  }

  /** The header as stored once all commits under way have succeeded; null = none. */
  get header(): ByteString | null {
    if (this.#origin === NEVER) return null;
    const deleted = this.value === null;
    return (
      plainHeader(this.#origin, this.#behind, deleted) ??
      packBytes([this.touched, [this.replica], 1, [this.#behind, 0, deleted ? 0 : 1]])
    );
  }

  /** The digest of what lives of the key. */
  get digest(): number {
    return this.value === null ? 0 : registerDigest(this.key, this);
  }

  /** A key state of its own. */
  get state(): KeyState {
    const state = emptyKeyState();
    if (!this.isWritten) return state;
    state.touched = this.touched;
    const { stamp, replica, value } = this;
    state.string = { register: { stamp, replica, value }, counter: null };
    return state;
  }

  /** Takes over a change that the frame of `origin` carries, and gives the write that stores it. Long values are left to the store. */
  write({ stamp, value }: PlainChange, origin: Origin): KeyWrite {
    const { key, header: expected, digest: before } = this;
    const wasThere = this.value !== null;
    this.#origin = origin;
    this.#behind = origin.stamp - stamp;
    this.value = value !== null && value.length > MAX_CACHED_VALUE_BYTES ? UNLOADED : value;
    this.change = null;
    const { header } = this;
    const digest = subtractDigests(this.digest, before);
    if (value !== null) return { key, expected, header, digest, native: { kind: 'string', value } };
    return wasThere
      ? { key, expected, header, digest, native: { kind: 'delete' } }
      : { key, expected, header, digest };
  }
}
