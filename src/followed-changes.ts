/** Followed changes: tells of keys that another node on the same store has changed (sync/siblings.ts). What they are now is read there. */
import type { ByteString } from '../crdts/bytes.js';
import type { Logger } from './options.js';
import { type KeyRecord, readHeader } from './replica/key-record.js';
import type { Store } from './store/store.js';
import type { Timers } from './timers.js';

export interface FollowedChangesOptions {
  readonly store: Pick<Store, 'load'>;
  readonly timers: Timers;
  readonly logger: Logger;
  /** Says whether anyone listens. */
  readonly wanted: () => boolean;
  readonly onChanged: (records: readonly KeyRecord[]) => void;
}

/** Changes that come within such a time are told together. */
const TOGETHER_MS = 5;
/** Keys that may wait to be told of; more than that are not told. */
const MAX_KEYS = 100_000;
const KEYS_PER_LOAD = 1_000;

export class FollowedChanges {
  readonly #options: FollowedChangesOptions;
  readonly #keys = new Set<ByteString>();
  #planned = false;

  constructor(options: FollowedChangesOptions) {
    this.#options = options;
  }

  /** Another node has changed these keys. */
  note(keys: Iterable<ByteString>): void {
    const { wanted, timers } = this.#options;
    if (!wanted()) return;
    for (const key of keys) if (this.#keys.size < MAX_KEYS) this.#keys.add(key);
    if (this.#planned || this.#keys.size === 0) return;
    this.#planned = true;
    timers.after(TOGETHER_MS, () => {
      this.#planned = false;
      void this.#tell();
    });
  }

  async #tell(): Promise<void> {
    const { store, logger, onChanged } = this.#options;
    const keys = [...this.#keys];
    this.#keys.clear();
    try {
      for (let start = 0; start < keys.length; start += KEYS_PER_LOAD) {
        const some = keys.slice(start, start + KEYS_PER_LOAD);
        const loaded = await store.load(some.map((key) => ({ key })));
        const found = some.map((key, i) => ({ key, header: loaded[i]!.header }));
        onChanged(found.flatMap(({ key, header }) => (header === null ? [] : [readHeader(key, header)])));
      }
    } catch (error) {
      logger.debug({ err: error as Error }, 'changes that another node has made could not be told');
    }
  }
}
