/**
 * Commit window: what a transfer has handed over to be merged and isn't committed yet. While it is, the next is received and decoded;
 * but not without end, since what waits is held in memory.
 */

/** Bytes, as they came, that may wait; what is longer waits alone. */
const MOST_BYTES = 1024 * 1024;

interface Waiting {
  readonly done: Promise<void>;
  readonly bytes: number;
}

export class CommitWindow {
  readonly #waiting: Waiting[] = [];
  #bytes = 0;

  /** Resolves when so many bytes more may wait. Rejects when something could not be committed. */
  async room(bytes: number): Promise<void> {
    while (this.#waiting.length > 0 && this.#bytes + bytes > MOST_BYTES) await this.#oldest();
  }

  add(done: Promise<void>, bytes: number): void {
    // It is told when its turn comes.
    done.catch(() => {});
    this.#waiting.push({ done, bytes });
    this.#bytes += bytes;
  }

  /** Resolves when nothing waits any more. Rejects when something could not be committed. */
  async empty(): Promise<void> {
    while (this.#waiting.length > 0) await this.#oldest();
  }

  async #oldest(): Promise<void> {
    const { done, bytes } = this.#waiting.shift()!;
    this.#bytes -= bytes;
    await done;
  }
}
