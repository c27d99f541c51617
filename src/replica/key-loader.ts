/** Loads what a batch needs of its keys: from the cache where it is known, and the rest in one batched read. */
import type { ByteString } from '../../crdts/bytes.js';
import { UNLOADED } from '../../crdts/register.js';
import type { LoadedKey, LoadRequest, Store } from '../store/store.js';
import type { BlindWrites } from './blind-writes.js';
import type { CachedKey, KeyCache } from './key-cache.js';
import { addEntries, decodeRecord, type KeyRecord, recordOf } from './key-record.js';
import { GUESSED, PlainRecord } from './plain-record.js';

/** What a batch needs of one key. */
export interface Want {
  value: boolean;
  whole: boolean;
  members: Set<ByteString> | null;
  /** Nothing of it must be known (blind-writes.ts). */
  blind: boolean;
}

export type Wants = Map<ByteString, Want>;

/** A key of which nothing must be known: most are, so they share this one. Never changed. */
const BLIND: Want = { value: false, whole: false, members: null, blind: true };

/** Adds to what is wanted of a key. */
export function want(
  wants: Wants,
  key: ByteString,
  value: boolean,
  members: Iterable<ByteString> | 'all' | undefined,
): void {
  let wanted = wants.get(key);
  if (wanted === undefined || wanted === BLIND) {
    wanted = { value: false, whole: false, members: null, blind: false };
    wants.set(key, wanted);
  }
  if (value) wanted.value = true;
  if (members === 'all') wanted.whole = true;
  else if (members !== undefined) {
    wanted.members ??= new Set();
    for (const member of members) wanted.members.add(member);
  }
}

/**
 * Collects what a batch needs of its keys. Records that the cache holds, complete enough, keys that the store knows to be absent, and guesses
 * (blind-writes.ts) go to `records` at once; the rest is wanted of the store.
 */
export class Needs {
  readonly wants: Wants = new Map();
  /** Records of absent keys that aren't in the cache; they belong there once they are written. */
  readonly fresh: PlainRecord[] = [];
  /** Some of them are guesses. */
  guessed = false;
  /** More was wanted of a key than of a record that had been taken for it: say all needs again. */
  incomplete = false;
  readonly #cache: KeyCache;
  readonly #records: Map<ByteString, CachedKey>;
  readonly #store: Store | null;
  readonly #guess: boolean;
  /** The last key that was looked for wasn't in the cache. */
  #missed = false;

  /** @param store null = what it knows to be absent is of no use */
  constructor(cache: KeyCache, records: Map<ByteString, CachedKey>, store: Store | null, guess: boolean) {
    this.#cache = cache;
    this.#records = records;
    this.#store = store;
    this.#guess = guess;
  }

  add(key: ByteString, value: boolean, members: Members | 'all' | undefined): void {
    if (this.wants.has(key)) {
      this.#want(key, value, members);
      return;
    }
    const taken = this.#records.get(key);
    const record = taken ?? this.#find(key);
    if (record !== undefined && holds(record, value, members)) {
      if (taken === undefined) this.#records.set(key, record);
      return;
    }
    // Should the store hold something else than the cache by now, all is needed that was needed before, not only what the cache lacks.
    if (taken !== undefined) this.incomplete = true;
    this.#want(key, value, members);
  }

  #want(key: ByteString, value: boolean, members: Members | 'all' | undefined): void {
    want(this.wants, key, value, members === 'all' || members === undefined ? members : namesOf(members));
  }

  /** The key is only written. */
  addBlind(key: ByteString): void {
    if (this.#records.has(key) || (this.wants.size > 0 && this.wants.has(key))) return;
    const record = this.#find(key) ?? this.#guessed(key);
    if (record !== null) this.#records.set(key, record);
    else this.wants.set(key, BLIND);
  }

  /** What is known of a key: its record in the cache, or that it is absent. */
  #find(key: ByteString): CachedKey | undefined {
    // Where one key isn't in the cache, the next one seldom is. What is absent certainly isn't, and quicker to tell.
    const missed = this.#missed;
    const absent = missed ? this.#absent(key) : undefined;
    if (absent !== undefined) return absent;
    const record = this.#cache.get(key);
    this.#missed = record === undefined;
    return record ?? (missed ? undefined : this.#absent(key));
  }

  #absent(key: ByteString): PlainRecord | undefined {
    const store = this.#store;
    if (store?.isAbsent?.(key) !== true) return undefined;
    const record = PlainRecord.absent(key, store.era!);
    this.fresh.push(record);
    return record;
  }

  #guessed(key: ByteString): PlainRecord | null {
    if (!this.#guess) return null;
    this.guessed = true;
    const record = new PlainRecord(key);
    this.fresh.push(record);
    return record;
  }
}

/** Members of a set: as a list, or as the keys of a map; not an iterator, for they are gone through more than once. */
type Members = readonly ByteString[] | ReadonlyMap<ByteString, unknown>;

const namesOf = (members: Members): Iterable<ByteString> =>
  members instanceof Map ? members.keys() : (members as readonly ByteString[]);

