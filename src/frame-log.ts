/** Keeps this node's own frame log in the store bounded: the oldest frames go first, by bytes, and once every member has them. */
import type { ReplicaId } from '../crdts/dot.js';
import type { LoggedFrame, Store } from './store/store.js';

export class FrameLog {
  readonly #store: Store;
  readonly #maxBytes: number;
  readonly #frames: { readonly number: number; readonly bytes: number; readonly atMs: number }[] = [];
  #bytes = 0;

  /** @param maxBytes bound of the frames' bytes; the log is cut to three quarters of it when it is reached */
  constructor(store: Store, maxBytes: number) {
    this.#store = store;
    this.#maxBytes = maxBytes;
  }

  /** A frame was logged, at a Unix time in milliseconds. */
  add(frame: LoggedFrame, atMs: number): void {
    this.#frames.push({ number: frame.number, bytes: frame.bytes.length, atMs });
    this.#bytes += frame.bytes.length;
    if (this.#bytes <= this.#maxBytes) return;
    let count = 0;
    for (; this.#bytes > this.#maxBytes * 0.75 && count < this.#frames.length - 1; count += 1) {
      this.#bytes -= this.#frames[count]!.bytes;
    }
    this.#drop(frame.replica, count);
  }

  /**
   * All members have applied the frames up to a number: drops those of them that were logged before a time. The later ones serve
   * members whose stores lose their last moments.
   */
  everyoneHas(replica: ReplicaId, number: number, beforeMs: number): void {
    let count = 0;
    for (const frame of this.#frames) {
      if (frame.number > number || frame.atMs > beforeMs) break;
      this.#bytes -= frame.bytes;
      count += 1;
    }
    this.#drop(replica, count);
  }

  #drop(replica: ReplicaId, count: number): void {
    const through = this.#frames[count - 1]?.number;
    if (count > 0) this.#frames.splice(0, count);
    // A log that is longer for a while does no harm; the next trim goes further.
    if (through !== undefined) this.#store.trimLog(replica, through).catch(() => {});
  }

  /** A new epoch has its own log. */
  restart(): void {
    this.#frames.length = 0;
    this.#bytes = 0;
  }
}
