/**
 * Sync: gets every member's frames here, and this one's there. Three layers: frames are pushed as they are committed; holes
 * are repaired from whoever has the frames; and what no frames can bring is transferred as state.
 *
 * This file connects the mesh to the replica. What to ask of whom, and when, is decided in gap-repair.ts; what is applied
 * in which order, in replica/causal-delivery.ts.
 */
import { setMaxListeners } from 'node:events';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock } from '../../crdts/stamp.js';
import { DecodeError, type MeshError, PeerError } from '../errors.js';
import { replicaHash } from '../mesh/identity.js';
import type { Mesh, MeshHandlers, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import { CausalDelivery } from '../replica/causal-delivery.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import { RecentFrames } from '../replica/recent-frames.js';
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, Store } from '../store/store.js';
import type { Cancel, Timers } from '../timers.js';
import { AppliedWaiters } from './applied-waiters.js';
import { serveFrames } from './frame-server.js';
import { GapRepair } from './gap-repair.js';
import { type Member, Members } from './members.js';
import {
  decodeAppliedRequest,
  decodeFramesRequest,
  decodeHeartbeat,
  encodeFramesRequest,
  encodeHeartbeat,
  type Heartbeat,
  isHeartbeat,
  PROTOCOL_VERSION,
  PROTOCOLS,
} from './messages.js';
import { toPieces } from './pieces.js';
import { MAX_QUEUED_MERGES, Repairs } from './repairs.js';
import { type TransferProgress, Transfers } from './transfers.js';

export interface SyncOptions {
  readonly mesh: Mesh;
  readonly store: Store;
  readonly replica: Replica;
  readonly clock: HybridClock;
  readonly timers: Timers;
  readonly random: () => number;
  readonly logger: Logger;
  readonly region: string;
  /** Fingerprint of this node's rules. */
  readonly rules: string;
  readonly maxValueBytes: number;
  readonly heartbeatMs: number;
  readonly recentFramesBytes: number;
  readonly heldBackBytes: number;
  /** Time between comparisons of all digests with a random member. */
  readonly antiEntropyMs: number;
  readonly onPeer: (peer: PeerId, connected: boolean, region: string) => void;
  /** Answers a question of a verification. Default: refuses. */
  readonly answerVerify?: (from: PeerId, body: Uint8Array, signal: AbortSignal) => AsyncIterable<Uint8Array>;
}

/** Bytes of frames that one merge takes. */
const MERGE_BYTES = 256 * 1024;

export class Sync implements MeshHandlers {
  readonly #options: SyncOptions;
  readonly #delivery: CausalDelivery;
  readonly #recent: RecentFrames;
  readonly #repairs: Repairs;
  readonly #transfers: Transfers;
  readonly #waiters: AppliedWaiters;
  readonly members = new Members();
  readonly #stopped = new AbortController();
  readonly #warned = new Set<string>();
  /** Members that {@link SyncOptions.onPeer} was told of. */
  readonly #announced = new Set<PeerId>();
  #heartbeat: Cancel = () => {};
  #applied = 0;
  #refused = 0;

