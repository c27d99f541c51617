/**
 * Sync: gets every member's frames here, and this one's there. Three layers: frames are pushed as they are committed; holes
 * are repaired from whoever has the frames; and what no frames can bring is transferred as state.
 *
 * This file connects the mesh to the replica. What to ask of whom, and when, is decided in gap-repair.ts; what is applied
 * in which order, in replica/causal-delivery.ts.
 */
import { setMaxListeners } from 'node:events';
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock, Stamp } from '../../crdts/stamp.js';
import type { ClockStatus, ForgettingStatus } from '../engine.js';
import { ArgumentError, DecodeError, type MeshError, PeerError } from '../errors.js';
import { replicaHash } from '../mesh/identity.js';
import type { Mesh, MeshHandlers, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import { CausalDelivery } from '../replica/causal-delivery.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import type { KeyChange } from '../replica/key-change.js';
import { RecentFrames } from '../replica/recent-frames.js';
import type { Replica } from '../replica/replica.js';
import { epochAt, epochOf } from '../replica-identity.js';
import type { AppliedMark, Store } from '../store/store.js';
import type { Cancel, Timers } from '../timers.js';
import { AppliedWaiters } from './applied-waiters.js';
import { ClockWatch } from './clock-skew.js';
import { Forgetter } from './forgetter.js';
import { forgettingStatus } from './forgetting-status.js';
import { serveFrames } from './frame-server.js';
import { GapRepair, lastClaimed } from './gap-repair.js';
import { type Member, Members } from './members.js';
import {
  decodeAppliedRequest,
  decodeFramesRequest,
  decodeHeartbeat,
  encodeFramesRequest,
  encodeHeartbeat,
  type Heartbeat,
  isHeartbeat,
  MAX_MEMBERS,
  PROTOCOL_VERSION,
  PROTOCOLS,
} from './messages.js';
import { encodeNotes, type Notes } from './notes.js';
import { toPieces } from './pieces.js';
import { MAX_QUEUED_MERGES, Repairs } from './repairs.js';
import { Stability, type Stable, StableHistory } from './stability.js';
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
  /** Sets of at least so many members are compared by their members' buckets. Default: 1,024. */
  readonly bigSetMembers?: number;
  /** What the node remembers of the mesh from before. */
  readonly notes: Notes;
  /** Another identity that used this node's store before; null = none did. */
  readonly predecessor: PeerId | null;
  /** How old what is forgotten must be, at least. */
  readonly tombstoneGraceMs: number;
  /** How far the members' clocks may differ until it is reported. Default: 1,000. */
  readonly maxClockOffsetMs?: number;
  /** All members have applied this replica's frames up to this number. */
  readonly onEveryoneHas: (number: number) => void;
  /** This node's data can't be merged with the others' any more: it must be dropped, and the node begin anew. */
  readonly onOutcast: (reason: string) => void;
  /** Says whether this node waits for the others' state (loading.ts). */
  readonly loading: () => boolean;
  readonly onPeer: (peer: PeerId, connected: boolean, region: string) => void;
  /** A member has more frames of this node's current epoch than the node itself: they are lost here, and their numbers used up. */
  readonly onOvertaken: (peer: PeerId, number: number) => void;
  /** Answers a question of a verification. Default: refuses. */
  readonly answerVerify?: (from: PeerId, body: Uint8Array, signal: AbortSignal) => AsyncIterable<Uint8Array>;
}

/** Bytes of frames that one merge takes. */
const MERGE_BYTES = 256 * 1024;
/** A member that is unheard for as many heartbeats is silent. */
const SILENT_HEARTBEATS = 10;
/** Heartbeats that a member leaves to the one before it to sweep expired keys. */
const SWEEP_TURN_HEARTBEATS = 10;
/** Heartbeats in which the identity that used this node's store before may show that it is still there. */
const SUCCEED_HEARTBEATS = 30;

