/** Repairs: fetches the frames that are missing here, or asks for whole states where frames don't help. What to ask of whom, and when: gap-repair.ts. */
import type { ReplicaId } from '../../crdts/dot.js';
import { DecodeError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { CausalDelivery } from '../replica/causal-delivery.js';
import { decodeFrame, type Frame } from '../replica/frame.js';
import type { Replica } from '../replica/replica.js';
import type { Cancel, Timers } from '../timers.js';
import { GapRepair, type Repair } from './gap-repair.js';
import type { Member } from './members.js';
import { decodeFrameChunk, encodeFramesRequest, PROTOCOLS } from './messages.js';
import { fromPieces } from './pieces.js';

export interface RepairsOptions {
  readonly mesh: Mesh;
  readonly replica: Replica;
  readonly delivery: CausalDelivery;
  readonly timers: Timers;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  readonly stopped: AbortSignal;
  readonly present: () => readonly Member[];
  /** Takes a fetched frame in; says whether it was missing. */
  readonly take: (frame: Frame) => boolean;
  /** Asks a member for whole states. */
  readonly pull: (peer: PeerId) => Promise<void>;
  /** A peer sent something that can't be read. */
  readonly onRefused: (peer: PeerId, error: DecodeError) => void;
}

/** Merges that may wait for the replica; the rest stays held back, where it is bounded. */
export const MAX_QUEUED_MERGES = 8;
/** Least time between two looks for gaps, where one is known. */
const LOOK_FOR_GAPS_MS = 200;

export class Repairs {
  readonly #options: RepairsOptions;
  readonly #gaps = new GapRepair();
  readonly #busy = new Set<ReplicaId>();
  #timer: Cancel | null = null;
  /** Frames that were missing and were fetched. */
  repaired = 0;

  constructor(options: RepairsOptions) {
    this.#options = options;
  }

  /** Says whether another look is due by itself. */
  get planned(): boolean {
    return this.#timer !== null;
  }

  stop(): void {
    this.#timer?.();
  }

  /** Looks for gaps and asks for what is due. */
  look(): void {
    const { replica, timers, delivery, stopped, present } = this.#options;
    if (!replica.available || stopped.aborted) return;
    const now = timers.now();
    for (const repair of this.#gaps.due(delivery, present(), replica.id, this.#busy, now)) {
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
    const { mesh, logger, maxValueBytes, replica, timers, stopped } = this.#options;
    this.#busy.add(repair.replica);
    let frames = 0;
    try {
      const body = encodeFramesRequest(repair);
      const pieces = mesh.request(repair.peer, PROTOCOLS.frames, body, { signal: stopped });
      for await (const chunk of fromPieces(pieces)) {
        for (const bytes of decodeFrameChunk(chunk)) {
          const frame = decodeFrame(bytes, maxValueBytes);
          if (frame.replica !== repair.replica || frame.number < repair.from || frame.number > repair.to)
            throw new DecodeError('a frame came that was not asked for');
          if (this.#options.take(frame)) this.repaired += 1;
          frames += 1;
        }
        while (replica.available && replica.queuedRemote >= MAX_QUEUED_MERGES) {
          await new Promise<void>((resolve) => timers.after(5, resolve));
        }
      }
      // The peer has applied these frames but doesn't have them any more.
      if (frames === 0) await this.#options.pull(repair.peer);
    } catch (error) {
      if (error instanceof DecodeError) this.#options.onRefused(repair.peer, error);
      else logger.debug({ ...repair, err: error as Error }, 'a repair broke off');
    } finally {
      this.#busy.delete(repair.replica);
    }
  }
}
