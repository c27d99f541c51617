/** The deltas of a batch, one per key, joined as they come: what the batch's frame will say. */
import type { ByteString } from '../../crdts/bytes.js';
import { expiryType } from '../../crdts/expiry.js';
import type { KeyState } from '../../crdts/key-state.js';
import { setType } from '../../crdts/or-set.js';
import { stringType } from '../../crdts/string-key.js';

export type KeyDeltas = Map<ByteString, KeyState>;

/**
 * Joins a delta into a batch's. Unlike a state, a delta that lacks a sub-state says nothing about it, so a first one is
 * taken as it is. Right only for deltas that were made one after the other with nothing merged in between (crdts/or-set.ts).
 */
export function joinDelta(deltas: KeyDeltas, key: ByteString, delta: KeyState): void {
  const into = deltas.get(key);
  if (into === undefined) {
    deltas.set(key, delta);
    return;
  }
  if (into.string === null) into.string = delta.string;
  else if (delta.string !== null) stringType.merge(into.string, delta.string);
  if (into.set === null) into.set = delta.set;
  else if (delta.set !== null) setType.merge(into.set, delta.set);
  if (into.expiry === null) into.expiry = delta.expiry;
  else if (delta.expiry !== null) expiryType.merge(into.expiry, delta.expiry);
}