export class Sync implements MeshHandlers {
  readonly #options: SyncOptions;
  readonly #delivery: CausalDelivery;
  readonly #recent: RecentFrames;
  readonly #repairs: Repairs;
  readonly #transfers: Transfers;
  readonly #waiters: AppliedWaiters;
  readonly members: Members;
  readonly #stability: Stability;
  readonly #forgetter: Forgetter;
  readonly #clockWatch: ClockWatch;
  #born: number;
  #predecessor: PeerId | null;
  readonly #startedAtMs: number;
  #floor: ReadonlyMap<ReplicaId, number>;
  readonly #history: StableHistory;
  /** The notes that are stored, or on their way. */
  #noted = '' as ByteString;
  #noting: Promise<void> = Promise.resolve();
  readonly #stopped = new AbortController();
  readonly #warned = new Set<string>();
  /** Members that {@link SyncOptions.onPeer} was told of. */
  readonly #announced = new Set<PeerId>();
  #heartbeat: Cancel = () => {};
  #applied = 0;
  #refused = 0;

  constructor(options: SyncOptions) {
    this.#options = options;
    this.members = new Members(options.notes);
    this.#born = options.notes.born;
    this.#predecessor = options.predecessor;
    this.#startedAtMs = options.timers.now();
    this.#floor = options.notes.floor;
    this.#history = new StableHistory(options.tombstoneGraceMs);
    this.#stability = new Stability(options.tombstoneGraceMs);
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
      floor: () => this.#floor,
      onOutdated: (peer) => this.#outcast(`${peer} has forgotten deletions that this node has not seen`, -1),
      onMarks: (marks) => {
        this.#delivery.raise(marks);
        this.#drain();
      },
    });
    this.#repairs = new Repairs({
      ...shared,
      delivery: this.#delivery,
      witnesses: () => this.#witnesses(),
      forgotten: () => this.#forgottenIdentities(),
      take: (frame) => this.#take(frame, null),
      recall: (id, number) => {
        const bytes = this.#recent.get(id, number);
        return bytes && decodeFrame(bytes, options.maxValueBytes);
      },
      drain: () => this.#drain(),
      paused: () => this.#awaitsState,
      pull: async (peer) => {
        const before = this.#transfers.completed;
        await this.#transfers.pull(peer, true);
        return this.#transfers.completed > before;
      },
    });
    this.#forgetter = new Forgetter({
      ...options,
      stable: () => this.#history.add(this.#stable(), options.timers.now()),
      turn: () => this.members.present().filter(({ peerId }) => peerId < options.mesh.self).length,
      raiseFloor: ({ numbers }) => this.#raiseFloor(numbers),
      turnMs: SWEEP_TURN_HEARTBEATS * options.heartbeatMs,
    });
    this.#clockWatch = new ClockWatch({
      ...options,
      members: () => this.members.all(),
      toleranceMs: options.maxClockOffsetMs ?? 1_000,
      latelyMs: SILENT_HEARTBEATS * options.heartbeatMs,
    });
    this.restart(options.replica.applied.values());
  }

  /** The epoch in which this node's data began. */
  get born(): number {
    return this.#born;
  }

  /** How this node's clock compares with the others'. */
  get clock(): ClockStatus {
    return this.#clockWatch.status;
  }

  /** The stamp up to which every member has applied every replica. */
  stableStamp(): Stamp {
    return this.#stable().stamp;
  }

  #stable(): Stable {
    const { replica, timers } = this.#options;
    const own = { replica: replica.id, applied: replica.applied, held: this.#delivery.held() };
    return this.members.stable(this.#stability, own, replica.applied, timers.now());
  }

  /** How far forgetting is, and whom it waits for. */
  get forgetting(): ForgettingStatus {
    const { replica, timers, heartbeatMs } = this.#options;
    return forgettingStatus({
      counted: this.members.counted(),
      stable: this.stableStamp(),
      applied: replica.applied,
      counters: this.#forgetter.counters,
      nowMs: timers.now(),
      silentMs: SILENT_HEARTBEATS * heartbeatMs,
    });
  }

  /** What has happened since the start. */
  get counters(): { readonly applied: number; readonly repaired: number; readonly refused: number } {
    return { applied: this.#applied, repaired: this.#repairs.repaired, refused: this.#refused };
  }

  /** The state transfer that is under way; null = none. */
  get transfer(): TransferProgress | null {
    return this.#transfers.progress;
  }

  /** Pulls a member's state, all of it or only what differs (transfers.ts). Never rejects. */
  pull(peer: PeerId, complete: boolean): Promise<void> {
    return this.#transfers.pull(peer, complete);
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
    this.#repairs.restart();
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

  /** A commit has changed these keys. */
  changed(changes: ReadonlyMap<ByteString, KeyChange>): void {
    this.#forgetter.note(Array.from(changes.values(), ({ record }) => record));
  }

  /** Commits failed that would have changed these keys. */
  undone(keys: Iterable<ByteString>): void {
    this.#forgetter.doubt(keys);
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
        yield* toPieces(serveFrames(decodeFramesRequest(body), this.#recent, this.#delivery, store, signal));
        return;
      case PROTOCOLS.state:
        // From here on it counts, whatever happens to this node.
        await this.#noting;
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

  /** All members that count, when each of them is present; null when one is away, or this node's frames tell of one that it doesn't know. */
  #witnesses(): Member[] | null {
    const { mesh, replica } = this.#options;
    const witnesses = this.members.present();
    if (this.members.counted().some((member) => !witnesses.includes(member))) return null;
    const known = this.#forgottenIdentities();
    for (const peerId of [mesh.self, ...witnesses.map((member) => member.peerId)])
      known.add(replicaHash(peerId));
    for (const id of replica.applied.keys()) if (!known.has(id.slice(0, id.indexOf('.')))) return null;
    return witnesses;
  }

  /** Members that count, or that the marks tell of, and that haven't introduced themselves since the start: as their replica ids begin. */
  silentIdentities(marks: readonly AppliedMark[]): string[] {
    const heard = this.#forgottenIdentities().add(replicaHash(this.#options.mesh.self));
    for (const member of this.members.all()) if (member.heardAtMs > 0) heard.add(replicaHash(member.peerId));
    const known = marks.map(({ replica }) => replica.slice(0, replica.indexOf('.')));
    for (const { peerId } of this.members.counted()) known.push(replicaHash(peerId));
    return [...new Set(known)].filter((identity) => !heard.has(identity));
  }

  #forgottenIdentities(): Set<string> {
    return new Set(this.members.forgotten().map(({ peerId }) => replicaHash(peerId)));
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
      born: this.#born,
      held: this.#delivery.held(replica.applied),
      members: this.members.counted().map(({ peerId }) => peerId),
      forgotten: this.members.forgotten(),
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
    this.#repairs.lookForHoles();
    this.#transfers.tick();
    this.#forgetter.round();
    this.#beat();
    this.#succeed();
    this.#remember();
    this.#trimLogs();
    this.#clockWatch.tell();
    this.#heartbeat = this.#options.timers.after(this.#options.heartbeatMs, () => this.#tick());
  }

  async #greet(peer: PeerId): Promise<void> {
    const { mesh, logger, timers } = this.#options;
    for (let attempt = 1; attempt <= 3 && this.members.get(peer)?.connected === true; attempt += 1) {
      try {
        const askedMs = timers.now();
        for await (const answer of mesh.request(peer, PROTOCOLS.hello, encodeHeartbeat(this.#self()), {
          signal: this.#stopped.signal,
        })) {
          const tookMs = timers.now() - askedMs;
          this.#heard(peer, decodeHeartbeat(answer));
          this.members.get(peer)?.clock.greeted(tookMs);
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
    if (this.members.isFull(from)) {
      const reason = `there are ${MAX_MEMBERS} members already: forget those that are gone, with MESH FORGET`;
      this.members.refuse(from, heartbeat, reason);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    this.#hearOfForgotten(from, heartbeat);
    const member = this.members.heard(from, heartbeat, timers.now());
    const claimed = lastClaimed(member, this.#options.replica.id);
    if (claimed > this.#options.replica.lastFrame) this.#options.onOvertaken(from, claimed);
    for (const peer of [from, ...heartbeat.members]) {
      if (peer !== this.#options.mesh.self) this.members.count(peer);
    }
    this.#remember();
    this.#announce(from);
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

  /**
   * An empty node that loads takes whole states first. Frames from others' logs may tell of keys whose deletion is no longer in any
   * log, and forgotten by those who give their state; besides, everything would come twice.
   */
  get #awaitsState(): boolean {
    const { replica, loading } = this.#options;
    return loading() && [...replica.applied.keys()].every((id) => id === replica.id);
  }

  #drain(): void {
    const { replica } = this.#options;
    if (this.#awaitsState) return;
    while (replica.available && replica.queuedRemote < MAX_QUEUED_MERGES) {
      const frames = this.#delivery.take(MERGE_BYTES);
      if (frames.length === 0) return;
      this.#transfers.handed(frames);
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

  /**
   * Forgets a member that is gone for good: nothing waits for it any more, and should it return, it drops its data and begins anew.
   * Throws ArgumentError when it is this node, unknown, or connected.
   */
  forget(peerId: PeerId): void {
    const { mesh, timers, logger } = this.#options;
    const member = this.members.get(peerId);
    if (peerId === mesh.self) throw new ArgumentError('a node can not forget itself: say it to another one');
    if (member === undefined || (!member.counts && member.refused === null))
      throw new ArgumentError(`${peerId} is no member: MESH PEERS lists them`);
    if (member.connected)
      throw new ArgumentError(
        `${peerId} is connected: stop it first; only a member that is gone can be forgotten`,
      );
    // Whatever it was until now is forgotten.
    this.members.forget({ peerId, born: Math.max(member.born, epochAt(timers.now())) });
    logger.warn(
      { peer: peerId, region: member.region },
      'a member is forgotten: if it returns, it begins anew',
    );
    this.#remember();
    this.#sayHello();
  }

  /**
   * A node that was given another identity has all that its predecessor had, and the others needn't wait for that one any more. Unless
   * it is heard of: then there are two nodes on one store.
   */
  #succeed(): void {
    const { timers, heartbeatMs, logger } = this.#options;
    const predecessor = this.#predecessor;
    if (predecessor === null || timers.now() < this.#startedAtMs + SUCCEED_HEARTBEATS * heartbeatMs) return;
    this.#predecessor = null;
    if ((this.members.get(predecessor)?.heardAtMs ?? 0) > 0) return;
    this.members.forget({ peerId: predecessor, born: epochAt(timers.now()) });
    logger.info({ predecessor }, 'this node goes on for the identity that used its store before');
  }

  /** Takes in whom another member has forgotten. Throws PeerError when its sender is itself forgotten. */
  #hearOfForgotten(from: PeerId, heartbeat: Heartbeat): void {
    const { mesh, logger } = this.#options;
    const bound = heartbeat.forgotten.find(({ peerId }) => peerId === mesh.self)?.born ?? -1;
    const outcast = this.#born <= bound;
    if (this.members.isForgotten(from, heartbeat.born)) {
      const reason = outcast
        ? 'it and this node have each forgotten the other: start one of them with an empty store'
        : 'it was forgotten, and has not begun anew yet';
      this.members.refuse(from, heartbeat, reason);
      this.#announce(from);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    if (outcast) {
      // What only this node had was written without the others waiting for it: merging it could bring back what they have deleted. Not
      // so what an epoch wrote that began after it was forgotten: it continues nothing.
      const { id } = this.#options.replica;
      this.#recent.keepOnly(epochOf(id) > bound ? id : null);
      this.#outcast(`${from} says that this node was forgotten`, bound);
    }
    for (const forgotten of heartbeat.forgotten) {
      if (forgotten.peerId === mesh.self || !this.members.forget(forgotten)) continue;
      logger.warn(
        { peer: forgotten.peerId, by: from },
        'a member was forgotten: if it returns, it begins anew',
      );
      this.#announce(forgotten.peerId);
    }
  }

  /** Drops this node's data, unless it is at it; what it does next begins later than `bound`. Throws PeerError. */
  #outcast(reason: string, bound: number): never {
    if (this.#outcastBound < 0) this.#options.onOutcast(reason);
    this.#outcastBound = Math.max(this.#outcastBound, bound, this.#born);
    throw new PeerError(`${reason}: it begins anew`);
  }

  /** The store is back. `born`: the epoch in which its data began, if it has none any more; null = it still has some. */
  returned(born: number | null): void {
    if (born !== null) {
      this.#born = Math.max(born, this.#outcastBound + 1);
      this.#floor = new Map();
      this.#outcastBound = -1;
      this.members.forgiveAll();
    }
    this.#noted = '' as ByteString;
  }

  /** The data could not be dropped: it is tried again when the next member says so. */
  outcastAgain(): void {
    this.#outcastBound = -1;
  }

  /** While this node's data is being dropped: it must begin anew later than this epoch. -1 = it isn't. */
  #outcastBound = -1;

  /** Makes an empty frame when the others wait to hear how far this node's clock is. */
  #beat(): void {
    const { replica } = this.#options;
    const demand = this.#forgetter.demand;
    if (demand <= (replica.applied.get(replica.id)?.stamp ?? 0) || !replica.available) return;
    replica.submit({ needs: [], run: (tx) => tx.beat() }, () => {});
  }

  async #raiseFloor(numbers: ReadonlyMap<ReplicaId, number>): Promise<void> {
    const floor = new Map(this.#floor);
    for (const [replica, number] of numbers)
      if (number > (floor.get(replica) ?? 0)) floor.set(replica, number);
    this.#floor = floor;
    this.#remember();
    await this.#noting;
  }

  /** Stores the notes when they have changed; {@link #noting} resolves when they are stored. */
  #remember(): void {
    const notes = encodeNotes({
      born: this.#born,
      floor: this.#floor,
      members: this.members.counted().map(({ peerId }) => peerId),
      forgotten: this.members.forgotten(),
    });
    if (notes === this.#noted || !this.#options.replica.available || this.#stopped.signal.aborted) return;
    this.#noted = notes;
    this.#noting = this.#note(notes);
    this.#noting.catch(() => {
      this.#noted = '' as ByteString;
    });
  }

  async #note(notes: ByteString): Promise<void> {
    const { store } = this.#options;
    for (let stored = await store.saveNotes(notes, null); stored !== notes; )
      stored = await store.saveNotes(notes, stored);
  }

  /** Trims this node's logs where all members have applied them: those of earlier epochs, and what is old of the running one. */
  #trimLogs(): void {
    const { replica, store, mesh } = this.#options;
    const own = `${replicaHash(mesh.self)}.`;
    const counted = this.members.counted();
    if (counted.length === 0) return;
    for (const { replica: id, number } of replica.applied.values()) {
      if (!id.startsWith(own) || this.#trimmed.has(id)) continue;
      const everyone = Math.min(...counted.map((member) => member.applied.get(id) ?? 0));
      if (id === replica.id) this.#options.onEveryoneHas(everyone);
      else if (everyone >= number) {
        this.#trimmed.add(id);
        store.trimLog(id, number).catch(() => this.#trimmed.delete(id));
      }
    }
  }

  readonly #trimmed = new Set<ReplicaId>();
}
