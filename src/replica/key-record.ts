/**
 * Key records: what a node holds in memory of one key, and how that is kept in a store.
 *
 * A string's bytes stay native in the store, so the header holds them only where the native value is something else, or
 * may go: when increments add to them, when another type hides them, or when the key has a deadline. A record may know part of a set: the members it loaded.
 *
 * The header of a plain string is told in plain-headers.ts. All others, positional: [touched, replicas, tag, body, …]
 * - 1, [stamp, replica, place] or [stamp, replica, 2, value], counts?: place 0 = deleted, 1 = native, 2 = here
 * - 2, context, size, digest of all members
 * - 3, expiry (crdts/expiry.ts)
 * - 4, values (crdts/policy.ts)
 * An entry, positional: [replica id, stamp, …].
 */
import { type ByteString, isAscii } from '../../crdts/bytes.js';
import { counterType } from '../../crdts/counter.js';
import { deadlineOf, expiryType } from '../../crdts/expiry.js';
import { emptyKeyState, type KeyState, winningPart } from '../../crdts/key-state.js';
import type { Dots } from '../../crdts/or-set.js';
import { valuesType } from '../../crdts/policy.js';
import { type Register, registerType, UNLOADED } from '../../crdts/register.js';
import { isStamp } from '../../crdts/stamp.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import type { LoadedKey } from '../store/store.js';
import { packBytes, unpackBytes } from './msgpack.js';
import { MsgpackWriter, writeDecimal } from './msgpack-writer.js';
import { readPlainHeader } from './plain-headers.js';
import { PlainRecord } from './plain-record.js';

const STRING_TAG = 1;
const SET_TAG = 2;
const EXPIRY_TAG = 3;
const VALUES_TAG = 4;
const DELETED = 0;
const NATIVE = 1;
const HERE = 2;

const out = new MsgpackWriter();

/** A key in memory. `state` includes the effects of commits that are still under way. */
export interface KeyRecord {
  readonly key: ByteString;
  /** The header as stored once all commits under way have succeeded. */
  header: ByteString | null;
  state: KeyState;
  /** Digest of all but the members of the set; NaN = not computed yet. */
  bodyDigest: number;
  /** Digest of all members of the set, loaded or not. */
  membersDigest: number;
  /** True when the native value is gone though the header says that it is there: it expired or was removed past us. */
  nativeMissing: boolean;
  /** The store's era in which the header was loaded or committed last; -1 = not known. */
  era: number;
  /** Used since the cache last looked: evict another one first. */
  used: boolean;
}

/** The record of a key that the store has nothing of. */
export function emptyRecord(key: ByteString): KeyRecord {
  return {
    key,
    header: null,
    state: emptyKeyState(),
    bodyDigest: 0,
    membersDigest: 0,
    nativeMissing: false,
    era: -1,
    used: true,
  };
}

/** The record that says what a plain one says. */
export function recordOf(plain: PlainRecord): KeyRecord {
  const { key, header, state, era } = plain;
  if (header === null) return { ...emptyRecord(key), era };
  return {
    key,
    header,
    state,
    bodyDigest: Number.NaN,
    membersDigest: 0,
    nativeMissing: false,
    era,
    used: true,
  };
}

/**
 * Says whether the string's bytes stand in the header: where the native value is something else, and where it has a deadline.
 * Natively such a value goes when the deadline comes; but a concurrent write may lift the deadline, and arrive later.
 */
export function standsInHeader(state: KeyState): boolean {
  return (
    winningPart(state) !== 'string' ||
    (state.string!.counter?.counts.size ?? 0) > 0 ||
    deadlineOf(state.expiry) !== null
  );
}

/** Encodes the header of a record. */
export function encodeHeader(record: KeyRecord): ByteString {
  return (
    PlainRecord.fromState(record.key, record.state, record.era)?.header ??
    quickHeader(record) ??
    generalHeader(record)
  );
}

