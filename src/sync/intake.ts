/**
 * Intake: what becomes of frames that come in. They are kept for those who miss them, brought into causal order, and handed to the
 * replica; or, where another node on the same store applies them (siblings.ts), held until the store has them.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { HybridClock } from '../../crdts/stamp.js';
import { CausalDelivery } from '../replica/causal-delivery.js';
import { decodeFrame, type Frame, keyOf } from '../replica/frame.js';
import { RecentFrames } from '../replica/recent-frames.js';
import type { Replica } from '../replica/replica.js';
import type { AppliedMark, LoggedFrame } from '../store/store.js';
import { MAX_QUEUED_MERGES } from './repairs.js';
import type { Siblings } from './siblings.js';

export interface IntakeOptions {
  readonly replica: Replica;
  readonly clock: HybridClock;
  readonly siblings: Siblings;
  readonly maxValueBytes: number;
  readonly recentFramesBytes: number;
  readonly heldBackBytes: number;
  /** Says whether this node waits for the others' state (loading.ts). */
  readonly loading: () => boolean;
  /** These frames are handed to the replica now, or another node on the store has applied them. */
  readonly onHanded: (frames: readonly Frame[]) => void;
  /** Another node on the store has changed these keys. */
  readonly onFollowed: (keys: readonly ByteString[]) => void;
  /** What the store has by now should be read soon. */
  readonly onWaiting: () => void;
}

/** Bytes of frames that one merge takes. */
const MERGE_BYTES = 256 * 1024;

export class Intake {
  readonly #options: IntakeOptions;
  readonly delivery: CausalDelivery;
  readonly recent: RecentFrames;

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.delivery = new CausalDelivery(options.heldBackBytes, (stamp) => options.clock.isAhead(stamp));
    this.recent = new RecentFrames(options.recentFramesBytes);
  }

  /** Goes on from what the store says is applied. */
  restart(applied: Iterable<AppliedMark>): void {
    this.delivery.reset(applied);
  }

  /**
   * What the store has lost and memory still holds, this node's own frames and others', is applied again, before anyone is
   * asked: it may be nowhere else.
   */
  recover(): void {
    for (const [replica, number, bytes] of this.recent.all()) {
      if (number <= (this.delivery.marks.get(replica)?.number ?? 0)) continue;
      this.delivery.offer(decodeFrame(bytes, this.#options.maxValueBytes));
    }
  }

  /** Takes in a frame that the store has logged, and lost a part of; says whether there was room. */
  replay(frame: Frame): boolean {
    return frame.replica === this.#options.replica.id || this.delivery.offer(frame) !== 'dropped';
  }

  /** A frame of this node has been committed. */
  made({ replica, number, stamp, bytes }: LoggedFrame): void {
    this.recent.add(replica, number, bytes);
    this.delivery.raise([{ replica, number, stamp }]);
    this.drain();
  }

  /** Takes in a frame; says whether it was missing. */
  take(frame: Frame): boolean {
    const { replica, siblings } = this.#options;
    if (frame.replica === replica.id) return false;
    if (siblings.makes(frame.replica)) return this.#follow(frame);
    const outcome = this.delivery.offer(frame);
    if (outcome === 'known') return false;
    this.recent.add(frame.replica, frame.number, frame.bytes);
    this.drain();
    return outcome === 'held';
  }

  /** A frame of a sibling: the store has it. */
  #follow(frame: Frame): boolean {
    const { delivery } = this;
    const { replica, number, stamp } = frame;
    const next = (delivery.marks.get(replica)?.number ?? 0) + 1;
    this.recent.add(replica, number, frame.bytes);
    if (number < next) return false;
    this.#tell([frame]);
    // With one missing before it, the store says soon how far it is.
    if (number === next) delivery.raise([{ replica, number, stamp }]);
    else this.#options.onWaiting();
    this.drain();
    return true;
  }

  /** The store has these by now: another node on it has applied them. Says whether it is known which keys they have changed. */
  followed(news: readonly AppliedMark[]): boolean {
    let known = true;
    for (const { replica, number } of news) {
      const held = this.delivery.heldFrames(replica, 0, number);
      if (held.length < number - (this.delivery.marks.get(replica)?.number ?? 0)) known = false;
      this.#tell(held);
    }
    this.delivery.raise(news);
    this.drain();
    return known;
  }

  #tell(frames: readonly Frame[]): void {
    if (frames.length === 0) return;
    const keys = frames.flatMap((frame) => frame.deltas.map(keyOf));
    this.#options.replica.invalidate(keys);
    this.#options.onHanded(frames);
    this.#options.onFollowed(keys);
  }

  /**
   * An empty node that loads takes whole states first. Frames from others' logs may tell of keys whose deletion is no longer in any
   * log, and forgotten by those who give their state; besides, everything would come twice.
   */
  get awaitsState(): boolean {
    const { replica, loading } = this.#options;
    return loading() && [...replica.applied.keys()].every((id: ReplicaId) => id === replica.id);
  }

  /** Hands over what can be applied now, if this node is the one to apply it. */
  drain(): void {
    const { replica, siblings } = this.#options;
    if (siblings.leads && !this.awaitsState) {
      while (replica.available && replica.queuedRemote < MAX_QUEUED_MERGES) {
        const frames = this.delivery.take(MERGE_BYTES);
        if (frames.length === 0) break;
        this.#options.onHanded(frames);
        replica.merge({ frames, states: [], marks: [] });
      }
    }
    if (siblings.any && this.delivery.heldCount > 0) this.#options.onWaiting();
  }
}
