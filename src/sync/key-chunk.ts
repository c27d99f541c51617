/** Chunks of whole key states, as a state transfer sends them: [[touched, replicas, key, tag, body, …], …]. */
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyState } from '../../crdts/key-state.js';
import { readKeyState, writeKeyState } from '../../crdts/key-wire.js';
import { isStamp } from '../../crdts/stamp.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from '../replica/msgpack.js';

export function encodeKeyChunk(keys: readonly (readonly [ByteString, KeyState])[]): Uint8Array {
  return pack(
    keys.map(([key, state]) => {
      const writer = new WireWriter(state.touched);
      const tail: unknown[] = [];
      writeKeyState(state, writer, tail);
      return [state.touched, writer.replicas, writer.bytes(key), ...tail];
    }),
  );
}

/** Throws DecodeError on anything but a chunk of whole states. */
export function decodeKeyChunk(bytes: Uint8Array, maxValueBytes: number): [ByteString, KeyState][] {
  return asArray(unpack(bytes), 'key states').map((item) => {
    const wire = asArray(item, 'key state');
    const [touched, replicas] = wire;
    if (!isStamp(touched) || touched === 0) throw new DecodeError('a key state has no stamp');
    const reader = new WireReader(touched, replicas, maxValueBytes);
    const state = readKeyState(wire, 3, touched, reader);
    if (state.set !== null && !state.set.whole)
      throw new DecodeError('a key state holds only a part of its set');
    return [reader.bytes(wire[2]), state];
  });
}
