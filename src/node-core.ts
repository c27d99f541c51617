/** The node: a region's member of the mesh. Puts store, mesh, replica and sync together, and takes them apart again. */
import { HybridClock } from '../crdts/stamp.js';
import type { Engine, NodeStatus, PeerStatus } from './engine.js';
import { type LoadingError, StoppedError, StoreResetError, StoreUnavailableError } from './errors.js';
import { FrameLog } from './frame-log.js';
import { replicaHash } from './mesh/identity.js';
import { createLibp2pMesh } from './mesh/libp2p.js';
import type { Mesh } from './mesh/mesh.js';
import { type CheckedOptions, checkOptions } from './node-options.js';
import type { NodeOptions } from './options.js';
import type { Conflict } from './replica/conflicts.js';
import type { KeyChange } from './replica/key-change.js';
import { KeyRules } from './replica/key-rules.js';
import { Replica } from './replica/replica.js';
import { epochOf, identityIn, isIntact, newReplicaId, startReplicaId } from './replica-identity.js';
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
import { VERSION } from './version.js';

/** What the parts of a node tell its owner. */
export interface NodeListener {
  onChanges(changes: ReadonlyMap<string, KeyChange>, local: boolean): void;
  onConflict(conflict: Conflict): void;
  onPeer(peerId: string, connected: boolean, region: string): void;
}

/** How long stopping waits for what is under way. */
const STOP_MS = 5_000;
/** How long a start waits for the other members to agree that the last epoch can be continued. */
const AGREE_MS = 1_000;
/** Least time between two epochs that are begun because of what another member says: one that is broken must not make more and more of them. */
const OVERTAKEN_MS = 10_000;

