/**
 * Checks a region's store against itself: the digests of slots against their headers, entries against headers, native values
 * against both, and native keys that no header knows of.
 *
 * Nothing is held for it. A key is judged only when its header was the same before and after everything else was read, else
 * it is looked at again: so writes under way are no findings. Memory is bounded: some keys, or one page of a set, at a time.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, memberDigest } from '../../crdts/digest.js';
import { winningPart } from '../../crdts/key-state.js';
import { DecodeError } from '../errors.js';
import type { ResolveKey } from '../replica/key-change.js';
import { decodeEntry, decodeRecord, type KeyRecord } from '../replica/key-record.js';
import { keySlot } from '../store/slots.js';
import { type LoadedKey, type Store, WRONG_TYPE } from '../store/store.js';
import { headerDigest, UNREADABLE_DIGEST } from './cut-member.js';
import { contentDigest, contentOf, type Judgement, judgeKey, type Native } from './judge.js';
import { FLUX_TRIES, KEY_PAGE, SET_PAGE } from './limits.js';

/** What is wrong with one key, or with a slot. */
export interface Fault extends Judgement {
  readonly key: ByteString | null;
  readonly slot: number;
}

/** What came of some keys. */
export interface Checked {
  readonly faults: readonly Fault[];
  /** Sum of the digests of native contents that stand nowhere else. */
  readonly content: number;
  readonly checked: number;
  readonly inFlux: number;
}

/** A key as it was read, if it didn't change meanwhile. */
export interface KeyReading {
  readonly record: KeyRecord;
  readonly native: Native;
  readonly faults: readonly Judgement[];
}

export class DeepCheck {
  readonly #store: Store;
  readonly #resolve: ResolveKey;
  readonly #now: () => number;

  constructor(store: Store, resolve: ResolveKey, now: () => number) {
    this.#store = store;
    this.#resolve = resolve;
    this.#now = now;
  }

