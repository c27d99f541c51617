/**
 * Repairs: fetches the frames that are missing here, or asks for whole states where frames don't help. What to ask of whom, and
 * when: gap-repair.ts. Which frames nobody has any more, and what of it: holes.ts.
 */
import type { ReplicaId } from '../../crdts/dot.js';
import { DecodeError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { CausalDelivery } from '../replica/causal-delivery.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import type { Replica } from '../replica/replica.js';
import type { Cancel, Timers } from '../timers.js';
import { GapRepair, type Repair } from './gap-repair.js';
import { type Evidence, type Hole, HoleWatch, type Witness } from './holes.js';
import type { Member } from './members.js';
import { decodeFrameChunk, encodeFramesRequest, PROTOCOLS } from './messages.js';
import { fromPieces } from './pieces.js';
import type { Siblings } from './siblings.js';

export interface RepairsOptions {
  readonly mesh: Mesh;
  readonly replica: Replica;
  readonly delivery: CausalDelivery;
  readonly timers: Timers;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  readonly stopped: AbortSignal;
  readonly heartbeatMs: number;
  readonly present: () => readonly Member[];
  /** All members that count, each of them present; null when one is away. */
  readonly witnesses: () => readonly Witness[] | null;
  /** Members that are gone for good, as their replica ids begin. */
  readonly forgotten: () => ReadonlySet<string>;
  /** Takes a fetched frame in; says whether it was missing. */
  readonly take: (frame: Frame) => boolean;
  /** A frame that is in memory, though it may not be delivered nor held back. */
  readonly recall: (replica: ReplicaId, number: number) => Frame | undefined;
  /** Frames that waited may go on. */
  readonly drain: () => void;
  /** Says whether frames are of no use now: whole states come first. */
  readonly paused: () => boolean;
  /** Other nodes on this node's store: what they make is in the store. */
  readonly siblings: Pick<Siblings, 'makes'>;
  /** Asks a member for whole states; says whether they were merged, or were equal. */
  readonly pull: (peer: PeerId) => Promise<boolean>;
  /** A peer sent something that can't be read. */
  readonly onRefused: (peer: PeerId, error: DecodeError) => void;
}

/** Merges that may wait for the replica; the rest stays held back, where it is bounded. */
export const MAX_QUEUED_MERGES = 8;
/** Least time between two looks for gaps, where one is known. */
const LOOK_FOR_GAPS_MS = 200;
/** How long a hole must stay as it is, in heartbeats. */
const HOLE_GRACE_HEARTBEATS = 3;

export class Repairs {
  readonly #options: RepairsOptions;
  readonly #gaps = new GapRepair();
  readonly #holes: HoleWatch;
  readonly #busy = new Set<ReplicaId>();
  /** A member is being asked for the frames of a hole. */
  #inquiring = false;
  #timer: Cancel | null = null;
  /** Frames that were missing and were fetched. */
  repaired = 0;

  constructor(options: RepairsOptions) {
    this.#options = options;
    this.#holes = new HoleWatch(HOLE_GRACE_HEARTBEATS * options.heartbeatMs);
  }

  /** Says whether another look is due by itself. */
  get planned(): boolean {
    return this.#timer !== null;
  }

  stop(): void {
    this.#timer?.();
  }

  /** The store was away: what was found out before says nothing. */
  restart(): void {
    this.#holes.restart();
  }

  /** Looks for frames that nobody has any more, and goes on without those for which that is certain. */
  lookForHoles(): void {
    const { replica, delivery, timers, logger, stopped, witnesses } = this.#options;
    if (!replica.available || stopped.aborted || delivery.heldCount === 0) return;
    this.#recall();
    const { ask, certain, skip } = this.#holes.look(this.#evidence(), witnesses(), timers.now());
    for (const hole of certain) delivery.lost(hole.replica, hole.before);
    for (const hole of skip) {
      logger.warn(
        { replica: hole.replica, from: hole.after + 1, to: hole.next! - 1 },
        'no member has these frames any more: going on without them',
      );
      delivery.skip(hole.replica, hole.next!);
    }
    if (certain.length > 0) this.#options.drain();
    if (ask.length > 0 && !this.#inquiring) void this.#inquire(ask[0]!.hole, ask[0]!.peer);
  }

  /** What didn't fit into the queue may still be in memory, and nowhere else. */
  #recall(): void {
    const { delivery } = this.#options;
    for (const { replica } of delivery.held()) {
      for (;;) {
        const frame = this.#options.recall(replica, delivery.nextMissing(replica));
        if (frame === undefined || delivery.offer(frame) !== 'held') break;
      }
    }
    this.#options.drain();
  }

  #evidence(): Evidence {
    const { replica, delivery, forgotten } = this.#options;
    return {
      replica: replica.id,
      applied: replica.applied,
      delivered: delivery.marks,
      held: delivery.firstHeld(),
      awaited: delivery.awaited(),
      forgotten: forgotten(),
    };
  }

  /** Asks a member for what is missing in a hole; when it has nothing, for its state. */
  async #inquire(hole: Hole, peer: PeerId): Promise<void> {
    const { replica, after, next } = hole;
    this.#inquiring = true;
    try {
      const asked = { peer, replica, from: after + 1, to: Math.max(after + 1, (next ?? 0) - 1), far: false };
      if ((await this.#request(asked)).frames > 0) return;
      if (await this.#options.pull(peer)) this.#holes.answered(hole, peer);
    } catch (error) {
      if (error instanceof DecodeError) this.#options.onRefused(peer, error);
    } finally {
      this.#inquiring = false;
    }
  }

  /** Looks for gaps and asks for what is due. */
  look(): void {
    const { replica, timers, delivery, stopped, present } = this.#options;
    if (!replica.available || stopped.aborted || this.#options.paused()) return;
    const now = timers.now();
    const isHere = (id: ReplicaId): boolean => id === replica.id || this.#options.siblings.makes(id);
    for (const repair of this.#gaps.due(delivery, present(), isHere, this.#busy, now)) {
      if (repair.far) void this.#options.pull(repair.peer);
      else void this.#fetch(repair);
    }
    // A gap is looked at again when it is time to, not with the next heartbeat.
    this.#timer?.();
    this.#timer = null;
    const next = this.#gaps.nextMs;
    if (next === null) return;
    this.#timer = timers.after(Math.max(next > now ? next - now : 0, LOOK_FOR_GAPS_MS), () => {
      this.#timer = null;
      this.look();
    });
  }

  async #fetch(repair: Repair): Promise<void> {
    this.#busy.add(repair.replica);
    try {
      const { first, fresh } = await this.#request(repair);
      // The peer has applied these frames but doesn't have them any more.
      if (!first && fresh === 0) await this.#options.pull(repair.peer);
    } catch (error) {
      if (error instanceof DecodeError) this.#options.onRefused(repair.peer, error);
      else this.#options.logger.debug({ ...repair, err: error as Error }, 'a repair broke off');
    } finally {
      this.#busy.delete(repair.replica);
    }
  }

  /** Fetches frames; gives how many came, how many of them were missing here, and whether the first that was asked for did. */
  async #request(repair: Repair): Promise<{ frames: number; fresh: number; first: boolean }> {
    const { mesh, maxValueBytes, replica, timers, stopped } = this.#options;
    const came = { frames: 0, fresh: 0, first: false };
    const body = encodeFramesRequest(repair);
    const pieces = mesh.request(repair.peer, PROTOCOLS.frames, body, { signal: stopped });
    for await (const chunk of fromPieces(pieces)) {
      for (const bytes of decodeFrameChunk(chunk)) {
        const frame = decodeFrame(bytes, maxValueBytes);
        if (frame.replica !== repair.replica || frame.number < repair.from || frame.number > repair.to)
          throw new DecodeError('a frame came that was not asked for');
        came.frames += 1;
        if (frame.number === repair.from) came.first = true;
        if (!this.#options.take(frame)) continue;
        came.fresh += 1;
        this.repaired += 1;
      }
      while (replica.available && replica.queuedRemote >= MAX_QUEUED_MERGES) {
        await new Promise<void>((resolve) => timers.after(5, resolve));
      }
    }
    return came;
  }
}