function holds(record: CachedKey, value: boolean, members: Members | 'all' | undefined): boolean {
  if (record instanceof PlainRecord) return record.era !== GUESSED && (!value || record.value !== UNLOADED);
  const { string, set } = record.state;
  if (value && string !== null && string.register.value === UNLOADED && !record.nativeMissing) return false;
  if (set === null || set.whole || members === undefined) return true;
  if (members === 'all') return false;
  for (const member of namesOf(members)) if (!set.entries.has(member)) return false;
  return true;
}

/** What of a want a record doesn't hold; null = nothing. */
function missing(record: KeyRecord | undefined, wanted: Want): Omit<LoadRequest, 'key'> | null {
  if (record === undefined) {
    const elements = wanted.whole ? 'all' : wanted.members === null ? undefined : [...wanted.members];
    return { value: wanted.value, ...(elements === undefined ? {} : { elements }) };
  }
  const { string, set } = record.state;
  const value =
    wanted.value && string !== null && string.register.value === UNLOADED && !record.nativeMissing;
  if (set === null || set.whole) return value ? { value } : null;
  if (wanted.whole) return { value, elements: 'all' };
  const elements: ByteString[] = [];
  for (const member of wanted.members ?? []) if (!set.entries.has(member)) elements.push(member);
  return value || elements.length > 0 ? { value, elements } : null;
}

/**
 * Brings every wanted key's record, complete as wanted, into `records` and the cache. Where nothing must be known of a key, a plain
 * record will do; `blind` learns whether it was there. Says whether the record of a key has been replaced that `records` held before: another
 * node has written it, or it was invalidated. Rejects as the store does.
 */
export async function loadKeys(
  store: Store,
  cache: KeyCache,
  wants: Wants,
  records: Map<ByteString, CachedKey>,
  blind: BlindWrites | null = null,
): Promise<boolean> {
  const requests: LoadRequest[] = [];
  for (const [key, wanted] of wants) {
    const found = cache.get(key);
    const record = found === undefined ? undefined : whole(cache, found);
    const lacks = missing(record, wanted);
    if (lacks === null) records.set(key, record!);
    else requests.push({ key, ...lacks });
  }
  if (requests.length === 0) return false;
  let replaced = false;
  const era = store.era ?? -1;
  const loaded = await store.load(requests);
  if (blind !== null) learn(blind, wants, requests, loaded);
  for (const [i, request] of requests.entries()) {
    const answer = loaded[i]!;
    const { key } = request;
    const wanted = wants.get(key)!;
    const plain = wanted.blind ? PlainRecord.fromHeader(key, answer.header, era) : null;
    if (plain !== null) {
      cache.set(plain);
      records.set(key, plain);
      continue;
    }
    const asked = parts(request);
    const found = cache.get(key);
    let record = found === undefined ? undefined : whole(cache, found);
    if (record === undefined || record.header !== answer.header) {
      // Not known, or another node on the same Valkey has written it.
      if (records.has(key)) replaced = true;
      record = decodeRecord(key, answer, asked);
      record.era = era;
      cache.set(record);
      // A record that was replaced knew some members that weren't asked for again.
      const lacks = missing(record, wanted);
      if (lacks !== null) complete(record, (await store.load([{ key, ...lacks }]))[0]!, parts(lacks));
    } else {
      complete(record, answer, asked);
      record.era = era;
    }
    records.set(key, record);
  }
  return replaced;
}

/** The record of a key that more is wanted of than a plain one can give; it takes its place in the cache. */
function whole(cache: KeyCache, found: CachedKey): KeyRecord {
  if (!(found instanceof PlainRecord)) return found;
  const record = recordOf(found);
  cache.set(record);
  return record;
}

/** Tells of the keys that might have been guessed whether they were there. */
function learn(
  blind: BlindWrites,
  wants: Wants,
  requests: readonly LoadRequest[],
  loaded: readonly LoadedKey[],
): void {
  let keys = 0;
  let found = 0;
  for (let i = 0; i < requests.length; i += 1) {
    if (!wants.get(requests[i]!.key)!.blind) continue;
    keys += 1;
    if (loaded[i]!.header !== null) found += 1;
  }
  blind.loaded(keys, found);
}

/** What a request asks for, in the terms of a record. */
function parts({ value, elements }: Omit<LoadRequest, 'key'>): {
  value: boolean;
  whole: boolean;
  members: readonly ByteString[];
} {
  const members = elements === undefined || elements === 'all' ? [] : elements;
  return { value: value === true, whole: elements === 'all', members };
}

function complete(
  record: KeyRecord,
  answer: {
    value: ByteString | null;
    entries: ReadonlyMap<ByteString, ByteString>;
    header: ByteString | null;
  },
  asked: { value: boolean; whole: boolean; members: readonly ByteString[] },
): void {
  const register = record.state.string?.register;
  if (asked.value && register !== undefined && register.value === UNLOADED) {
    if (answer.value === null) record.nativeMissing = true;
    else register.value = answer.value;
  }
  addEntries(record, answer, asked);
}
