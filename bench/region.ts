/** A replica on a store, with nothing else of a node around it. */
import type { ByteString } from '../crdts/bytes.js';
import { Rules } from '../crdts/rules.js';
import { HybridClock } from '../crdts/stamp.js';
import { silentLogger } from '../src/options.js';
import { KeyRules } from '../src/replica/key-rules.js';
import type { Operation } from '../src/replica/operation.js';
import { Replica } from '../src/replica/replica.js';
import type { Store } from '../src/store/store.js';
import { systemTimers } from '../src/timers.js';

const bytes = (text: string) => text as ByteString;

/** A region's replica and its store. */
export class Region {
  constructor(
    readonly store: Store,
    readonly replica: Replica,
  ) {}

  static async open(id: string, store: Store): Promise<Region> {
    await store.open();
    const replica: Replica = new Replica(
      {
        replica: id,
        store,
        clock: new HybridClock(() => Date.now()),
        timers: systemTimers,
        logger: silentLogger,
        rules: new KeyRules(new Rules([]), id, silentLogger),
        maxValueBytes: 1 << 20,
        maxQueuedOperations: 100_000,
        maxQueuedBytes: 1 << 26,
        reportConflicts: false,
        events: {
          onFrame: () => {},
          onApplied: () => {},
          onChanges: () => {},
          onConflicts: () => {},
          onStale: async () => {},
          onUndone: () => {},
          onMergeFailed: (error) => {
            throw error;
          },
          onStoreLost: (error) => {
            throw error;
          },
          onStoreBack: async () => id,
        },
      },
      [],
    );
    return new Region(store, replica);
  }

  submit(operation: Operation<unknown>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.replica.submit(operation, {
        settled: (error) => (error === null ? resolve() : reject(error)),
      });
    });
  }

  set(key: string, value: string): Promise<void> {
    return this.submit({
      needs: [{ key: bytes(key) }],
      run: (tx) => tx.set(bytes(key), bytes(value), 'clear'),
    });
  }

  change(key: string, names: readonly string[], add: boolean): Promise<void> {
    const members = names.map(bytes);
    const run: Operation<unknown>['run'] = (tx) =>
      add ? tx.add(bytes(key), members) : tx.remove(bytes(key), members);
    return this.submit({ needs: [{ key: bytes(key), members }], run });
  }
}