/**
 * Encodes the header of a key that holds a counted string or a set and nothing else: the same bytes as {@link generalHeader}'s, but
 * without a tree. Null for all others.
 */
function quickHeader({ state, membersDigest }: KeyRecord): ByteString | null {
  const { touched, string, set, values, expiry } = state;
  if (values !== null || expiry !== null || (string === null) === (set === null)) return null;
  const counter = string?.counter ?? null;
  if (string !== null && (string.register.stamp !== 0 || counter === null || counter.resets.size > 0))
    return null;
  const named = set?.context ?? counter!.counts;
  const ids = [...named.keys()];
  if (ids.length > 1) ids.sort();
  out.reset();
  out.array(4);
  out.number(touched);
  out.array(ids.length);
  for (const id of ids) out.byteString(id as ByteString);
  if (set !== null) {
    out.byte(SET_TAG);
    out.array(3);
    out.array(ids.length * 2);
    for (let i = 0; i < ids.length; i += 1) {
      out.integer(i);
      out.number(touched - set.context.get(ids[i]!)!);
    }
    out.number(set.size);
    out.number(membersDigest);
  } else {
    out.byte(STRING_TAG);
    out.array(1);
    out.array(2);
    out.array(ids.length * 4);
    for (let i = 0; i < ids.length; i += 1) {
      const { since, p, n } = counter!.counts.get(ids[i]!)!;
      out.integer(i);
      out.number(touched - since);
      writeDecimal(out, p);
      writeDecimal(out, n);
    }
    out.array(0);
  }
  return out.text();
}

/** Encodes any header. */
function generalHeader(record: KeyRecord): ByteString {
  const { state } = record;
  const writer = new WireWriter(state.touched);
  const tags: unknown[] = [];
  if (state.string !== null) {
    const { register, counter } = state.string;
    let body: unknown[] = [];
    if (register.stamp !== 0) {
      const { value } = register;
      const place = value === null ? DELETED : value !== UNLOADED && standsInHeader(state) ? HERE : NATIVE;
      body = [writer.stamp(register.stamp), writer.replica(register.replica), place];
      if (place === HERE) body.push(writer.bytes(value as ByteString));
    }
    tags.push(STRING_TAG, body);
    if (counter !== null) body.push(counterType.toWire(counter, writer));
  }
  if (state.set !== null) {
    tags.push(SET_TAG, [writer.vector(state.set.context), state.set.size, record.membersDigest]);
  }
  if (state.expiry !== null) tags.push(EXPIRY_TAG, expiryType.toWire(state.expiry, writer));
  if (state.values !== null) tags.push(VALUES_TAG, valuesType.toWire(state.values, writer));
  return packBytes([state.touched, writer.replicas, ...tags]);
}

/** Makes a record of what a store loaded. Throws DecodeError when the stored bytes are damaged. */
export function decodeRecord(
  key: ByteString,
  loaded: LoadedKey,
  asked: { value: boolean; whole: boolean; members: readonly ByteString[] },
): KeyRecord {
  const record = emptyRecord(key);
  record.header = loaded.header;
  if (loaded.header === null) return record;
  record.bodyDigest = Number.NaN;
  const plain = readPlainHeader(loaded.header);
  if (plain !== null) {
    const { origin, behind, deleted } = plain;
    const register = registerType.empty();
    register.stamp = origin.stamp - behind;
    register.replica = origin.replica;
    if (!deleted) readNative(record, register, loaded.value, asked.value);
    record.state.touched = origin.stamp;
    record.state.string = { register, counter: null };
    return record;
  }
  const parts = asArray(unpackBytes(loaded.header), 'header');
  const touched = parts[0];
  if (!isStamp(touched)) throw new DecodeError('a stored header has no stamp');
  const reader = new WireReader(touched, parts[1], Number.MAX_SAFE_INTEGER);
  const { state } = record;
  state.touched = touched;
  for (let i = 2; i < parts.length; i += 2) {
    const body = asArray(parts[i + 1], 'stored sub-state');
    if (parts[i] === STRING_TAG) readString(record, body, reader, loaded.value, asked.value);
    else if (parts[i] === SET_TAG) readSet(record, body, reader);
    else if (parts[i] === EXPIRY_TAG) state.expiry = expiryType.fromWire(body, reader);
    else if (parts[i] === VALUES_TAG) state.values = valuesType.fromWire(body, reader);
    else throw new DecodeError('a stored header has an unknown sub-state: it was written by a newer release');
  }
  addEntries(record, loaded, asked);
  return record;
}

