/**
 * Sync: gets every member's frames here, and this one's there. Three layers: frames are pushed as they are committed; holes
 * are repaired from whoever has the frames; and what no frames can bring is transferred as state.
 *
 * This file connects the mesh, the store and the replica with the parts that decide. Who is a member, and what members say: introductions.ts,
 * standing.ts. What becomes of frames: intake.ts. What is missing: repairs.ts, transfers.ts. What can go: forgetter.ts, log-trimming.ts. Other nodes
 * on the same store: siblings.ts.
 */
import { setMaxListeners } from 'node:events';
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock, Stamp } from '../../crdts/stamp.js';
import type { ClockStatus, ForgettingStatus } from '../engine.js';
import { type DecodeError, PeerError } from '../errors.js';
import { replicaHash } from '../mesh/identity.js';
import type { Mesh, MeshHandlers, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import type { CachedKey } from '../replica/key-cache.js';
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, DropReason, LoggedFrame, Store, StoreFacts } from '../store/store.js';
import type { Cancel, Timers } from '../timers.js';
import { AppliedWaiters } from './applied-waiters.js';
import { ClockWatch } from './clock-skew.js';
import { Forgetter } from './forgetter.js';
import { forgettingStatus } from './forgetting-status.js';
import { serveFrames } from './frame-server.js';
import { GapRepair } from './gap-repair.js';
import { Intake } from './intake.js';
import { Introductions } from './introductions.js';
import { LogReplay } from './log-replay.js';
import { LogTrimming } from './log-trimming.js';
import { type Member, Members } from './members.js';
import {
  decodeAppliedRequest,
  decodeFramesRequest,
  decodeHeartbeat,
  encodeFramesRequest,
  encodeHeartbeat,
  isHeartbeat,
  PROTOCOLS,
} from './messages.js';
import { decodeNotes, NO_NOTES } from './notes.js';
import { toPieces } from './pieces.js';
import { Repairs } from './repairs.js';
import { SharedNotes } from './shared-notes.js';
import { Siblings } from './siblings.js';
import { Stability, type Stable, StableHistory } from './stability.js';
import { Standing } from './standing.js';
import { StoreView } from './store-view.js';
import { Succession } from './succession.js';
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
  /** What the store knew when it was opened. */
  readonly facts: StoreFacts;
  /** The epoch in which this node began to use the data. */
  readonly born: number;
  /** How old what is forgotten must be, at least. */
  readonly tombstoneGraceMs: number;
  /** How far the members' clocks may differ until it is reported. Default: 1,000. */
  readonly maxClockOffsetMs?: number;
  /** All members have applied this replica's frames up to this number. */
  readonly onEveryoneHas: (number: number) => void;
  /** This node must begin anew. `drop`: why its data must be dropped; null = they stay, others use them too. */
  readonly onOutcast: (reason: string, drop: DropReason | null) => void;
  /** The store has fewer frames than it had. */
  readonly onRegress: () => void;
  /** Another node on the same store has changed these keys. */
  readonly onFollowed: (keys: readonly ByteString[]) => void;
  /** Shows in the store that this node lives. */
  readonly showLife: () => Promise<void>;
  /** Says whether this node waits for the others' state (loading.ts). */
  readonly loading: () => boolean;
  readonly onPeer: (peer: PeerId, connected: boolean, region: string) => void;
  /** A member has more frames of this node's current epoch than the node itself: they are lost here, and their numbers used up. */
  readonly onOvertaken: (peer: PeerId, number: number) => void;
  /** Answers a question of a verification. Default: refuses. */
  readonly answerVerify?: (from: PeerId, body: Uint8Array, signal: AbortSignal) => AsyncIterable<Uint8Array>;
}

/** A member that is unheard for as many heartbeats is silent. */
const SILENT_HEARTBEATS = 10;
/** Heartbeats that a member leaves to the one before it to sweep expired keys. */
const SWEEP_TURN_HEARTBEATS = 10;

