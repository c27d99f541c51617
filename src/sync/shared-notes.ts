/** The notes (notes.ts) as they stand in the store, where other nodes change them too: joins what this node adds with what is there. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { StoreRefusedError } from '../errors.js';
import type { Store } from '../store/store.js';
import { decodeNotes, encodeNotes, joinNotes, NO_NOTES, type Notes } from './notes.js';

export interface SharedNotesOptions {
  readonly store: Pick<Store, 'saveNotes'>;
  /** What this node knows of members now; the floor is kept here. */
  readonly own: () => Omit<Notes, 'floor'>;
  /** Another node has added something. */
  readonly onLearned: (notes: Notes) => void;
}

/** Other nodes may be faster so often in a row; each of them changes notes a few times in its life. */
const MOST_TRIES = 20;

export class SharedNotes {
  readonly #options: SharedNotesOptions;
  #stored: ByteString | null = null;
  #notes: Notes = NO_NOTES;
  #floor: ReadonlyMap<ReplicaId, number> = new Map();
  #saving: Promise<void> = Promise.resolve();

  constructor(options: SharedNotesOptions, stored: ByteString | null) {
    this.#options = options;
    this.reset(stored);
  }

  /** What all members had applied when something was last forgotten in the store. */
  get floor(): ReadonlyMap<ReplicaId, number> {
    return this.#floor;
  }

  /** Resolves when what was remembered last is stored. */
  get saved(): Promise<void> {
    return this.#saving;
  }

  /** Starts again from what stands in the store. */
  reset(stored: ByteString | null): void {
    this.#stored = stored;
    this.#notes = stored === null ? NO_NOTES : decodeNotes(stored);
    this.#floor = this.#notes.floor;
  }

  /** Takes in what stands in the store now. */
  learn(stored: ByteString | null): void {
    if (stored === this.#stored) return;
    const floor = this.#floor;
    this.reset(stored);
    this.#floor = joinNotes({ ...NO_NOTES, floor }, this.#notes).floor;
    this.#options.onLearned(this.#notes);
  }

  /** Raises the floor; resolves when that is stored. */
  raiseFloor(floor: ReadonlyMap<ReplicaId, number>): Promise<void> {
    this.#floor = joinNotes({ ...NO_NOTES, floor }, { ...NO_NOTES, floor: this.#floor }).floor;
    this.remember();
    return this.#saving;
  }

  /** Stores what isn't stored yet; {@link saved} tells when. Should it fail, the next call tries again. */
  remember(): void {
    if (this.#wanted() === this.#stored) return;
    this.#saving = this.#saving.catch(() => {}).then(() => this.#save());
    this.#saving.catch(() => {});
  }

  #wanted(): ByteString {
    return encodeNotes(joinNotes(this.#notes, { ...this.#options.own(), floor: this.#floor }));
  }

  async #save(): Promise<void> {
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      const wanted = this.#wanted();
      if (wanted === this.#stored) return;
      const stored = await this.#options.store.saveNotes(wanted, this.#stored);
      if (stored === wanted) {
        this.#stored = stored;
        this.#notes = decodeNotes(wanted);
        return;
      }
      this.learn(stored);
    }
    throw new StoreRefusedError('other nodes on the same store change its notes all the time');
  }
}
