/** The node: a region's member of the mesh. Puts store, mesh, replica and sync together, and takes them apart again. */
import { HybridClock } from '../crdts/stamp.js';
import type { Engine, NodeStatus } from './engine.js';
import { Epochs } from './epochs.js';
import { type LoadingError, StoppedError, StoreResetError, StoreUnavailableError } from './errors.js';
import { FollowedChanges } from './followed-changes.js';
import { FrameLog } from './frame-log.js';
import { replicaHash } from './mesh/identity.js';
import { createLibp2pMesh } from './mesh/libp2p.js';
import type { Mesh } from './mesh/mesh.js';
import { type CheckedOptions, checkOptions } from './node-options.js';
import { nodeStatus } from './node-status.js';
import type { NodeOptions } from './options.js';
import type { Conflict } from './replica/conflicts.js';
import type { CachedKey } from './replica/key-cache.js';
import { KeyRules } from './replica/key-rules.js';
import { Replica } from './replica/replica.js';
import { epochOf, identityIn, startReplicaId } from './replica-identity.js';
import { openStore } from './store/open.js';
import type { Store, StoreFacts } from './store/store.js';
import { Loading } from './sync/loading.js';
import { decodeNotes } from './sync/notes.js';
import { totalDigest } from './sync/state-transfer.js';
import { Sync } from './sync/sync.js';
import { waitForRegions } from './sync/wait-for-regions.js';
import type { Cancel } from './timers.js';
import { NodeVerify } from './verify/node-verify.js';
import type { VerifyOptions, VerifyReport } from './verify/report.js';

/** What the parts of a node tell its owner. */
export interface NodeListener {
  /** Keys were changed: as they are now, and whether by this node's own operations. */
  onChanges(records: Iterable<CachedKey>, local: boolean): void;
  /** Says whether it wants to hear of changes. */
  wantsChanges(): boolean;
  onConflict(conflict: Conflict): void;
  onPeer(peerId: string, connected: boolean, region: string): void;
}

/** How long stopping waits for what is under way. */
const STOP_MS = 5_000;

export class NodeCore implements Engine {
  readonly #options: CheckedOptions;
  readonly #store: Store;
  readonly #mesh: Mesh;
  readonly #replica: Replica;
  readonly #sync: Sync;
  readonly #verify: NodeVerify;
  readonly #epochs: Epochs;
  readonly #stopped = new AbortController();
  readonly #loading: Loading;
  readonly #log: FrameLog;
  readonly #clock: HybridClock;
  readonly #startedAtMs: number;
  #facts: StoreFacts;
  #state: NodeStatus['state'] = 'starting';
  #conflicts = 0;
  #watch: Cancel = () => {};
  #stopping: Promise<void> | null = null;

