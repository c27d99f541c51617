/** One replica on a store that fails as it is told, on virtual time, with everything that it tells its node written down. */
import { type ByteString, utf8 } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { Integer } from '../../crdts/integer.js';
import { type RuleOptions, Rules } from '../../crdts/rules.js';
import { HybridClock } from '../../crdts/stamp.js';
import { silentLogger } from '../../src/options.js';
import type { Conflict } from '../../src/replica/conflicts.js';
import { decodeFrame, type Frame } from '../../src/replica/frame.js';
import { KeyRules } from '../../src/replica/key-rules.js';
import type { Operation, Transaction } from '../../src/replica/operation.js';
import { Replica } from '../../src/replica/replica.js';
import type { ReplicaOptions } from '../../src/replica/replica-options.js';
import type { MemoryStoreOptions } from '../../src/store/memory.js';
import type { StoreFacts } from '../../src/store/store.js';
import { VirtualTimers } from '../../src/virtual-timers.js';
import { GatedStore } from './gated-store.js';

/** How an operation ended. */
export interface Outcome {
  readonly error: (Error & { code?: string }) | null;
  readonly value: unknown;
  readonly frame: number;
}

export interface ReplicaWorld {
  readonly replica: Replica;
  readonly store: GatedStore;
  readonly timers: VirtualTimers;
  readonly clock: HybridClock;
  readonly frames: Frame[];
  readonly conflicts: Conflict[];
  /** What was told, in order: 'frame 1', 'applied 2', 'lost CODE', 'back', 'merge failed'. */
  readonly log: string[];
  /** Names of the operations in the order in which their outcome was told. */
  readonly told: string[];
  /** Submits an operation; gives its outcome. */
  submit(operation: Operation<unknown>, name?: string): Promise<Outcome>;
  /** Runs promise chains to rest, without moving the clock. */
  settle(): Promise<void>;
}

/** Opens a world with one replica. `nextReplica` is what it goes on as when the store lost data. */
export async function replicaWorld(
  options: Partial<ReplicaOptions> & {
    readonly id?: ReplicaId;
    readonly storeOptions?: MemoryStoreOptions;
    readonly ruleOptions?: readonly RuleOptions[];
    readonly onStoreBack?: (facts: StoreFacts) => Promise<ReplicaId>;
  } = {},
): Promise<ReplicaWorld> {
  const timers = new VirtualTimers();
  const store = new GatedStore({ timers, ...options.storeOptions });
  const facts = await timers.runToEnd(store.open());
  const clock = new HybridClock(() => timers.now());
  const [frames, conflicts, log, told]: [Frame[], Conflict[], string[], string[]] = [[], [], [], []];
  const id = options.id ?? 'me.1';
  const replica: Replica = new Replica(
    {
      replica: id,
      store,
      clock,
      timers,
      logger: silentLogger,
      rules: new KeyRules(new Rules(options.ruleOptions), 'here', silentLogger),
      maxValueBytes: 1 << 20,
      maxQueuedOperations: 10_000,
      maxQueuedBytes: 1 << 20,
      reportConflicts: true,
      ...options,
      events: {
        onFrame(frame) {
          frames.push(decodeFrame(frame.bytes, 1 << 20));
          log.push(`frame ${frame.number}`);
        },
        onApplied: (count) => log.push(`applied ${count}`),
        onChanges: () => {},
        onConflicts: (list) => conflicts.push(...list),
        async onStale() {
          const before = new Map(replica.applied);
          replica.learn((await store.refresh()).applied, before);
        },
        onUndone: () => {},
        onMergeFailed: () => log.push('merge failed'),
        onStoreLost: (error) => log.push(`lost ${(error as { code?: string }).code}`),
        async onStoreBack(back) {
          log.push('back');
          return options.onStoreBack?.(back) ?? id;
        },
      },
    },
    facts.applied,
  );
  return {
    replica,
    store,
    timers,
    clock,
    frames,
    conflicts,
    log,
    told,
    submit: (operation, name = '') =>
      new Promise((resolve) => {
        replica.submit(operation, {
          settled(error, value, frame) {
            told.push(name);
            resolve({ error, value, frame });
          },
        });
      }),
    settle: () => timers.settle(),
  };
}

/** An operation on one key. */
export function on<T>(
  name: string,
  run: (tx: Transaction, key: ByteString) => T,
  members?: readonly string[],
): Operation<T> {
  const key = utf8(name);
  const need = { key, value: true, ...(members === undefined ? {} : { members: members.map(utf8) }) };
  return { needs: [need], bytes: name.length, run: (tx) => run(tx, key) };
}

export const set = (name: string, value: string) => on(name, (tx, key) => tx.set(key, utf8(value), 'clear'));
export const get = (name: string) => on(name, (tx, key) => tx.get(key));
export const increment = (name: string, by: Integer = 1) => on(name, (tx, key) => tx.increment(key, by));
export const add = (name: string, ...members: string[]) =>
  on(name, (tx, key) => tx.add(key, members.map(utf8)), members);
export const remove = (name: string, ...members: string[]) =>
  on(name, (tx, key) => tx.remove(key, members.map(utf8)), members);
