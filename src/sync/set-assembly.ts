/**
 * Set assembly: puts a big set together again, of which a transfer brings pages.
 *
 * Invariant: the members and the context are merged in one commit. Merged page by page, the context would claim adds whose members are
 * yet to come, and when the transfer breaks off there, they would count as removed. So what is held in memory is what differs in one set.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyState } from '../../crdts/key-state.js';
import type { Dots } from '../../crdts/or-set.js';
import { covers } from '../../crdts/version-vector.js';
import { DecodeError } from '../errors.js';
import type { Store } from '../store/store.js';
import { fineBucket } from './member-buckets.js';
import { type BigSets, scanSet } from './set-scan.js';
import type { StateAnswer } from './state-answers.js';

type Begin = Extract<StateAnswer, { kind: 'begin' }>;

/** Times that one set may begin. */
const MOST_BEGINS = 8;
/** Bytes of members of one set: a store takes no longer commit. */
const MOST_BYTES = 512 * 1024 * 1024;

export class SetAssembly {
  readonly #store: Store;
  readonly #big: BigSets;
  #begun: Begin | null = null;
  #wanted: ReadonlySet<number> | null = null;
  #begins = 0;
  #entries = new Map<ByteString, Dots>();
  #bytes = 0;
  #came = 0;

  constructor(store: Store, big: BigSets) {
    this.#store = store;
    this.#big = big;
  }

  /** The key of the set that is under way. */
  get key(): ByteString | null {
    return this.#begun?.key ?? null;
  }

  /** About the bytes of the set that is under way, or came last. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Throws DecodeError when another set is under way, or this one begins again and again. */
  begin(begin: Begin): void {
    if (this.#begun !== null && this.#begun.key !== begin.key)
      throw new DecodeError('a set begins before another one is complete');
    this.#begins += 1;
    if (this.#begins > MOST_BEGINS) throw new DecodeError('a set begins again and again');
    this.#begun = begin;
    this.#wanted = begin.fine === null ? null : new Set(begin.fine);
    this.#entries = new Map();
    this.#bytes = 0;
    this.#came = 0;
  }

  /** Throws DecodeError when the members don't belong here, or are more than was announced. */
  add({ touched, entries }: Extract<StateAnswer, { kind: 'members' }>): void {
    if (this.#begun === null || touched !== this.#begun.state.touched)
      throw new DecodeError('members come of a set that has not begun');
    const { context } = this.#begun.state.set!;
    for (const [member, dots] of entries) {
      if (this.#wanted?.has(fineBucket(member)) === false)
        throw new DecodeError('a member comes that was not announced');
      if (dots.some((dot) => !covers(context, dot.replica, dot.stamp)))
        throw new DecodeError('a context does not cover a dot that comes with it');
      if (!this.#entries.has(member)) this.#bytes += member.length + 24;
      this.#entries.set(member, dots);
    }
    // A member may come twice, if the giver's store hashes its entries anew meanwhile.
    this.#came += entries.size;
    if (this.#entries.size > this.#begun.size || this.#came > 4 * this.#begun.size)
      throw new DecodeError('more members come than were announced');
    if (this.#bytes > MOST_BYTES) throw new DecodeError(`a set takes more than ${MOST_BYTES} bytes`);
  }

  /** What is to be merged, in one piece. */
  async end(): Promise<[ByteString, KeyState]> {
    if (this.#begun === null) throw new DecodeError('a set ends that has not begun');
    const { key, state } = this.#begun;
    const [entries, wanted] = [this.#entries, this.#wanted];
    const set = { context: state.set!.context, entries, whole: wanted === null, size: entries.size };
    if (wanted !== null) {
      // What is here in those buckets and was not named is not there; but an add that the context doesn't cover stays.
      for await (const page of scanSet(this.#store, key, this.#big)) {
        for (const [member] of page)
          if (wanted.has(fineBucket(member)) && !entries.has(member)) entries.set(member, []);
      }
    }
    this.#begun = null;
    this.#begins = 0;
    this.#entries = new Map();
    return [key, { ...state, set }];
  }
}
