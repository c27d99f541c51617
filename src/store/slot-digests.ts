/**
 * The digests of slots as this store knows them, so that a commit can bring the new ones along: reading, adding and formatting
 * each in the script was half of what a commit cost Valkey.
 *
 * What is known holds only while nobody else commits. Whose *turn* it is stands in the hash of facts: a number that goes up whenever
 * a commit comes from another writer than the one before. A commit names the turn that its digests rest on. The script uses
 * them if it is still that turn; else it adds up by itself, and tells the turn. The same where a slot's digest isn't known: then its
 * answer tells it.
 *
 * The same turn stands for headers: what was loaded or committed since it is known (an *era*, Store.era) is still there while it lasts, so such headers are
 * neither sent nor compared. If the turn has passed, the commit fails as stale.
 *
 * Digests are added up as commits are sent, each on top of those before it. If one doesn't take effect, the number of the next one shows it
 * (it doesn't follow the last one that was sent), and everything is forgotten.
 */

import { addDigests } from '../../crdts/digest.js';
import type { CommitSender } from './commit-frame.js';
import type { KnownKeys } from './known-keys.js';
import { SLOTS } from './slots.js';

/** What must be known of a commit to learn from its answer. */
export interface Asked {
  readonly era: number;
  readonly seq: number;
  /** The slots that were sent without a digest, in order. */
  readonly slots: readonly number[];
}

/** A digest that was asked for: the answer to commit `seq` tells it as it was then. */
interface Awaited {
  readonly seq: number;
  /** What commits that were sent since then have added. */
  added: number;
}

/** What a commit is written with. */
export interface CommitDigests {
  /** See {@link SlotDigests.era}; NaN = there are none. */
  readonly era: number;
  begin(sender: CommitSender): string;
  next(slot: number, digest: number, removes: boolean): number | null;
}

export class SlotDigests implements CommitDigests {
  readonly #keys: KnownKeys;
  /** NaN = not known. */
  readonly #known = new Float64Array(SLOTS).fill(Number.NaN);
  readonly #awaited = new Map<number, Awaited>();
  #asked: number[] = [];
  #era = 0;
  #turn = '';
  #session = 0;
  #seq = 0;

  /** @param known is told when all that was known is in doubt */
  constructor(known: KnownKeys) {
    this.#keys = known;
  }

  /** Counts the times in which nobody else has committed, as far as is known: what holds in one may not hold in the next. */
  get era(): number {
    return this.#era;
  }

  /** Begins a commit; gives the turn to name. */
  begin({ session, seq }: CommitSender): string {
    if (session !== this.#session || seq !== this.#seq + 1) this.#forgetAll();
    this.#session = session;
    this.#seq = seq;
    this.#asked = [];
    return this.#turn;
  }

  /** The digest of a slot after the commit that was begun, which adds `digest` to it; null = not known. `removes`: a header goes, and so perhaps the slot. */
  next(slot: number, digest: number, removes: boolean): number | null {
    const known = this.#known[slot]!;
    if (!removes && known >= 0) {
      const next = addDigests(known, digest);
      this.#known[slot] = next;
      return next;
    }
    this.#asked.push(slot);
    if (removes) {
      this.forget(slot);
      return null;
    }
    const awaited = this.#awaited.get(slot);
    if (awaited === undefined) this.#awaited.set(slot, { seq: this.#seq, added: 0 });
    else awaited.added = addDigests(awaited.added, digest);
    return null;
  }

  /** Ends the commit that was begun. */
  end(): Asked {
    return { era: this.#era, seq: this.#seq, slots: this.#asked };
  }

  /** Learns from the answer to a commit: `DONE`, the turn, and the digests of the slots that were asked for if it was the turn that the commit named. */
  learn(asked: Asked, answer: string): void {
    const [, turn = '', ...digests] = answer.split(' ');
    if (turn === '' || asked.era !== this.#era) return;
    if (turn !== this.#turn) {
      this.#forgetAll();
      this.#turn = turn;
      return;
    }
    for (const [i, digest] of digests.entries()) {
      const slot = asked.slots[i]!;
      const awaited = this.#awaited.get(slot);
      if (awaited?.seq !== asked.seq) continue;
      this.#awaited.delete(slot);
      this.#known[slot] = addDigests(Number(digest), awaited.added);
    }
  }

  /** Forgets a slot: someone looks at what is stored, perhaps to mend it. */
  forget(slot: number): void {
    this.#known[slot] = Number.NaN;
    this.#awaited.delete(slot);
  }

  #forgetAll(): void {
    this.#era += 1;
    this.#keys.forget();
    this.#known.fill(Number.NaN);
    this.#awaited.clear();
  }
}
