/**
 * A table of records, each found by its key: bytes that begin with the bytes of the key. Made for millions of small ones: a record costs
 * its own bytes and 36 to 72 more, as the tables double when they are full, and no object, so there is nothing for the garbage collector to walk through.
 *
 * `slots` leads from the hash of a key to the number of its record (open addressing, at most half full); `entries` says of each record where it stands;
 * the bytes are copied into `pieces`, one after the other. What is replaced stays there until half of all bytes are such.
 *
 * The hash isn't secret, so keys that collide can be made at will. Only {@link PROBES} slots are looked at for a key: those that
 * find none free among them go to a Map, whose hashes are secret. They are slower, and that is all.
 */
import { type ByteString, copyBytes, stringOfBytes } from './bytes.js';

/** Where a key may be: in so many slots from the one on that its hash names. */
const PROBES = 32;
/** Numbers of a slot: the record's number plus 1 (0 = free), and its key's hash. */
const SLOT = 2;
/** Numbers of an entry: in which piece the record stands, from where, where its key ends, where it ends, and the owner's tag. */
const ENTRY = 5;
const AT = 1;
const KEY_END = 2;
const END = 3;
const TAG = 4;

const FIRST_SLOTS = 16;
const FIRST_PIECE_BYTES = 1024;
const MAX_PIECE_BYTES = 2 ** 20;
/** Bytes of replaced records that are never worth tidying up for. */
const SLACK_BYTES = 65_536;

/** Records by key. Numbers of records count from 0, without gaps; no record is ever removed. */
export class RecordTable {
  #slots = new Int32Array(FIRST_SLOTS * SLOT);
  #mask = FIRST_SLOTS - 1;
  #entries = new Int32Array((FIRST_SLOTS / 2) * ENTRY);
  #length = 0;
  /** Records whose slots were taken, with the hashes of their keys. */
  #crowded = new Map<ByteString, readonly [record: number, hash: number]>();
  /** The slot that the last {@link find} ended at, for {@link add}; negative when none was free. */
  #free = 0;
  #pieces: Uint8Array[] = [];
  /** The last of them, and how much of it is used. */
  #piece = new Uint8Array(0);
  #used = 0;
  /** Bytes of all pieces, and those of records that weren't replaced. */
  #heldBytes = 0;
  #liveBytes = 0;

  /** How many records there are. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that all of this takes, about. */
  get heldBytes(): number {
    return this.#heldBytes + this.#slots.byteLength + this.#entries.byteLength;
  }

