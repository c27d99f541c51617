/**
 * Touched keys: which keys were changed, since a comparison began, by frames that the giver had applied before it?
 *
 * A key that compared equal isn't transferred. Should such a frame then add to it what another one removes, and the marks cover both,
 * then the remove would never come. So those keys are compared again before the marks are raised. Frames that the marks don't cover do
 * no harm: what they did not bring here will still come.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { type Frame, keyOf } from '../replica/frame.js';
import type { AppliedMark } from '../store/store.js';

export class TouchedKeys {
  #marks: ReadonlyMap<ReplicaId, number> | null = null;
  #keys = new Set<ByteString>();

  /** Starts over, for these marks of the giver. */
  watch(marks: readonly AppliedMark[]): void {
    this.#marks = new Map(marks.map(({ replica, number }) => [replica, number]));
    this.#keys = new Set();
  }

  stop(): void {
    this.#marks = null;
    this.#keys = new Set();
  }

  /** Frames are about to be merged. */
  note(frames: readonly Frame[]): void {
    if (this.#marks === null) return;
    for (const frame of frames) {
      if (frame.number > (this.#marks.get(frame.replica) ?? 0)) continue;
      for (const delta of frame.deltas) this.#keys.add(keyOf(delta));
    }
  }

  get keys(): ReadonlySet<ByteString> {
    return this.#keys;
  }
}