  /** Checks a slot and all its keys. */
  async slot(slot: number): Promise<Checked> {
    const { digest, headers } = await this.#store.slotContent(slot);
    const faults: Fault[] = [];
    let sum = 0;
    const keys: ByteString[] = [];
    for (const [key, header] of headers) {
      const one = headerDigest(key, header);
      if (one === UNREADABLE_DIGEST)
        faults.push({ key, slot, kind: 'header damaged', detail: 'it can not be read' });
      else {
        sum = addDigests(sum, one);
        keys.push(key);
      }
    }
    if (sum !== digest)
      faults.push({ key: null, slot, kind: 'slot damaged', detail: 'its digest is not that of its headers' });
    let [content, checked, inFlux] = [0, 0, 0];
    for (let from = 0; from < keys.length; from += KEY_PAGE) {
      const page = keys.slice(from, from + KEY_PAGE);
      for (const [key, reading] of await this.read(page)) {
        if (reading === null) {
          inFlux += 1;
          continue;
        }
        checked += 1;
        faults.push(...reading.faults.map((fault) => ({ ...fault, key, slot })));
        const held = contentOf(reading.record, reading.native, this.#resolve);
        if (held !== null) content = addDigests(content, contentDigest(key, held));
      }
    }
    return { faults, content, checked, inFlux };
  }

  /** Reads and judges keys; null for one that changed each time. Keys without a header are left out. */
  async read(keys: readonly ByteString[]): Promise<Map<ByteString, KeyReading | null>> {
    const readings = new Map<ByteString, KeyReading | null>();
    let left = keys;
    for (let attempt = 0; attempt < FLUX_TRIES && left.length > 0; attempt += 1)
      left = await this.#readOnce(left, readings);
    for (const key of left) readings.set(key, null);
    return readings;
  }

  /** Gives the keys that changed meanwhile. */
  async #readOnce(
    keys: readonly ByteString[],
    readings: Map<ByteString, KeyReading | null>,
  ): Promise<ByteString[]> {
    const loaded = await this.#store.load(keys.map((key) => ({ key, value: true })));
    const types = await this.#store.types(keys);
    const deadlines = await this.#store.deadlines(keys);
    const found = new Map<ByteString, KeyReading>();
    for (const [i, key] of keys.entries()) {
      const record = readRecord(key, loaded[i]!);
      if (record === null) continue;
      const deadline = deadlines[i];
      const type = types[i]! === 'none' && deadline !== undefined ? 'other' : types[i]!;
      const native: Native = { type, value: loaded[i]!.value, deadline: deadline ?? null };
      const faults = judgeKey(record, native, this.#now(), this.#resolve);
      if (record.state.set !== null && record.state.set.size > 0) {
        const same =
          winningPart(record.state) === 'set' && native.type === 'set' && faults.every(isAboutExpiry);
        faults.push(...(await this.#judgeMembers(record, same)));
      }
      found.set(key, { record, native, faults });
    }
    const after = await this.#store.load(keys.map((key) => ({ key })));
    return keys.filter((key, i) => {
      if (after[i]!.header !== loaded[i]!.header) return true;
      const reading = found.get(key);
      if (reading !== undefined) readings.set(key, reading);
      return false;
    });
  }

  /** Compares entries with the header and, with `natively`, the native members with the entries. */
  async #judgeMembers(record: KeyRecord, natively: boolean): Promise<Judgement[]> {
    const { key } = record;
    const faults: Judgement[] = [];
    let digest = 0;
    let [entries, absent, extra] = [0, 0, 0];
    let cursor = '0';
    do {
      const page = await this.#store.scanEntries(key, cursor, SET_PAGE);
      cursor = page.cursor;
      const members = [...page.entries.keys()];
      for (const [member, entry] of page.entries)
        digest = addDigests(digest, entryDigest(key, member, entry));
      entries += members.length;
      if (!natively || members.length === 0) continue;
      const there = await this.#store.contains(key, members);
      if (there !== WRONG_TYPE) absent += there.filter((has) => !has).length;
    } while (cursor !== '0');
    if (digest !== record.membersDigest)
      faults.push({
        kind: 'entries damaged',
        detail: `${entries} entries that are not those of its header, which counts ${record.state.set!.size}`,
      });
    if (!natively) return faults;
    do {
      const page = await this.#store.scanMembers(key, cursor, SET_PAGE);
      if (page === WRONG_TYPE) break;
      cursor = page.cursor;
      const [loaded] = await this.#store.load([{ key, elements: page.members }]);
      extra += page.members.filter((member) => !loaded!.entries.has(member)).length;
    } while (cursor !== '0');
    if (absent + extra > 0)
      faults.push({
        kind: 'members differ',
        detail: `${absent} natively missing, ${extra} natively too many`,
      });
    return faults;
  }

  /** Native keys that no header knows of, page by page. */
  async *unreplicated(): AsyncGenerator<Fault[]> {
    let cursor = '0';
    do {
      const page = await this.#store.scan(cursor, { count: 500 });
      cursor = page.cursor;
      let keys = page.keys;
      // A key that is written just now has a header before and after; one that is removed has none, and is not there.
      for (let look = 0; look < 2 && keys.length > 0; look += 1) {
        const loaded = await this.#store.load(keys.map((key) => ({ key })));
        keys = keys.filter((_, i) => loaded[i]!.header === null);
        if (look > 0 || keys.length === 0) continue;
        const deadlines = await this.#store.deadlines(keys);
        keys = keys.filter((_, i) => deadlines[i] !== undefined);
      }
      yield keys.map((key) => ({
        key,
        slot: keySlot(key),
        kind: 'unreplicated',
        detail: 'a native key that was written past the node, which has no header for it',
      }));
    } while (cursor !== '0');
  }
}

const isAboutExpiry = ({ kind }: Judgement): boolean => kind === 'expiry differs';

/** Null when there is no header, or none that can be read. */
function readRecord(key: ByteString, { header, value }: LoadedKey): KeyRecord | null {
  if (header === null) return null;
  try {
    return decodeRecord(
      key,
      { header, value, entries: new Map() },
      { value: false, whole: false, members: [] },
    );
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

/** Digest of one stored entry; of one that can't be read, a number that no entry has but by chance. */
export function entryDigest(key: ByteString, member: ByteString, entry: ByteString): number {
  try {
    return memberDigest(key, member, decodeEntry(entry));
  } catch (error) {
    if (error instanceof DecodeError) return UNREADABLE_DIGEST;
    throw error;
  }
}