  /** The number of the record with a key, or -1. `hash` is the key's, a signed 32-bit integer: always the same for one key. */
  find(hash: number, bytes: Uint8Array, keyAt: number, keyEnd: number): number {
    const slots = this.#slots;
    const mask = this.#mask;
    for (let i = 0; i < PROBES; i += 1) {
      const slot = ((hash + i) & mask) * SLOT;
      const record = slots[slot]! - 1;
      if (record < 0) {
        this.#free = slot;
        return -1;
      }
      if (slots[slot + 1] === hash && this.#hasKey(record, bytes, keyAt, keyEnd)) return record;
    }
    this.#free = -1;
    if (this.#crowded.size === 0) return -1;
    return this.#crowded.get(stringOfBytes(bytes, keyAt, keyEnd - keyAt))?.[0] ?? -1;
  }

  /** Adds a record whose key was not found by the {@link find} just before. Copies the bytes; gives its number. */
  add(hash: number, bytes: Uint8Array, keyAt: number, keyEnd: number, end: number, tag: number): number {
    const record = this.#length;
    if ((record + 1) * ENTRY > this.#entries.length) {
      const entries = new Int32Array(this.#entries.length * 2);
      entries.set(this.#entries);
      this.#entries = entries;
    }
    this.#length += 1;
    if (this.#free < 0) this.#crowded.set(stringOfBytes(bytes, keyAt, keyEnd - keyAt), [record, hash]);
    else {
      this.#slots[this.#free] = record + 1;
      this.#slots[this.#free + 1] = hash;
    }
    this.#put(record, bytes, keyAt, keyEnd, end, tag);
    if (this.#length * 2 > this.#mask) this.#grow();
    return record;
  }

  /** Replaces a record by another one with the same key. Copies the bytes. */
  replace(record: number, bytes: Uint8Array, keyAt: number, keyEnd: number, end: number, tag: number): void {
    const at = record * ENTRY;
    this.#liveBytes -= this.#entries[at + END]! - this.#entries[at + AT]!;
    this.#put(record, bytes, keyAt, keyEnd, end, tag);
  }

  /** Drops what a record holds besides its key, and gives it another tag. */
  trim(record: number, tag: number): void {
    const at = record * ENTRY;
    const entries = this.#entries;
    this.#liveBytes -= entries[at + END]! - entries[at + KEY_END]!;
    entries[at + END] = entries[at + KEY_END]!;
    entries[at + TAG] = tag;
  }

  /** What the owner has said of a record. */
  tagOf(record: number): number {
    return this.#entries[record * ENTRY + TAG]!;
  }

  /** Says something else of a record. */
  setTag(record: number, tag: number): void {
    this.#entries[record * ENTRY + TAG] = tag;
  }

  /** The bytes in which a record stands, until the next change. */
  bytesOf(record: number): Uint8Array {
    return this.#pieces[this.#entries[record * ENTRY]!]!;
  }

  /** Where the record's key ends in {@link bytesOf}. */
  keyEndOf(record: number): number {
    return this.#entries[record * ENTRY + KEY_END]!;
  }

  keyOf(record: number): ByteString {
    const at = this.#entries[record * ENTRY + AT]!;
    return stringOfBytes(this.bytesOf(record), at, this.keyEndOf(record) - at);
  }

  #hasKey(record: number, bytes: Uint8Array, keyAt: number, keyEnd: number): boolean {
    const entries = this.#entries;
    const at = record * ENTRY;
    let i = entries[at + AT]!;
    if (entries[at + KEY_END]! - i !== keyEnd - keyAt) return false;
    const own = this.#pieces[entries[at]!]!;
    for (let j = keyAt; j < keyEnd; i += 1, j += 1) if (own[i] !== bytes[j]) return false;
    return true;
  }

  /** Puts a record at the end; its old bytes, if there are any, count as replaced already. */
  #put(record: number, bytes: Uint8Array, keyAt: number, keyEnd: number, end: number, tag: number): void {
    const size = end - keyAt;
    if (this.#used + size > this.#piece.length) this.#makeRoom(size, record);
    const to = this.#used;
    copyBytes(bytes, keyAt, end, this.#piece, to);
    this.#used = to + size;
    this.#liveBytes += size;
    const entries = this.#entries;
    const at = record * ENTRY;
    entries[at] = this.#pieces.length - 1;
    entries[at + AT] = to;
    entries[at + KEY_END] = to + keyEnd - keyAt;
    entries[at + END] = to + size;
    entries[at + TAG] = tag;
  }

  /** Begins a new piece. When most of the old ones was replaced, it first moves what wasn't, but for a record that is about to be put. */
  #makeRoom(size: number, coming: number): void {
    if (this.#heldBytes > 2 * (this.#liveBytes + size) + SLACK_BYTES) {
      const old = this.#pieces;
      this.#pieces = [];
      this.#heldBytes = 0;
      this.#liveBytes = 0;
      this.#addPiece(0);
      const entries = this.#entries;
      for (let record = 0; record < this.#length; record += 1) {
        const at = record * ENTRY;
        const bytes = old[entries[at]!]!;
        if (record !== coming)
          this.#put(
            record,
            bytes,
            entries[at + AT]!,
            entries[at + KEY_END]!,
            entries[at + END]!,
            entries[at + TAG]!,
          );
      }
      if (this.#used + size <= this.#piece.length) return;
    }
    this.#addPiece(size);
  }

  #addPiece(size: number): void {
    const growing = Math.min(MAX_PIECE_BYTES, Math.max(FIRST_PIECE_BYTES, this.#heldBytes));
    this.#piece = new Uint8Array(Math.max(size, growing));
    this.#pieces.push(this.#piece);
    this.#used = 0;
    this.#heldBytes += this.#piece.length;
  }

  /** Doubles the slots. */
  #grow(): void {
    const [old, crowded] = [this.#slots, this.#crowded];
    this.#mask = this.#mask * 2 + 1;
    this.#slots = new Int32Array(old.length * 2);
    this.#crowded = new Map();
    for (let slot = 0; slot < old.length; slot += SLOT)
      if (old[slot] !== 0) this.#place(old[slot]! - 1, old[slot + 1]!);
    for (const [record, hash] of crowded.values()) this.#place(record, hash);
  }

  #place(record: number, hash: number): void {
    const slots = this.#slots;
    for (let i = 0; i < PROBES; i += 1) {
      const slot = ((hash + i) & this.#mask) * SLOT;
      if (slots[slot] !== 0) continue;
      slots[slot] = record + 1;
      slots[slot + 1] = hash;
      return;
    }
    this.#crowded.set(this.keyOf(record), [record, hash]);
  }
}
