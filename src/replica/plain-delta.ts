/**
 * Deltas that only say that a frame SET a string, or deleted it. In a frame's bytes they stand as crdts/plain-delta.ts tells; here each is one
 * small object, that shares with the other writes of its frame who made them and when.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyState } from '../../crdts/key-state.js';
import { type Origin, type PlainDeltas, statesOfPlain } from '../../crdts/plain-delta.js';
import { UNLOADED } from '../../crdts/register.js';

/** A key's string was written or deleted, and nothing else. Immutable. */
export class PlainWrite {
  readonly key: ByteString;
  readonly origin: Origin;
  /** How far the write's own stamp is below the frame's: a small integer costs nothing to keep, a stamp would be an object. */
  readonly behind: number;
  /** null = deleted. */
  readonly value: ByteString | null;

  constructor(key: ByteString, origin: Origin, behind: number, value: ByteString | null) {
    this.key = key;
    this.origin = origin;
    this.behind = behind;
    this.value = value;
  }
}

/** What a frame says of one key. */
export type FrameDelta = PlainWrite | readonly [ByteString, KeyState];

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

/** What stands in a frame's bytes: plain writes as such, counts as key states. */
export function deltasOfPlain(plain: PlainDeltas): FrameDelta[] {
  const deltas: FrameDelta[] = [];
  const { origin } = plain;
  for (const delta of statesOfPlain(plain)) {
    const [key, { string }] = delta;
    const { register, counter } = string!;
    deltas.push(
      counter !== null || register.value === UNLOADED
        ? delta
        : new PlainWrite(key, origin, origin.stamp - register.stamp, register.value),
    );
  }
  return deltas;
}
