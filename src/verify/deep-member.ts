/**
 * A member's part in a deep verification: it checks its own store, tells what it finds and what its native strings are, and puts right
 * what it is asked to.
 *
 *     deep                        → 'slots', slot, content, … | 'fault', kind, key or nil, slot, detail | 'end', checked, inFlux, more
 *     content, slot, …            → key, stamp, replica, digest, …     native strings whose bytes stand nowhere else
 *     value, key, stamp, replica  → bytes or nil                       the native string of that write
 *     entries, key, digest        → element, entry, …                  those of a set, if they have this digest
 *     repair, kind, key or nil, slot, … → 'repaired' or why not, …
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests } from '../../crdts/digest.js';
import { isStamp } from '../../crdts/stamp.js';
import { DecodeError, LimitError } from '../errors.js';
import type { KeyRules } from '../replica/key-rules.js';
import type { Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import { DeepCheck, entryDigest } from './deep-check.js';
import { contentDigest, contentOf } from './judge.js';
import { KEY_PAGE, MAX_ENTRIES, MAX_FINDINGS, MAX_REPAIRS, MAX_SLOTS, SET_PAGE } from './limits.js';
import { Repair, type RepairOptions } from './repair.js';
import { bytesFrom, digestFrom, encode, slotFrom, textFrom, toBytes } from './wire.js';

export interface DeepMemberOptions extends Omit<RepairOptions, 'check'> {
  readonly store: Store;
  readonly rules: KeyRules;
  readonly timers: Timers;
}

/** Slots whose contents are told together. */
const SLOTS_PER_MESSAGE = 256;

export class DeepMember {
  readonly #store: Store;
  readonly #rules: KeyRules;
  readonly #check: DeepCheck;
  readonly #repair: Repair;
  #running = false;

  constructor(options: DeepMemberOptions) {
    const { store, rules, timers } = options;
    this.#store = store;
    this.#rules = rules;
    this.#check = new DeepCheck(store, rules.resolve, () => timers.now());
    this.#repair = new Repair({ ...options, check: this.#check });
  }

  /** Answers one question; undefined when it isn't one of these. */
  answer([op, ...rest]: readonly unknown[], signal: AbortSignal): AsyncIterable<Uint8Array> | undefined {
    switch (op) {
      case 'deep':
        return this.#once(() => this.#deep(signal));
      case 'content':
        return one(() => this.#content(rest.map(slotFrom)));
      case 'value':
        return one(() =>
          this.#value(bytesFrom(rest[0], 'key'), rest[1], textFrom(rest[2], 'replica id', 64)),
        );
      case 'entries':
        return one(() => this.#entries(bytesFrom(rest[0], 'key'), digestFrom(rest[1])));
      case 'repair':
        return this.#once(() => one(() => this.#repairAll(rest, signal)));
      default:
        return undefined;
    }
  }

  async *#once(run: () => AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    if (this.#running) throw new LimitError('it checks or repairs its store already');
    this.#running = true;
    try {
      yield* run();
    } finally {
      this.#running = false;
    }
  }

  async *#deep(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let [checked, inFlux, told, more] = [0, 0, 0, 0];
    let contents: number[] = [];
    const slots = [...(await this.#store.digests()).keys()].sort((a, b) => a - b);
    for (const slot of slots) {
      if (signal.aborted) return;
      const found = await this.#check.slot(slot);
      checked += found.checked;
      inFlux += found.inFlux;
      contents.push(slot, found.content);
      for (const { kind, key, detail } of found.faults) {
        if (told < MAX_FINDINGS)
          yield encode('fault', kind, key === null ? null : toBytes(key), slot, detail);
        else more += 1;
        told += 1;
      }
      if (contents.length < 2 * SLOTS_PER_MESSAGE) continue;
      yield encode('slots', ...contents);
      contents = [];
    }
    yield encode('slots', ...contents);
    for await (const faults of this.#check.unreplicated()) {
      if (signal.aborted) return;
      for (const { kind, key, slot, detail } of faults) {
        if (told < MAX_FINDINGS) yield encode('fault', kind, toBytes(key!), slot, detail);
        else more += 1;
        told += 1;
      }
      yield encode('slots');
    }
    yield encode('end', checked, inFlux, more);
  }

  async #content(slots: readonly number[]): Promise<Uint8Array> {
    if (slots.length > MAX_SLOTS) throw new DecodeError(`more than ${MAX_SLOTS} slots were asked for`);
    const out: unknown[] = [];
    for (const slot of slots) {
      const keys = [...(await this.#store.slotContent(slot)).headers.keys()];
      for (let from = 0; from < keys.length; from += KEY_PAGE) {
        for (const [key, reading] of await this.#check.read(keys.slice(from, from + KEY_PAGE))) {
          const held = reading && contentOf(reading.record, reading.native, this.#rules.resolve);
          if (held === null) continue;
          out.push(toBytes(key), held.written.stamp, held.written.replica, contentDigest(key, held));
        }
      }
    }
    return encode(...out);
  }

  async #value(key: ByteString, stamp: unknown, replica: string): Promise<Uint8Array> {
    if (!isStamp(stamp)) throw new DecodeError('a write has no stamp');
    const reading = (await this.#check.read([key])).get(key) ?? null;
    const held = reading && contentOf(reading.record, reading.native, this.#rules.resolve);
    const same = held !== null && held.written.stamp === stamp && held.written.replica === replica;
    return encode(same ? toBytes(held.value) : null);
  }

  async #entries(key: ByteString, digest: number): Promise<Uint8Array> {
    const found = new Map<ByteString, ByteString>();
    let cursor = '0';
    do {
      const page = await this.#store.scanEntries(key, cursor, SET_PAGE);
      cursor = page.cursor;
      for (const [member, entry] of page.entries) found.set(member, entry);
      if (found.size > MAX_ENTRIES) return encode();
    } while (cursor !== '0');
    let sum = 0;
    for (const [member, entry] of found) sum = addDigests(sum, entryDigest(key, member, entry));
    return sum === digest ? encode(...[...found].flat().map((part) => toBytes(part))) : encode();
  }

  async #repairAll(flat: readonly unknown[], signal: AbortSignal): Promise<Uint8Array> {
    if (flat.length > 3 * MAX_REPAIRS)
      throw new DecodeError(`more than ${MAX_REPAIRS} repairs were asked for`);
    const outcomes: string[] = [];
    for (let i = 0; i < flat.length; i += 3) {
      const kind = textFrom(flat[i], 'kind', 64);
      const key = flat[i + 1] === null ? null : bytesFrom(flat[i + 1], 'key');
      const slot = slotFrom(flat[i + 2]);
      if (signal.aborted) outcomes.push('it was given up');
      else outcomes.push(await this.#repair.run(kind, key, slot));
    }
    return encode(...outcomes);
  }
}

async function* one(answer: () => Promise<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield await answer();
}
