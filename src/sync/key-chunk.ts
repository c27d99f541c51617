/** A key's state as a state transfer sends it: [touched, replicas, key, tag, body, …]. */
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyState } from '../../crdts/key-state.js';
import { readKeyState, writeKeyState } from '../../crdts/key-wire.js';
import { isStamp } from '../../crdts/stamp.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';

export function encodeState(key: ByteString, state: KeyState): unknown[] {
  const writer = new WireWriter(state.touched);
  const tail: unknown[] = [];
  writeKeyState(state, writer, tail);
  return [state.touched, writer.replicas, writer.bytes(key), ...tail];
}

/** Throws DecodeError on anything but a state. Its set may be a part: the caller must ask. */
export function decodeState(wire: unknown, maxValueBytes: number): [ByteString, KeyState] {
  const parts = asArray(wire, 'key state');
  const [touched, replicas] = parts;
  if (!isStamp(touched) || touched === 0) throw new DecodeError('a key state has no stamp');
  const reader = new WireReader(touched, replicas, maxValueBytes);
  return [reader.bytes(parts[2]), readKeyState(parts, 3, touched, reader)];
}