export class Sync implements MeshHandlers {
  readonly #options: SyncOptions;
  readonly members: Members;
  readonly siblings: Siblings;
  readonly #intake: Intake;
  readonly #introductions: Introductions;
  readonly #standing: Standing;
  readonly #notes: SharedNotes;
  readonly #view: StoreView;
  readonly #repairs: Repairs;
  readonly #transfers: Transfers;
  readonly #waiters: AppliedWaiters;
  readonly #stability: Stability;
  readonly #history: StableHistory;
  readonly #forgetter: Forgetter;
  readonly #trimming: LogTrimming;
  readonly #replay: LogReplay;
  readonly #succession: Succession;
  readonly #clockWatch: ClockWatch;
  readonly #stopped = new AbortController();
  #heartbeat: Cancel = () => {};
  #applied = 0;

  constructor(options: SyncOptions) {
    this.#options = options;
    const { mesh, replica, timers, facts, heartbeatMs } = options;
    const { self } = mesh;
    // Every request under way listens.
    setMaxListeners(0, this.#stopped.signal);
    const known = facts.notes === null ? NO_NOTES : decodeNotes(facts.notes);
    // Others on the store have noted this node, too.
    const isOther = ({ peerId }: { readonly peerId: PeerId }): boolean => peerId !== self;
    const members = new Members({
      members: known.members.filter(isOther),
      forgotten: known.forgotten.filter(isOther),
    });
    this.members = members;
    const siblings = new Siblings({ ...options, self, members });
    siblings.read(facts);
    this.siblings = siblings;
    const shared = {
      ...options,
      ...{ self, members, siblings },
      stopped: this.#stopped.signal,
      present: () => members.present(),
      onRefused: (peer: PeerId, error: DecodeError) => this.#introductions.refuse(peer, error),
    };
    this.#history = new StableHistory(options.tombstoneGraceMs);
    this.#stability = new Stability(options.tombstoneGraceMs);
    this.#waiters = new AppliedWaiters(timers, () => replica.applied);
    this.#view = new StoreView({ ...options, onFacts: (...told) => this.#told(...told) });
    this.#intake = new Intake({
      ...shared,
      onHanded: (frames) => this.#transfers.handed(frames),
      onWaiting: () => this.#view.soon(),
    });
    const { delivery, recent } = this.#intake;
    this.#notes = new SharedNotes(
      {
        ...options,
        own: () => ({
          members: members.counted().map(({ peerId, born }) => ({ peerId, born })),
          forgotten: members.forgotten(),
        }),
        onLearned: ({ members: counted, forgotten }) => {
          for (const each of forgotten) if (each.peerId !== self) members.forget(each);
          for (const { peerId } of counted) if (peerId !== self) members.count(peerId);
        },
      },
      facts.notes,
    );
    this.#standing = new Standing({
      ...shared,
      recent,
      dataset: facts.dataset,
      onForgotten: (peer) => this.#introductions.announce(peer),
    });
    this.#introductions = new Introductions({
      ...shared,
      delivery,
      standing: () => this.#standing,
      onHeard: () => this.#heard(),
    });
    this.#transfers = new Transfers({
      ...shared,
      floor: () => this.#notes.floor,
      refresh: () => this.#refreshIfShared(),
      onOutdated: (peer) => this.#standing.outdated(peer),
      onMarks: (marks) => {
        delivery.raise(marks);
        this.#intake.drain();
      },
    });
    this.#repairs = new Repairs({
      ...shared,
      delivery,
      witnesses: () => this.#witnesses(),
      forgotten: () => this.#forgottenIdentities(),
      take: (frame) => this.#take(frame),
      recall: (id, number) => {
        const bytes = recent.get(id, number);
        return bytes && decodeFrame(bytes, options.maxValueBytes);
      },
      drain: () => this.#intake.drain(),
      paused: () => this.#intake.awaitsState || !siblings.leads,
      pull: async (peer) => {
        // It has the same.
        if (siblings.has(peer)) return true;
        const before = this.#transfers.completed;
        await this.#transfers.pull(peer, true);
        return this.#transfers.completed > before;
      },
    });
    this.#forgetter = new Forgetter({
      ...options,
      stable: () => this.#history.add(this.#stable(), timers.now()),
      turn: () => members.present().filter(({ peerId }) => peerId < self).length,
      raiseFloor: ({ numbers }) => this.#notes.raiseFloor(numbers),
      turnMs: SWEEP_TURN_HEARTBEATS * heartbeatMs,
    });
    this.#trimming = new LogTrimming(shared);
    this.#replay = new LogReplay({
      ...options,
      delivered: () => delivery.marks,
      take: (frame) => this.#intake.replay(frame),
      onRead: () => this.#intake.drain(),
    });
    this.#replay.begin(facts);
    this.#succession = new Succession({
      ...shared,
      refresh: () => this.#view.refresh(),
      onRetired: () => this.#retired(),
    });
    this.#clockWatch = new ClockWatch({
      ...options,
      members: () => members.all(),
      toleranceMs: options.maxClockOffsetMs ?? 1_000,
      latelyMs: SILENT_HEARTBEATS * heartbeatMs,
    });
    this.restart(replica.applied.values());
  }

  /** How this node's clock compares with the others'. */
  get clock(): ClockStatus {
    return this.#clockWatch.status;
  }

  /** The epoch in which this node began to use its data. */
  get born(): number {
    return this.#standing.born;
  }

  /** The stamp up to which every member has applied every replica. */
  stableStamp(): Stamp {
    return this.#stable().stamp;
  }

  #stable(): Stable {
    const { replica, timers } = this.#options;
    const own = { replica: replica.id, applied: replica.applied, held: this.#intake.delivery.held() };
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
    const { repaired } = this.#repairs;
    return { applied: this.#applied, repaired, refused: this.#introductions.refused };
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
    return this.#intake.delivery.heldCount;
  }

  /** Replicas whose frames come from too far in the future. */
  get skewed(): ReplicaId[] {
    return this.#intake.delivery.skewed();
  }

  /** Frames known of a replica that aren't delivered here yet. */
  missing(replica: ReplicaId): number {
    return GapRepair.missing(replica, this.#intake.delivery.marks, this.members.all());
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

  /** Goes on from what the store says is applied. What was under way is asked for again. */
  restart(applied: Iterable<AppliedMark>): void {
    this.#options.replica.shared = this.siblings.any;
    this.#transfers.restart();
    this.#repairs.restart();
    this.#intake.restart(applied);
  }

  /** The store is back, with these facts; the node goes on as `id`. What memory still holds of what the store has lost is applied again. */
  returned(facts: StoreFacts, id: ReplicaId): void {
    this.siblings.read(facts);
    this.#standing.returned(facts, id);
    this.#notes.reset(facts.notes);
    this.restart(facts.applied);
    this.#intake.recover();
    this.#replay.begin(facts);
  }

  /** The data could not be dropped. */
  outcastAgain(): void {
    this.#standing.outcastAgain();
  }

  /** Reads what other nodes on the same store have done. Rejects as the store does. */
  refresh(): Promise<void> {
    return this.#view.refresh();
  }

  async #refreshIfShared(): Promise<void> {
    if (this.siblings.any) await this.#view.refresh();
  }

  #told(facts: StoreFacts, news: readonly AppliedMark[]): void {
    this.siblings.read(facts);
    this.#options.replica.shared = this.siblings.any;
    this.#notes.learn(facts.notes);
    if (news.length === 0) return;
    this.#transfers.disturbed(news);
    if (!this.#intake.followed(news)) this.#forgetter.unsure();
    this.#waiters.check();
  }

  /** Another node on the store is gone for good: what it did to the store is not known here, and what it was about to do falls to this one. */
  #retired(): void {
    this.restart(this.#options.replica.applied.values());
    this.#intake.recover();
    this.#intake.drain();
    this.#forgetter.restart();
    this.#remember();
    this.#introductions.sayHello();
  }

  /** A frame of this node has been committed: tell everyone. */
  publish(frame: LoggedFrame): void {
    const { mesh } = this.#options;
    this.#intake.made(frame);
    // Too large for a broadcast: the heartbeat tells its number, and the others fetch it.
    if (frame.bytes.length <= mesh.maxBroadcastBytes) mesh.broadcast(frame.bytes);
    else this.#introductions.sayHello();
    this.#waiters.check();
  }

  /** A commit has changed these keys. */
  changed(records: readonly CachedKey[]): void {
    this.#forgetter.note(records);
  }

  /** Commits failed that would have changed these keys. */
  undone(keys: Iterable<ByteString>): void {
    this.#forgetter.doubt(keys);
  }

  /** Remote frames or states have been committed. */
  applied(frames: number): void {
    this.#applied += frames;
    this.#waiters.check();
    this.#intake.drain();
  }

  /** Waits until a replica's frame is applied here. */
  whenApplied(replica: ReplicaId, number: number, timeoutMs: number, signal: AbortSignal): Promise<number> {
    if (this.siblings.any) this.#view.soon();
    return this.#waiters.wait(replica, number, timeoutMs, signal);
  }

  /** Tells the others now how far this node has come. */
  announceProgress(): void {
    this.#introductions.sayHello();
  }

  /** Forgets a member that is gone for good (standing.ts). Throws ArgumentError when it is this node, unknown, or connected. */
  forget(peerId: PeerId): void {
    this.#standing.forget(peerId);
    this.#remember();
    this.#introductions.sayHello();
  }

  // ---- from the mesh

  onBroadcast(from: PeerId, bytes: Uint8Array): void {
    try {
      if (isHeartbeat(bytes)) {
        this.#introductions.heard(from, decodeHeartbeat(bytes));
        return;
      }
      const frame = decodeFrame(bytes, this.#options.maxValueBytes);
      this.#introductions.checkOwner(from, frame.replica);
      // Who hasn't introduced itself may have other rules. What is dropped here is repaired afterwards.
      if (this.#introductions.isMember(from)) this.#take(frame);
    } catch (error) {
      this.#introductions.refuse(from, error);
    }
  }

  async *onRequest(
    from: PeerId,
    protocol: string,
    body: Uint8Array,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    const { store } = this.#options;
    if (protocol !== PROTOCOLS.hello && !this.#introductions.isMember(from)) {
      throw new PeerError(`introduce yourself with '${PROTOCOLS.hello}' first`);
    }
    switch (protocol) {
      case PROTOCOLS.hello:
        this.#introductions.heard(from, decodeHeartbeat(body));
        yield encodeHeartbeat(this.#introductions.self());
        return;
      case PROTOCOLS.frames: {
        const { recent, delivery } = this.#intake;
        yield* toPieces(serveFrames(decodeFramesRequest(body), recent, delivery, store, signal));
        return;
      }
      case PROTOCOLS.state:
        // From here on it counts, whatever happens to this node.
        await this.#notes.saved;
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
    this.#introductions.connected(peer);
  }

  onDisconnect(peer: PeerId): void {
    this.#introductions.disconnected(peer);
    // What it was to apply falls to this node.
    this.#intake.drain();
  }

  #heard(): void {
    this.#options.replica.shared = this.siblings.any;
    this.#remember();
    if (!this.#stopped.signal.aborted) this.#repairs.look();
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

  #take(frame: Frame): boolean {
    const missing = this.#intake.take(frame);
    if (!this.#repairs.planned && this.#intake.delivery.heldCount > 0) this.#repairs.look();
    return missing;
  }

  #tick(): void {
    if (this.#stopped.signal.aborted) return;
    if (this.#options.replica.available) this.#view.refresh().catch(() => {});
    this.#introductions.sayHello();
    this.#waiters.check();
    this.#intake.drain();
    if (this.#options.replica.available) this.#replay.look();
    this.#repairs.look();
    if (this.siblings.leads) this.#repairs.lookForHoles();
    this.#transfers.tick();
    this.#forgetter.round();
    this.#beat();
    if (this.#options.replica.available) void this.#succession.look();
    this.#remember();
    this.#trimming.look();
    this.#clockWatch.tell();
    this.#heartbeat = this.#options.timers.after(this.#options.heartbeatMs, () => this.#tick());
  }

  /** Makes an empty frame when the others wait to hear how far this node's clock is. */
  #beat(): void {
    const { replica } = this.#options;
    const demand = this.#forgetter.demand;
    if (demand <= (replica.applied.get(replica.id)?.stamp ?? 0) || !replica.available) return;
    replica.submit({ needs: [], run: (tx) => tx.beat() }, { settled() {} });
  }

  #remember(): void {
    if (this.#options.replica.available && !this.#stopped.signal.aborted) this.#notes.remember();
  }
}
