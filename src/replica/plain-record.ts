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
import type { KeyWrite, NativeWrite } from '../store/store.js';
import { packBytes } from './msgpack.js';
import { plainHeader, readPlainHeader } from './plain-headers.js';

/** Values up to this many bytes stay with their record; longer ones stay in the store. */
export const MAX_CACHED_VALUE_BYTES = 256;

const HALF_DIGEST = 2 ** 24;

const NEVER: Origin = { replica: '', stamp: 0 };

/** The era of a record that is a guess: nothing is known of the key (blind-writes.ts). */
export const GUESSED = -2;

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
  /** The digest in two small integers, which cost no object; less than 0 = not known. */
  #digestHigh = -1;
  #digestLow = 0;
  /** null = deleted, or never written. */
  value: Register['value'];
  /** What the batch that is being made does to it; null between batches. */
  change: PlainChange | null = null;
  /** The store's era in which the header was loaded or committed last; -1 = not known, -2 = {@link GUESSED}. */
  era: number;
  /** Used since the cache last looked: evict another one first. */
  used = false;

  /** A guess that the key was never written; or one whose header was read. */
  constructor(key: ByteString, origin = NEVER, behind = 0, value: Register['value'] = null, era = GUESSED) {
    this.key = key;
    this.#origin = origin;
    this.#behind = behind;
    this.value = value;
    this.era = era;
  }

  /** The record of a key that is known to have no header. */
  static absent(key: ByteString, era: number): PlainRecord {
    return new PlainRecord(key, NEVER, 0, null, era);
  }

  /** The record that a header makes whose native value isn't loaded; null when the key is, or was, more than a plain string. */
  static fromHeader(key: ByteString, header: ByteString | null, era: number): PlainRecord | null {
    if (header === null) return PlainRecord.absent(key, era);
    const read = readPlainHeader(header);
    return read && new PlainRecord(key, read.origin, read.behind, read.deleted ? null : UNLOADED, era);
  }

  /** The record of a key state, if that is all there is to it. */
  static fromState(key: ByteString, state: KeyState, era: number): PlainRecord | null {
    const { touched, string, set, values, expiry } = state;
    if (string === null || set !== null || values !== null || expiry !== null || string.counter !== null)
      return null;
    const { stamp, replica, value } = string.register;
    const behind = touched - stamp;
    if (stamp === 0 || behind < 0 || behind >= 2 ** 28) return null;
    return new PlainRecord(key, { replica, stamp: touched }, behind, value, era);
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
    return headerOf(this.#origin, this.#behind, this.value === null);
  }

  /** The digest of what lives of the key. */
  get digest(): number {
    if (this.value === null) return 0;
    if (this.#digestHigh < 0) this.#digest = registerDigest(this.key, this);
    return this.#digestHigh * HALF_DIGEST + this.#digestLow;
  }

  set #digest(digest: number) {
    this.#digestHigh = Math.floor(digest / HALF_DIGEST);
    this.#digestLow = digest % HALF_DIGEST;
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
    const { digest: before } = this;
    const wasThere = this.value !== null;
    const write = new PlainKeyWrite(this.key, this.era, this.#origin, this.#behind, !wasThere);
    this.#origin = origin;
    this.#behind = origin.stamp - stamp;
    this.#digestHigh = -1;
    this.value = value !== null && value.length > MAX_CACHED_VALUE_BYTES ? UNLOADED : value;
    this.change = null;
    write.header = this.header;
    write.digest = subtractDigests(this.digest, before);
    write.value = value;
    return write;
  }
}

/** The header of a plain string; null = it was never written. */
function headerOf(origin: Origin, behind: number, deleted: boolean): ByteString | null {
  if (origin === NEVER) return null;
  return (
    plainHeader(origin, behind, deleted) ??
    packBytes([origin.stamp, [origin.replica], 1, [behind, 0, deleted ? 0 : 1]])
  );
}

const DELETE: NativeWrite = { kind: 'delete' };

/** The write of a plain record, and of its string: few objects. What must be stored before it is seldom asked for, so it is made then. */
class PlainKeyWrite implements KeyWrite {
  readonly kind = 'string';
  /** The string to write; null = none. */
  value: ByteString | null = null;
  readonly key: ByteString;
  readonly era: number;
  readonly first: boolean;
  readonly #origin: Origin;
  readonly #behind: number;
  readonly #deleted: boolean;
  header: ByteString | null = null;
  digest = 0;

  /** @param origin and the rest: of the write before it */
  constructor(key: ByteString, era: number, origin: Origin, behind: number, deleted: boolean) {
    this.key = key;
    this.era = era;
    this.first = origin === NEVER;
    this.#origin = origin;
    this.#behind = behind;
    this.#deleted = deleted;
  }

  get native(): NativeWrite | undefined {
    if (this.value !== null) return this as { readonly kind: 'string'; readonly value: ByteString };
    return this.#deleted ? undefined : DELETE;
  }

  get expected(): ByteString | null {
    return headerOf(this.#origin, this.#behind, this.#deleted);
  }
}