export class NodeCore implements Engine {
  readonly #options: CheckedOptions;
  readonly #store: Store;
  readonly #mesh: Mesh;
  readonly #replica: Replica;
  readonly #sync: Sync;
  readonly #verify: NodeVerify;
  readonly #stopped = new AbortController();
  readonly #loading: Loading;
  readonly #log: FrameLog;
  readonly #clock: HybridClock;
  readonly #startedAtMs: number;
  #facts: StoreFacts;
  #state: NodeStatus['state'] = 'starting';
  #conflicts = 0;
  /** An epoch that must not be continued, whatever the store says. */
  #spent: string | null = null;
  #overtakenMs = Number.NEGATIVE_INFINITY;
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
      await node.#saveIdentity(replica, false);
      node.#loading.opened(facts.applied.length === 0);
      await mesh.start(node.#sync);
      node.#sync.start();
      if (replica === identityIn(facts, mesh.self)?.replica) await node.#continueEpoch(facts);
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
          onChanges: (changes, local) => {
            this.#sync.changed(changes);
            listener.onChanges(changes, local);
          },
          onStale: async () => {},
          onUndone: (keys) => this.#sync.undone(keys),
          onConflicts: (conflicts) => {
            this.#conflicts += conflicts.length;
            for (const conflict of conflicts) listener.onConflict(conflict);
          },
          onMergeFailed: () => this.#sync.restart(this.#replica.applied.values()),
          onStoreLost: (error) => {
            if (this.#state === 'ready') this.#state = 'store-unavailable';
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
      notes:
        facts.notes === null
          ? { born: epochOf(replica), floor: new Map(), members: [], forgotten: [] }
          : decodeNotes(facts.notes),
      loading: () => this.#loading.status !== null,
      predecessor: predecessorOf(facts, mesh.self),
      onEveryoneHas: (number) =>
        this.#log.everyoneHas(this.#replica.id, number, timers.now() - options.tombstoneGraceMs),
      onOutcast: (reason) => void this.#beginAnew(reason),
      recentFramesBytes: options.recentFramesBytes,
      heldBackBytes: options.heldBackBytes,
      onPeer: (peer, connected, region) => {
        logger.info({ peer, region }, connected ? 'peer connected' : 'peer disconnected');
        listener.onPeer(peer, connected, region);
        const member = this.#sync.members.get(peer);
        if (connected && member !== undefined) this.#loading.met(member);
      },
      onOvertaken: (peer, number) => this.#overtaken(peer, number),
      answerVerify: (from, body, signal) => this.#verify.answer(from, body, signal),
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

  submit: Engine['submit'] = (operation, settle) => {
    const refusal = this.#loading.refusal();
    if (refusal === null) this.#replica.submit(operation, settle);
    else queueMicrotask(() => settle(refusal, undefined, 0));
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
      ownRegion: this.#options.region,
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
    const now = this.now();
    const { counters } = this.#sync;
    const loading = this.#loading.status;
    return {
      version: VERSION,
      peerId: this.#mesh.self,
      region: this.#options.region,
      replica: this.#replica.id,
      state: this.#state === 'ready' && loading !== null ? 'loading' : this.#state,
      loading,
      addresses: this.#mesh.addresses(),
      startedAtMs: this.#startedAtMs,
      uptimeMs: now - this.#startedAtMs,
      store: this.#store.describe?.() ?? this.#facts.server,
      frames: {
        own: this.#replica.lastFrame,
        applied: counters.applied,
        heldBack: this.#sync.heldBack,
        skewed: this.#sync.skewed.length,
        repaired: counters.repaired,
        refused: counters.refused,
      },
      queue: this.#replica.queued,
      conflicts: this.#conflicts,
      clock: this.#sync.clock,
      forgetting: this.#sync.forgetting,
      peers: this.#sync.members.all().map(
        (member): PeerStatus => ({
          peerId: member.peerId,
          region: member.region,
          replica: member.replica,
          connected: member.connected,
          appliedNumber: member.applied.get(this.#replica.id) ?? 0,
          behindFrames: this.#sync.missing(member.replica),
          silentMs: member.heardAtMs === 0 ? null : Math.max(0, now - member.heardAtMs),
          clockOffsetMs: member.clock.ms,
          refused: member.refused,
        }),
      ),
    };
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
      await this.#saveIdentity(this.#replica.id, true).catch((error: Error) => {
        this.#options.logger.warn(
          { err: error },
          'could not mark a clean shutdown: the next start begins a new epoch',
        );
      });
    }
    await this.#store.close();
  }

  #saveIdentity(replica: string, clean: boolean): Promise<void> {
    return this.#store.saveIdentity({ peerId: this.#mesh.self, replica, born: this.#sync.born, clean });
  }

  /** Asks the store for a sign of life, so that a node with nothing to do notices too that it is gone, and says so. */
  #watchStore(): void {
    this.#watch = this.#options.timers.after(this.#options.heartbeatMs, async () => {
      if (this.#stopping !== null) return;
      if (this.#replica.available && !(await this.#store.ping()) && this.#stopping === null)
        this.#replica.storeFailed(new StoreUnavailableError('the store does not answer'));
      if (this.#stopping === null) this.#watchStore();
    });
  }

  /**
   * Goes on under the last epoch, if every other member that is known agrees; else begins a new one. Nothing is written before
   * that. Why: replica-identity.ts.
   */
  async #continueEpoch(facts: StoreFacts): Promise<void> {
    const { timers } = this.#options;
    const replica = this.#replica;
    const { id } = replica;
    const deadline = timers.now() + AGREE_MS;
    const pause = (): Promise<void> => new Promise((resolve) => timers.after(10, resolve));
    const silent = (): boolean => this.#sync.silentIdentities(facts.applied).length > 0;
    while (id !== this.#spent && silent() && timers.now() < deadline) await pause();
    if (id === replica.id && id !== this.#spent && silent())
      this.#beginEpoch('not every member has said that it has no more frames of the last epoch');
    while (this.#spent === id && replica.id === id) await pause();
  }

  /** A member has frames of this epoch that this node has lost. */
  #overtaken(peer: string, number: number): void {
    const now = this.#options.timers.now();
    const fields = { peer, replica: this.#replica.id, theirs: number, own: this.#replica.lastFrame };
    if (this.#spent === this.#replica.id) return;
    if (now - this.#overtakenMs < OVERTAKEN_MS) {
      this.#options.logger.error(
        fields,
        'a member claims again to have frames of this node that it has not made',
      );
      return;
    }
    this.#overtakenMs = now;
    this.#options.logger.error(
      fields,
      'a member has frames of this node that its store has not: it was rolled back',
    );
    this.#beginEpoch('another member has frames of this epoch that are lost here');
  }

  /** Makes no further frame under the running epoch. */
  #beginEpoch(reason: string): void {
    this.#spent = this.#replica.id;
    this.#replica.reopen(new StoreResetError(reason));
  }

  async #storeBack(facts: StoreFacts): Promise<string> {
    const { logger, timers } = this.#options;
    this.#facts = facts;
    let { id } = this.#replica;
    if (id === this.#spent || !isIntact(facts, this.#mesh.self, id, this.#replica.lastFrame)) {
      const lost = id;
      id = newReplicaId(this.#mesh.self, facts, timers.now(), lost);
      this.#sync.returned(facts.notes === null ? epochOf(id) : null);
      await this.#saveIdentity(id, false);
      this.#log.restart();
      logger.warn(
        { lost, replica: id },
        'the store came back without all that was committed: a new epoch begins',
      );
    }
    this.#loading.opened(facts.applied.length === 0);
    this.#sync.restart(facts.applied);
    this.#sync.recover();
    if (this.#state === 'store-unavailable') this.#state = 'ready';
    return id;
  }

  /** Drops this region's data, because it can't be merged with the others' any more. The node goes on as after a store that lost everything. */
  async #beginAnew(reason: string): Promise<void> {
    this.#options.logger.error(
      { reason, replica: this.#replica.id, frames: this.#replica.lastFrame },
      "this region's data is dropped, and fetched anew from the other regions",
    );
    try {
      await this.#store.clear('outdated');
    } catch (error) {
      this.#options.logger.error({ err: error as Error }, "this region's data could not be dropped yet");
      return this.#sync.outcastAgain();
    }
    this.#replica.reopen(new StoreResetError('this region begins anew'));
  }
}

/** Another identity than `self` whose data a store holds; null = none. */
function predecessorOf({ identities, applied }: StoreFacts, self: string): string | null {
  return applied.length === 0 ? null : (identities.find(({ peerId }) => peerId !== self)?.peerId ?? null);
}
