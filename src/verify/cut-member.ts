/** A member's part in coming to a common cut: it holds, waits until it has applied exactly the cut, reads, tells, and lets go. */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, bodyDigest } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { explainKey } from '../../crdts/explain.js';
import { DecodeError, PeerError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import { decodeRecord } from '../replica/key-record.js';
import type { AppliedMark, Store } from '../store/store.js';
import type { Timers } from '../timers.js';
import { Hold, type Holdable } from './hold.js';
import {
  MAX_EXPLAINED_MEMBERS,
  MAX_HOLD_MS,
  MAX_KEY_BYTES,
  MAX_KEYS,
  MAX_LISTED_MEMBERS,
  MAX_SESSIONS,
  MAX_SLOTS,
  MAX_STATES,
  SESSION_MS,
} from './limits.js';
import { bytesFrom, encode, numbersFrom, numbersToWire, slotFrom, textFrom, toBytes } from './wire.js';

export interface CutMemberOptions {
  readonly store: Store;
  readonly replica: Holdable & {
    readonly applied: ReadonlyMap<ReplicaId, AppliedMark>;
    /** False while something is under way. */
    readonly settled: boolean;
    readonly available: boolean;
  };
  readonly timers: Timers;
  /** Waits until a frame is applied; gives the number that is, at the end. */
  readonly whenApplied: (
    replica: ReplicaId,
    number: number,
    timeoutMs: number,
    signal: AbortSignal,
  ) => Promise<number>;
  /** Tells the others now how far this member has come: a lost last frame is noticed by that. */
  readonly announce: () => void;
}

/** Stands for a header that can't be read: no key has this digest but by chance. */
export const UNREADABLE_DIGEST = 2 ** 48 - 1;

/** Digest of a key as its header says it. */
export function headerDigest(key: ByteString, header: ByteString): number {
  try {
    const record = decodeRecord(
      key,
      { header, value: null, entries: new Map() },
      { value: false, whole: false, members: [] },
    );
    return addDigests(bodyDigest(key, record.state), record.membersDigest);
  } catch (error) {
    if (error instanceof DecodeError) return UNREADABLE_DIGEST;
    throw error;
  }
}

export class CutMember {
  readonly #options: CutMemberOptions;
  readonly #hold: Hold;
  /** Digests at the cut, of verifications that may still ask for them: `owner token` → slot → digest. */
  readonly #sessions = new Map<string, ReadonlyMap<number, number>>();

  constructor(options: CutMemberOptions) {
    this.#options = options;
    this.#hold = new Hold(options.replica, options.timers);
  }

  /** Answers one question; undefined when it isn't one of these. Throws DecodeError, PeerError, or what the store throws. */
  async answer(
    from: PeerId,
    parts: readonly unknown[],
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined> {
    const [op, ...rest] = parts;
    switch (op) {
      case 'look':
        return this.#look();
      case 'hold':
        return this.#take(from, token(rest[0]), rest[1]);
      case 'cut':
        return this.#cut(from, token(rest[0]), numbersFrom(rest.slice(1)), signal);
      case 'slots': {
        const digests = this.#sessions.get(`${from} ${token(rest[0])}`);
        if (digests === undefined) throw new PeerError('these digests are not kept any more');
        return encode(...[...digests].filter(([, digest]) => digest !== 0).flat());
      }
      case 'keys':
        this.#requireHold(from, token(rest[0]));
        return this.#keys(rest.slice(1).map(slotFrom));
      case 'states':
        this.#requireHold(from, token(rest[0]));
        return this.#states(rest.slice(1).map((key) => bytesFrom(key, 'key')));
      case 'release': {
        const { throughout, heldMs } = this.#hold.release(from, token(rest[0]));
        return encode(Number(throughout), Math.ceil(heldMs));
      }
      default:
        return undefined;
    }
  }

  stop(): void {
    this.#hold.stop();
  }

  #numbers(): Map<ReplicaId, number> {
    return new Map([...this.#options.replica.applied].map(([replica, { number }]) => [replica, number]));
  }

  async #look(): Promise<Uint8Array> {
    const { replica, store } = this.#options;
    const before = this.#numbers();
    const settled = replica.settled;
    const digests = await store.digests();
    const keys = await store.count();
    const stable = settled && replica.settled && sameNumbers(before, this.#numbers());
    return encode(Number(stable), totalOf(digests), keys, numbersToWire(before));
  }

  async #take(from: PeerId, name: string, ms: unknown): Promise<Uint8Array> {
    const { replica, announce } = this.#options;
    if (typeof ms !== 'number' || !(ms > 0)) throw new DecodeError('a hold has no length');
    if (!replica.available) throw new PeerError('its store is unavailable');
    const answer = await this.#hold.take(from, name, ms);
    if (!answer.granted) return encode(0, answer.reason, Math.ceil(answer.waitMs));
    announce();
    return encode(1, numbersToWire(this.#numbers()));
  }

  async #cut(
    from: PeerId,
    name: string,
    cut: Map<ReplicaId, number>,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { store, whenApplied } = this.#options;
    if (!this.#hold.inForce(from, name)) return encode('late');
    const reached = await Promise.all(
      [...cut].map(async ([replica, number]) => {
        if ((this.#numbers().get(replica) ?? 0) >= number) return null;
        return (await whenApplied(replica, number, MAX_HOLD_MS, signal)) >= number ? null : replica;
      }),
    );
    const late = reached.filter((replica) => replica !== null);
    if (late.length > 0) return encode('late', ...late);
    if (!sameNumbers(cut, this.#numbers())) return encode('past', numbersToWire(this.#numbers()));
    const digests = await store.digests();
    const keys = await store.count();
    if (!this.#hold.inForce(from, name)) return encode('late');
    if (!sameNumbers(cut, this.#numbers())) return encode('past', numbersToWire(this.#numbers()));
    this.#keep(`${from} ${name}`, digests);
    return encode('at', totalOf(digests), keys);
  }

  #keep(session: string, digests: ReadonlyMap<number, number>): void {
    this.#sessions.delete(session);
    this.#sessions.set(session, digests);
    for (const oldest of this.#sessions.keys()) {
      if (this.#sessions.size <= MAX_SESSIONS) break;
      this.#sessions.delete(oldest);
    }
    this.#options.timers.after(SESSION_MS, () => {
      if (this.#sessions.get(session) === digests) this.#sessions.delete(session);
    });
  }

  #requireHold(from: PeerId, name: string): void {
    if (!this.#hold.inForce(from, name))
      throw new PeerError(`its hold is over: it lasts ${MAX_HOLD_MS} ms at most`);
  }

  async #keys(slots: readonly number[]): Promise<Uint8Array> {
    if (slots.length > MAX_SLOTS) throw new DecodeError(`more than ${MAX_SLOTS} slots were asked for`);
    const found: unknown[] = [];
    let bytes = 0;
    for (const slot of slots) {
      const { headers } = await this.#options.store.slotContent(slot);
      // In one order everywhere: were there too many, the same ones would be left out.
      for (const [key, header] of [...headers].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const digest = headerDigest(key, header);
        if (digest === 0) continue;
        if (found.length >= 2 * MAX_KEYS || bytes > MAX_KEY_BYTES) return encode(1, ...found);
        bytes += key.length;
        found.push(toBytes(key), digest);
      }
    }
    return encode(0, ...found);
  }

  async #states(keys: readonly ByteString[]): Promise<Uint8Array> {
    if (keys.length > MAX_STATES) throw new DecodeError(`more than ${MAX_STATES} states were asked for`);
    const { store, timers } = this.#options;
    const states: (string | null)[] = [];
    for (const key of keys) states.push(await readExplanation(store, key, timers.now()));
    return encode(...states);
  }
}

/** Explains a key as a store holds it, as JSON; null when there is no header, or none that can be read. */
async function readExplanation(store: Store, key: ByteString, nowMs: number): Promise<string | null> {
  try {
    const [slim] = await store.load([{ key, value: true }]);
    let record = decodeRecord(key, slim!, { value: true, whole: false, members: [] });
    if (record.header === null) return null;
    const size = record.state.set?.size ?? 0;
    if (size > 0 && size <= MAX_EXPLAINED_MEMBERS) {
      const [full] = await store.load([{ key, value: true, elements: 'all' }]);
      record = decodeRecord(key, full!, { value: true, whole: true, members: [] });
    }
    return JSON.stringify(explainKey(record.state, nowMs, { limit: MAX_LISTED_MEMBERS }));
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

function token(wire: unknown): string {
  return textFrom(wire, 'token', 32);
}

/** Says whether two vectors are the same. */
export function sameNumbers(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean {
  if (a.size !== b.size) return false;
  for (const [replica, number] of a) if (b.get(replica) !== number) return false;
  return true;
}

function totalOf(digests: ReadonlyMap<number, number>): number {
  let total = 0;
  for (const digest of digests.values()) total = addDigests(total, digest);
  return total;
}