  /** Starts a node. Rejects with ConfigError, StoreUnavailableError …; then nothing is left running. */
  static async start(given: NodeOptions, listener: NodeListener): Promise<NodeCore> {
    const options = checkOptions(given);
    const { timers, random, logger } = options;
    const mesh = options.mesh ?? createLibp2pMesh(options);
    const store =
      typeof options.store === 'object' && 'open' in options.store
        ? options.store
        : openStore(options.store, { timers, random, logger });
    try {
      const facts = await store.open();
      const replica = startReplicaId(mesh.self, facts, timers.now());
      // From here on a crash must be seen as one.
      const node = new NodeCore(options, listener, store, mesh, facts, replica);
      await node.#epochs.save(replica, false);
      node.#loading.opened(facts.applied.length === 0);
      await mesh.start(node.#sync);
      node.#sync.start();
      await node.#epochs.continueLast(facts);
      node.#watchStore();
      node.#state = 'ready';
      logger.info(
        { region: options.region, peerId: mesh.self, replica: node.#replica.id, addresses: mesh.addresses() },
        'node is up',
      );
      return node;
    } catch (error) {
      await mesh.stop().catch(() => {});
      await store.close().catch(() => {});
      throw error;
    }
  }

  private constructor(
    options: CheckedOptions,
    listener: NodeListener,
    store: Store,
    mesh: Mesh,
    facts: StoreFacts,
    replica: string,
  ) {
    const { timers, random, logger, maxValueBytes } = options;
    this.#options = options;
    this.#store = store;
    this.#mesh = mesh;
    this.#facts = facts;
    this.#startedAtMs = timers.now();
    this.#log = new FrameLog(store, options.maxLogBytes);
    const last = facts.applied.reduce((max, mark) => Math.max(max, mark.stamp), 0);
    this.#clock = new HybridClock(() => timers.now(), { maxDriftMs: options.maxDriftMs, last });
    const rules = new KeyRules(options.rules, options.region, logger);
    this.#replica = new Replica(
      {
        replica,
        store,
        clock: this.#clock,
        timers,
        logger,
        maxValueBytes,
        rules,
        maxQueuedOperations: options.maxQueuedOperations,
        maxQueuedBytes: options.maxQueuedBytes,
        reportConflicts: true,
        events: {
          onFrame: (frame) => {
            this.#log.add(frame, timers.now());
            this.#sync.publish(frame);
          },
          onApplied: (frames) => {
            this.#sync.applied(frames);
            this.#loading.check();
          },
          onChanges: (changed, local) => {
            this.#sync.changed(changed);
            if (listener.wantsChanges()) listener.onChanges(changed, local);
          },
          onStale: () => this.#sync.refresh(),
          onUndone: (keys) => this.#sync.undone(keys),
          onConflicts: (conflicts) => {
            this.#conflicts += conflicts.length;
            for (const conflict of conflicts) listener.onConflict(conflict);
          },
          onMergeFailed: () => this.#sync.restart(this.#replica.applied.values()),
          onStoreLost: (error) => {
            if (this.#state === 'ready') this.#state = 'store-unavailable';
            if (error instanceof StoreResetError) this.#epochs.lost();
            logger.error(
              { err: error },
              "this region's store is unavailable: operations are refused until it is back",
            );
          },
          onStoreBack: (back) => this.#storeBack(back),
        },
      },
      facts.applied,
    );
    const followed = new FollowedChanges({
      ...{ store, timers, logger },
      wanted: () => listener.wantsChanges(),
      onChanged: (records) => listener.onChanges(records, false),
    });
    this.#sync = new Sync({
      mesh,
      store,
      replica: this.#replica,
      clock: this.#clock,
      timers,
      random,
      logger,
      region: options.region,
      rules: options.rules.fingerprint,
      maxValueBytes,
      heartbeatMs: options.heartbeatMs,
      antiEntropyMs: options.antiEntropyMs,
      bigSetMembers: options.bigSetMembers,
      tombstoneGraceMs: options.tombstoneGraceMs,
      maxClockOffsetMs: options.maxClockOffsetMs,
      facts,
      born: bornOf(facts, mesh.self) ?? epochOf(replica),
      loading: () => this.#loading.status !== null,
      onEveryoneHas: (number) =>
        this.#log.everyoneHas(this.#replica.id, number, timers.now() - options.tombstoneGraceMs),
      onOutcast: (reason, drop) => void this.#epochs.beginAnew(reason, drop),
      onRegress: () => this.#epochs.regressed(),
      onFollowed: (keys) => {
        followed.note(keys);
        this.#loading.check();
      },
      showLife: () => this.#epochs.save(this.#replica.id, false),
      recentFramesBytes: options.recentFramesBytes,
      heldBackBytes: options.heldBackBytes,
      onPeer: (peer, connected, region) => {
        logger.info({ peer, region }, connected ? 'peer connected' : 'peer disconnected');
        listener.onPeer(peer, connected, region);
        const member = this.#sync.members.get(peer);
        if (connected && member !== undefined) this.#loading.met(member);
      },
      onOvertaken: (peer, number) => this.#epochs.overtaken(peer, number),
      answerVerify: (from, body, signal) => this.#verify.answer(from, body, signal),
    });
    this.#epochs = new Epochs({
      ...{ self: mesh.self, store, replica: this.#replica, sync: this.#sync, timers, logger },
      onBegun: () => this.#log.restart(),
    });
    this.#verify = new NodeVerify({
      mesh,
      store,
      replica: this.#replica,
      rules,
      timers,
      random,
      logger,
      region: options.region,
      maxValueBytes,
      stopped: this.#stopped.signal,
      members: () => this.#sync.members.all(),
      whenApplied: (...frame) => this.#sync.whenApplied(...frame),
      announce: () => this.#sync.announceProgress(),
      pull: (peer) => this.#sync.pull(peer, false),
    });
    this.#loading = new Loading({
      self: mesh.self,
      peers: options.peers ?? [],
      timers,
      logger,
      whileLoading: options.whileLoading,
      patienceMs: options.loadingPatienceMs,
      members: () => this.#sync.members.all(),
      present: () => this.#sync.members.present(),
      applied: () => this.#replica.applied,
      available: () => this.#replica.available,
      pull: (peer) => this.#sync.pull(peer, true),
      progress: () => this.#sync.transfer,
    });
  }

  get reads(): Store {
    return this.#store;
  }

  get maxValueBytes(): number {
    return this.#options.maxValueBytes;
  }

  get peerId(): string {
    return this.#mesh.self;
  }

  get region(): string {
    return this.#options.region;
  }

  addresses(): string[] {
    return this.#mesh.addresses();
  }

  now(): number {
    return this.#options.timers.now();
  }

  refusal(): LoadingError | null {
    return this.#loading.refusal();
  }

  /** Resolves when the node has caught up with the others once, if it has to; rejects with StoppedError. */
  whenReady(): Promise<void> {
    return this.#loading.whenReady();
  }

  submit: Engine['submit'] = (operation, waiter) => {
    const refusal = this.#loading.refusal();
    if (refusal === null) this.#replica.submit(operation, waiter);
    else queueMicrotask(() => waiter.settled(refusal, undefined, 0));
  };

  lastFrame(): number {
    return this.#replica.lastTicket;
  }

  /** The region of a replica, or undefined when it isn't known any more. */
  regionOf(replica: string): string | undefined {
    return replica.startsWith(`${replicaHash(this.#mesh.self)}.`)
      ? this.#options.region
      : this.#sync.members.regionOf(replica);
  }

  waitFor(regions: number, frameNumber: number, timeoutMs: number, signal?: AbortSignal): Promise<number> {
    if (this.#stopping !== null) return Promise.reject(new StoppedError());
    return waitForRegions({
      mesh: this.#mesh,
      members: this.#sync.members,
      timers: this.#options.timers,
      isOwnRegion: ({ peerId, region }) => region === this.#options.region || this.#sync.siblings.has(peerId),
      ...this.#replica.frameOf(frameNumber),
      regions,
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  forget(peerId: string): void {
    this.#sync.forget(peerId);
  }

  async digest(): Promise<{ digest: string; slots: number }> {
    const digests = await this.#store.digests();
    let slots = 0;
    for (const digest of digests.values()) if (digest !== 0) slots += 1;
    return { digest: totalDigest(digests).toString(16).padStart(12, '0'), slots };
  }

  verify(options?: VerifyOptions): Promise<VerifyReport> {
    if (this.#stopping !== null) return Promise.reject(new StoppedError());
    return this.#verify.verify(options);
  }

  status(): NodeStatus {
    return nodeStatus({
      peerId: this.#mesh.self,
      region: this.#options.region,
      replica: this.#replica,
      sync: this.#sync,
      state: this.#state,
      loading: this.#loading.status,
      addresses: this.#mesh.addresses(),
      startedAtMs: this.#startedAtMs,
      nowMs: this.now(),
      store: this.#store.describe?.() ?? this.#facts.server,
      conflicts: this.#conflicts,
    });
  }

  /** Commits what is queued, says goodbye and leaves the store marked as cleanly shut down. Idempotent. */
  stop(): Promise<void> {
    this.#stopping ??= this.#shutDown();
    return this.#stopping;
  }

  async #shutDown(): Promise<void> {
    this.#state = 'stopping';
    this.#watch();
    this.#stopped.abort();
    this.#loading.stop();
    const clean = await this.#replica.stop(STOP_MS);
    this.#sync.stop();
    await this.#mesh.stop();
    if (clean) {
      await this.#epochs.save(this.#replica.id, true).catch((error: Error) => {
        this.#options.logger.warn(
          { err: error },
          'could not mark a clean shutdown: the next start begins a new epoch',
        );
      });
    }
    await this.#store.close();
  }

  /** Asks the store for a sign of life, so that a node with nothing to do notices too that it is gone, and says so. */
  #watchStore(): void {
    this.#watch = this.#options.timers.after(this.#options.heartbeatMs, async () => {
      if (this.#stopping !== null) return;
      if (this.#replica.available && !(await this.#store.ping()) && this.#stopping === null) {
        // Should data be lost, that says so.
        const error: unknown = await this.#store.refresh().catch((reason: unknown) => reason);
        this.#replica.storeFailed(
          error instanceof StoreResetError ? error : new StoreUnavailableError('the store does not answer'),
        );
      }
      if (this.#stopping === null) this.#watchStore();
    });
  }

  async #storeBack(facts: StoreFacts): Promise<string> {
    this.#facts = facts;
    const id = await this.#epochs.returned(facts);
    this.#loading.opened(facts.applied.length === 0);
    if (this.#state === 'store-unavailable') this.#state = 'ready';
    return id;
  }
}

/** The epoch in which a node began to use the data of its store; null = it is new there. */
function bornOf(facts: StoreFacts, self: string): number | null {
  const identity = identityIn(facts, self);
  if (identity === undefined) return null;
  // An earlier release kept it in the notes.
  return identity.born ?? (facts.notes === null ? null : decodeNotes(facts.notes).born);
}
