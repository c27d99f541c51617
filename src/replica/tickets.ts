/**
 * Tickets: frame numbers that go on counting when a new epoch begins at 1 again, so that who was told one before can still
 * wait for it (WAIT, waitFor).
 */
import type { ReplicaId } from '../../crdts/dot.js';

/** A former epoch of this process: its frames had these tickets. */
interface FormerEpoch {
  readonly replica: ReplicaId;
  /** Ticket of the frame before its first. */
  readonly base: number;
  /** Ticket of its last frame. */
  readonly last: number;
}

/** Translates between the frames of this process's epochs and tickets. */
export class Tickets {
  readonly #former: FormerEpoch[] = [];

  get #base(): number {
    return this.#former.at(-1)?.last ?? 0;
  }

  /** The ticket of a frame of the current epoch. */
  of(number: number): number {
    return this.#base + number;
  }

  /** The frame that a ticket stands for; `current` is the id of the current epoch. */
  frameOf(ticket: number, current: ReplicaId): { readonly replica: ReplicaId; readonly number: number } {
    const former = this.#former.find((epoch) => ticket <= epoch.last);
    if (former !== undefined) return { replica: former.replica, number: ticket - former.base };
    return { replica: current, number: ticket - this.#base };
  }

  /** An epoch has ended with this frame; the next one begins at 1. */
  end(replica: ReplicaId, lastNumber: number): void {
    this.#former.push({ replica, base: this.#base, last: this.of(lastNumber) });
  }
}