/** The record that a header alone makes: neither a native value nor members are loaded. Throws as {@link decodeRecord}. */
export function readHeader(key: ByteString, header: ByteString): KeyRecord {
  const asked = { value: false, whole: false, members: [] };
  return decodeRecord(key, { header, value: null, entries: new Map() }, asked);
}

function readString(
  record: KeyRecord,
  body: unknown[],
  reader: WireReader,
  native: ByteString | null,
  asked: boolean,
): void {
  const register = registerType.empty();
  let rest = 0;
  if (body.length >= 3) {
    register.stamp = reader.stamp(body[0]);
    register.replica = reader.replica(body[1]);
    rest = 3;
    if (body[2] === HERE) {
      register.value = reader.bytes(body[3]);
      rest = 4;
    } else if (body[2] === NATIVE) {
      readNative(record, register, native, asked);
    }
  }
  record.state.string = {
    register,
    counter: body.length > rest ? counterType.fromWire(body[rest], reader) : null,
  };
}

function readNative(record: KeyRecord, register: Register, native: ByteString | null, asked: boolean): void {
  register.value = asked && native !== null ? native : UNLOADED;
  record.nativeMissing = asked && native === null;
}

function readSet(record: KeyRecord, body: unknown[], reader: WireReader): void {
  const [context, size, digest] = body;
  if (typeof size !== 'number' || typeof digest !== 'number')
    throw new DecodeError('a stored set has no size');
  record.state.set = { context: reader.vector(context), entries: new Map(), whole: size === 0, size };
  record.membersDigest = digest;
}

/** Adds loaded entries to a record's set; asked-for members that have none are known to be absent. */
export function addEntries(
  record: KeyRecord,
  loaded: LoadedKey,
  asked: { whole: boolean; members: readonly ByteString[] },
): void {
  const { set } = record.state;
  if (set === null || set.whole) return;
  for (const [member, entry] of loaded.entries)
    if (!set.entries.has(member)) set.entries.set(member, decodeEntry(entry));
  if (asked.whole) {
    for (const [member, dots] of set.entries) if (dots.length === 0) set.entries.delete(member);
    set.whole = true;
    set.size = set.entries.size;
    return;
  }
  for (const member of asked.members) if (!set.entries.has(member)) set.entries.set(member, ABSENT);
}

/** The dots of members that aren't there. */
const ABSENT: Dots = [];

/** The dots that were encoded last, and their bytes: members that were added together share them. */
let lastDots: Dots = [];
let lastEntry = '' as ByteString;

/** Encodes the dots of one member. */
export function encodeEntry(dots: Dots): ByteString {
  if (dots === lastDots) return lastEntry;
  out.reset();
  out.array(dots.length * 2);
  for (const { replica, stamp } of dots) {
    out.byteString(replica as ByteString);
    out.number(stamp);
  }
  lastEntry = out.text();
  lastDots = dots;
  return lastEntry;
}

/** Decodes the dots of one member. Throws DecodeError when the stored bytes are damaged. */
export function decodeEntry(entry: ByteString): Dots {
  const flat = asArray(unpackBytes(entry), 'stored entry');
  const dots = [];
  for (let i = 0; i < flat.length; i += 2) {
    const [replica, stamp] = [flat[i], flat[i + 1]];
    if (typeof replica !== 'string' || !isAscii(replica) || !isStamp(stamp))
      throw new DecodeError('a stored entry is damaged');
    dots.push({ replica, stamp });
  }
  return dots;
}
