/**
 * A plain write: a key's state, or its delta, where all there is to say is that one frame SET a string, or deleted it.
 *
 * Most keys are that and nothing else, and there may be millions of them. A key state (key-state.ts) is several objects; this is
 * one small one, that shares with the other writes of its frame who made them and when. It means what {@link keyStateOf} gives.
 */
import type { ByteString } from './bytes.js';
import type { ReplicaId } from './dot.js';
import type { KeyState } from './key-state.js';
import { MAX_STAMP, type Stamp } from './stamp.js';

/** The frame that carried a write. */
export interface WriteOrigin {
  readonly replica: ReplicaId;
  /** The frame's stamp: the key's `touched`. */
  readonly stamp: Stamp;
}

/** A key whose string was written or deleted, and nothing else. Immutable. */
export class PlainWrite {
  /**
   * A write of nothing. V8 forgets the shape of a class that has no instances, and drops the code that was optimized for it: who made
   * one document after the other would be slow again with each. Its stamp is large as all others are: a small one has another shape.
   */
  static readonly none = new PlainWrite('' as ByteString, { replica: '', stamp: MAX_STAMP }, 0, null);
  readonly key: ByteString;
  /** Shared by all writes of a frame. */
  readonly origin: WriteOrigin;
  /** How far the write's own stamp is below the frame's. A small integer costs nothing to keep; a stamp would be an object. */
  readonly behind: number;
  /** null = deleted. */
  readonly value: ByteString | null;

  constructor(key: ByteString, origin: WriteOrigin, behind: number, value: ByteString | null) {
    this.key = key;
    this.origin = origin;
    this.behind = behind;
    this.value = value;
  }
}

/** Says whether joining a write into another one gives just this write. False = perhaps: join their key states. */
export function replacesWrite(write: PlainWrite, other: PlainWrite): boolean {
  const [mine, theirs] = [write.origin, other.origin];
  return mine.stamp >= theirs.stamp && mine.stamp - write.behind > theirs.stamp - other.behind;
}

/** The key state that a write stands for: a new one on each call. */
export function keyStateOf({ origin, behind, value }: PlainWrite): KeyState {
  const register = { stamp: origin.stamp - behind, replica: origin.replica, value };
  return {
    touched: origin.stamp,
    string: { register, counter: null },
    set: null,
    values: null,
    expiry: null,
  };
}
