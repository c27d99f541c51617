/**
 * Log replay: a store whose one part lost its end may have frames in the logs of its other parts that it doesn't say it has applied
 * (StoreFacts.unapplied). They may be nowhere else, so they are merged once more, as frames that come from others: in causal order, held
 * back behind what is missing, and offered to whoever misses them. Merging again what a part has already does no harm.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import type { Logger } from '../options.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import type { AppliedMark, Store, StoreFacts } from '../store/store.js';

export interface LogReplayOptions {
  readonly store: Pick<Store, 'readFrames'>;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  /** How far each replica's frames are delivered. */
  readonly delivered: () => ReadonlyMap<ReplicaId, AppliedMark>;
  /** Takes a frame in; says whether there was room for it. */
  readonly take: (frame: Frame) => boolean;
  /** A batch has been taken in. */
  readonly onRead: () => void;
}

/** Bytes of frames read at once. */
const CHUNK_BYTES = 256 * 1024;

export class LogReplay {
  readonly #options: LogReplayOptions;
  /** Replica → the frame to go on with. */
  #left = new Map<ReplicaId, number>();
  #reading = false;

  constructor(options: LogReplayOptions) {
    this.#options = options;
  }

  /** The store was opened, and says this. */
  begin({ unapplied = [] }: Pick<StoreFacts, 'unapplied'>): void {
    this.#left = new Map(unapplied.map((replica) => [replica, 1]));
  }

  /** Goes on, as far as there is room. What fails is tried again with the next call. */
  look(): void {
    if (this.#reading || this.#left.size === 0) return;
    this.#reading = true;
    const left = this.#left;
    const reading = [...left.keys()].map((replica) => this.#read(replica, left));
    void Promise.allSettled(reading).then(() => {
      this.#reading = false;
    });
  }

  async #read(replica: ReplicaId, left: Map<ReplicaId, number>): Promise<void> {
    const { store, logger, maxValueBytes, delivered, take, onRead } = this.#options;
    for (let taken = 0; ; ) {
      const from = Math.max(left.get(replica)!, (delivered().get(replica)?.number ?? 0) + 1);
      const frames = await store.readFrames(replica, from, CHUNK_BYTES);
      // Opened again meanwhile, it says anew what is left.
      if (left !== this.#left) return;
      for (const { number, bytes } of frames) {
        if (!take(decodeFrame(bytes, maxValueBytes))) {
          left.set(replica, number);
          onRead();
          return;
        }
        taken += 1;
      }
      onRead();
      if (frames.length > 0) {
        left.set(replica, frames.at(-1)!.number + 1);
        continue;
      }
      left.delete(replica);
      if (taken > 0)
        logger.warn(
          { replica, frames: taken },
          'frames that a part of the store lost are merged from its logs',
        );
      return;
    }
  }
}