  constructor(options: SyncOptions) {
    this.#options = options;
    this.#delivery = new CausalDelivery(options.heldBackBytes, (stamp) => options.clock.isAhead(stamp));
    this.#recent = new RecentFrames(options.recentFramesBytes);
    // Every request under way listens.
    setMaxListeners(0, this.#stopped.signal);
    this.#waiters = new AppliedWaiters(options.timers, () => options.replica.applied);
    const shared = {
      ...options,
      stopped: this.#stopped.signal,
      present: () => this.members.present(),
      onRefused: (peer: PeerId, error: DecodeError) => this.#refuseMessage(peer, error),
    };
    this.#transfers = new Transfers({
      ...shared,
      onMarks: (marks) => {
        this.#delivery.raise(marks);
        this.#drain();
      },
    });
    this.#repairs = new Repairs({
      ...shared,
      delivery: this.#delivery,
      take: (frame) => this.#take(frame, null),
      pull: (peer) => this.#transfers.pull(peer),
    });
    this.restart(options.replica.applied.values());
  }

  /** What has happened since the start. */
  get counters(): { readonly applied: number; readonly repaired: number; readonly refused: number } {
    return { applied: this.#applied, repaired: this.#repairs.repaired, refused: this.#refused };
  }

  /** The state transfer that is under way; null = none. */
  get transfer(): TransferProgress | null {
    return this.#transfers.progress;
  }

  /** Pulls a member's state, unless a transfer is under way or one has just failed. Never rejects. */
  pull(peer: PeerId): Promise<void> {
    return this.#transfers.pull(peer);
  }

  /** Frames that wait for their predecessors. */
  get heldBack(): number {
    return this.#delivery.heldCount;
  }

  /** Replicas whose frames come from too far in the future. */
  get skewed(): ReplicaId[] {
    return this.#delivery.skewed();
  }

  /** Frames known of a replica that aren't delivered here yet. */
  missing(replica: ReplicaId): number {
    return GapRepair.missing(replica, this.#delivery.marks, this.members.all());
  }

  /** Starts the heartbeat; the mesh must be up. */
  start(): void {
    this.#tick();
  }

  stop(): void {
    this.#heartbeat();
    this.#repairs.stop();
    this.#stopped.abort();
    this.#waiters.stop();
  }

  /** Goes on from what the store says is applied, after it was away. What was under way is asked for again. */
  restart(applied: Iterable<AppliedMark>): void {
    this.#transfers.restart();
    this.#delivery.reset(applied);
  }

  /**
   * What the store has lost and memory still holds, this node's own frames and others', is applied again, before anyone is
   * asked: it may be nowhere else.
   */
  recover(): void {
    for (const [replica, number, bytes] of this.#recent.all()) {
      if (number <= (this.#delivery.marks.get(replica)?.number ?? 0)) continue;
      this.#delivery.offer(decodeFrame(bytes, this.#options.maxValueBytes));
    }
  }

  /** A frame of this node has been committed: tell everyone. */
  publish(frame: Frame): void {
    this.#recent.add(frame.replica, frame.number, frame.bytes);
    this.#delivery.raise([{ replica: frame.replica, number: frame.number, stamp: frame.stamp }]);
    // Too large for a broadcast: the heartbeat tells its number, and the others fetch it.
    if (frame.bytes.length <= this.#options.mesh.maxBroadcastBytes) this.#options.mesh.broadcast(frame.bytes);
    else this.#sayHello();
    this.#waiters.check();
    this.#drain();
  }

  /** Remote frames or states have been committed. */
  applied(frames: number): void {
    this.#applied += frames;
    this.#waiters.check();
    this.#drain();
  }

  /** Waits until a replica's frame is applied here. */
  whenApplied(replica: ReplicaId, number: number, timeoutMs: number, signal: AbortSignal): Promise<number> {
    return this.#waiters.wait(replica, number, timeoutMs, signal);
  }

  /** Tells the others now how far this node has come. */
  announceProgress(): void {
    this.#sayHello();
  }

  // ---- from the mesh

  onBroadcast(from: PeerId, bytes: Uint8Array): void {
    try {
      if (isHeartbeat(bytes)) this.#heard(from, decodeHeartbeat(bytes));
      else this.#take(decodeFrame(bytes, this.#options.maxValueBytes), from);
    } catch (error) {
      this.#refuseMessage(from, error);
    }
  }

  async *onRequest(
    from: PeerId,
    protocol: string,
    body: Uint8Array,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    const { store } = this.#options;
    if (protocol !== PROTOCOLS.hello && !this.#isMember(from)) {
      throw new PeerError(`introduce yourself with '${PROTOCOLS.hello}' first`);
    }
    switch (protocol) {
      case PROTOCOLS.hello:
        this.#heard(from, decodeHeartbeat(body));
        yield encodeHeartbeat(this.#self());
        return;
      case PROTOCOLS.frames:
        yield* toPieces(serveFrames(decodeFramesRequest(body), this.#recent, store, signal));
        return;
      case PROTOCOLS.state:
        yield* toPieces(this.#transfers.give(body));
        return;
      case PROTOCOLS.applied: {
        const wanted = decodeAppliedRequest(body);
        const number = await this.whenApplied(wanted.replica, wanted.number, wanted.timeoutMs, signal);
        yield encodeFramesRequest({ replica: wanted.replica, from: 0, to: number });
        return;
      }
      case PROTOCOLS.verify:
        yield* this.#options.answerVerify?.(from, body, signal) ?? [];
        return;
      default:
        throw new PeerError(
          `this node does not know the request '${protocol}': run the same release everywhere`,
        );
    }
  }

  onConnect(peer: PeerId): void {
    this.members.setConnected(peer, true);
    this.#announce(peer);
    void this.#greet(peer);
  }

  onDisconnect(peer: PeerId): void {
    this.members.setConnected(peer, false);
    this.#announce(peer);
  }

  /** Tells when a member has come, that is, when it is connected and introduced; and when it has gone. */
  #announce(peer: PeerId): void {
    const member = this.members.get(peer);
    const here = member?.connected === true && member.heardAtMs > 0 && member.refused === null;
    if (here === this.#announced.has(peer)) return;
    if (here) this.#announced.add(peer);
    else this.#announced.delete(peer);
    this.#options.onPeer(peer, here, member?.region ?? '');
  }

  // ---- heartbeats

  #self(): Heartbeat {
    const { region, replica, rules } = this.#options;
    return {
      version: PROTOCOL_VERSION,
      region,
      replica: replica.id,
      rules,
      applied: [...replica.applied.values()],
      atMs: Math.max(0, Math.floor(this.#options.timers.now())),
      born: 0,
      held: this.#delivery.held(),
      members: [],
      forgotten: [],
    };
  }

  #sayHello(): void {
    const bytes = encodeHeartbeat(this.#self());
    if (bytes.length <= this.#options.mesh.maxBroadcastBytes) this.#options.mesh.broadcast(bytes);
  }

  #tick(): void {
    if (this.#stopped.signal.aborted) return;
    this.#sayHello();
    this.#waiters.check();
    this.#drain();
    this.#repairs.look();
    this.#transfers.tick();
    this.#heartbeat = this.#options.timers.after(this.#options.heartbeatMs, () => this.#tick());
  }

  async #greet(peer: PeerId): Promise<void> {
    const { mesh, logger } = this.#options;
    for (let attempt = 1; attempt <= 3 && this.members.get(peer)?.connected === true; attempt += 1) {
      try {
        for await (const answer of mesh.request(peer, PROTOCOLS.hello, encodeHeartbeat(this.#self()), {
          signal: this.#stopped.signal,
        })) {
          this.#heard(peer, decodeHeartbeat(answer));
        }
        this.#repairs.look();
        return;
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        if (error instanceof DecodeError) this.#refuseMessage(peer, error);
        else logger.debug({ peer, err: error as Error }, 'a peer did not answer the greeting');
      }
    }
  }

  #heard(from: PeerId, heartbeat: Heartbeat): void {
    const { rules, timers } = this.#options;
    this.#checkOwner(from, heartbeat.replica);
    if (heartbeat.rules !== rules) {
      const reason = `its rules (${heartbeat.rules}) differ from those of ${this.#options.region} (${rules}): give every member the same rules`;
      this.members.refuse(from, heartbeat, reason);
      this.#announce(from);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    this.members.heard(from, heartbeat, timers.now());
    this.#announce(from);
    this.#trimRetiredLogs();
    if (!this.#stopped.signal.aborted) this.#repairs.look();
  }

  // ---- frames

  #take(frame: Frame, from: PeerId | null): boolean {
    if (from !== null) {
      this.#checkOwner(from, frame.replica);
      // Who hasn't introduced itself may have other rules. What is dropped here is repaired afterwards.
      if (!this.#isMember(from)) return false;
    }
    if (frame.replica === this.#options.replica.id) return false;
    const outcome = this.#delivery.offer(frame);
    if (outcome === 'known') return false;
    this.#recent.add(frame.replica, frame.number, frame.bytes);
    this.#drain();
    if (!this.#repairs.planned && this.#delivery.heldCount > 0) this.#repairs.look();
    return outcome === 'held';
  }

  #drain(): void {
    const { replica } = this.#options;
    while (replica.available && replica.queuedRemote < MAX_QUEUED_MERGES) {
      const frames = this.#delivery.take(MERGE_BYTES);
      if (frames.length === 0) return;
      replica.merge({ frames, states: [], marks: [] });
    }
  }

  /** A replica id begins with the hash of the PeerId that may use it, so a forged frame is seen without any state. */
  #checkOwner(from: PeerId, replica: ReplicaId): void {
    if (!replica.startsWith(`${replicaHash(from)}.`)) {
      throw new DecodeError(`replica ${replica} does not belong to ${from}`);
    }
  }

  /** Says whether a peer has introduced itself; throws PeerError when it was refused then. */
  #isMember(peer: PeerId): boolean {
    const member = this.members.get(peer);
    if (member?.refused != null) throw new PeerError(`${peer} is refused: ${member.refused}`);
    return member !== undefined && member.heardAtMs > 0;
  }

  #refuseMessage(from: PeerId, error: unknown): void {
    this.#refused += 1;
    const { code, message } = error as MeshError;
    const fields = { peer: from, code, reason: message };
    // A broken peer sends many: say each thing once loudly.
    const label = `${from} ${code} ${message}`;
    if (this.#warned.has(label)) this.#options.logger.debug(fields, 'refused a message');
    else this.#options.logger.warn(fields, 'refused a message');
    if (this.#warned.size < 1000) this.#warned.add(label);
  }

  // ---- forgetting

  /** Logs of this node's earlier epochs go when every member that is present has applied all of them. */
  #trimRetiredLogs(): void {
    const { replica, store, mesh } = this.#options;
    const own = `${replicaHash(mesh.self)}.`;
    const present: Member[] = this.members.present();
    for (const mark of replica.applied.values()) {
      const { replica: retired, number } = mark;
      if (retired === replica.id || !retired.startsWith(own) || this.#trimmed.has(retired)) continue;
      if (present.length > 0 && present.every((member) => (member.applied.get(retired) ?? 0) >= number)) {
        this.#trimmed.add(retired);
        store.trimLog(retired, number).catch(() => this.#trimmed.delete(retired));
      }
    }
  }

  readonly #trimmed = new Set<ReplicaId>();
}
