/** Keeps this node's own frame log in the store bounded, by bytes: the oldest frames go first. */
import type { ReplicaId } from '../crdts/dot.js';
import type { Frame } from './replica/frame.js';
import type { Store } from './store/store.js';

export class FrameLog {
  readonly #store: Store;
  readonly #maxBytes: number;
  readonly #sizes: { number: number; bytes: number }[] = [];
  #bytes = 0;

  /** @param maxBytes bound of the frames' bytes; the log is cut to three quarters of it when it is reached */
  constructor(store: Store, maxBytes: number) {
    this.#store = store;
    this.#maxBytes = maxBytes;
  }

  /** A frame was logged. */
  add(frame: Frame): void {
    this.#sizes.push({ number: frame.number, bytes: frame.bytes.length });
    this.#bytes += frame.bytes.length;
    if (this.#bytes <= this.#maxBytes) return;
    let count = 0;
    for (; this.#bytes > this.#maxBytes * 0.75 && count < this.#sizes.length - 1; count += 1) {
      this.#bytes -= this.#sizes[count]!.bytes;
    }
    this.#drop(frame.replica, count);
  }

  /**
   * All members have applied the frames up to a number: drops them, as far as the log holds more than a quarter of its bound. What is
   * left serves those who lose their last moments.
   */
  everyoneHas(replica: ReplicaId, number: number): void {
    let count = 0;
    while (
      this.#bytes > this.#maxBytes / 4 &&
      (this.#sizes[count]?.number ?? Number.POSITIVE_INFINITY) <= number
    ) {
      this.#bytes -= this.#sizes[count]!.bytes;
      count += 1;
    }
    this.#drop(replica, count);
  }

  #drop(replica: ReplicaId, count: number): void {
    const through = this.#sizes[count - 1]?.number;
    this.#sizes.splice(0, count);
    // A log that is longer for a while does no harm; the next trim goes further.
    if (through !== undefined) this.#store.trimLog(replica, through).catch(() => {});
  }

  /** A new epoch has its own log. */
  restart(): void {
    this.#sizes.length = 0;
    this.#bytes = 0;
  }
}
