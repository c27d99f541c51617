/**
 * msgpack for everything that leaves the process: msgpackr, with a guard in front of its decoder.
 *
 * A decoder that meets "an array of thirty million items follows" allocates them before it sees that the bytes end there. The
 * guard walks the bytes once, without allocating, and lets through only what our forms are made of: arrays, integers,
 * floats that hold large integers, strings, byte arrays, null, booleans; no array longer than its bytes, no deep nesting.
 */
import { Packr } from 'msgpackr';
import type { ByteString } from '../../crdts/bytes.js';
import { DecodeError } from '../errors.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });

const MAX_DEPTH = 12;

/** Encodes a tree of arrays, numbers, strings, byte arrays and nulls. The result is the caller's own. */
export function pack(tree: unknown): Buffer {
  return packr.pack(tree);
}

/** Decodes one tree. Throws DecodeError on anything that isn't exactly one tree of the allowed kinds. */
export function unpack(bytes: Uint8Array): unknown {
  checkTree(bytes);
  try {
    return packr.unpack(bytes);
  } catch (cause) {
    throw new DecodeError('bytes are not msgpack', { cause });
  }
}

/** Encodes a tree into bytes for the store. */
export function packBytes(tree: unknown): ByteString {
  return packr.pack(tree).toString('latin1') as ByteString;
}

/** Decodes what the store kept. */
export function unpackBytes(bytes: ByteString): unknown {
  return unpack(Buffer.from(bytes, 'latin1'));
}

/** Throws DecodeError unless the bytes are one msgpack value of the allowed kinds, and nothing follows it. */
function checkTree(bytes: Uint8Array): void {
  const end = bytes.length;
  const pending: number[] = [];
  let left = 1;
  let at = 0;
  const need = (count: number): number => {
    if (at + count > end) throw new DecodeError('the bytes end in the middle of a value');
    let value = 0;
    for (let i = 0; i < count; i += 1) value = value * 256 + bytes[at + i]!;
    at += count;
    return value;
  };
  const skip = (count: number): void => {
    at += count;
    if (at > end) throw new DecodeError('the bytes end in the middle of a value');
  };
  const enter = (count: number): void => {
    if (count > end - at) throw new DecodeError('an array is longer than its bytes');
    if (pending.length >= MAX_DEPTH) throw new DecodeError('arrays are nested too deeply');
    pending.push(left);
    left = count;
  };
  for (;;) {
    while (left === 0) {
      const outer = pending.pop();
      if (outer === undefined) {
        if (at !== end) throw new DecodeError('bytes follow the value');
        return;
      }
      left = outer;
    }
    left -= 1;
    if (at >= end) throw new DecodeError('the bytes end in the middle of a value');
    const head = bytes[at]!;
    at += 1;
    if (head <= 0x7f || head >= 0xe0) continue;
    if (head >= 0xa0 && head <= 0xbf) skip(head & 0x1f);
    else if (head >= 0x90 && head <= 0x9f) enter(head & 0x0f);
    else
      switch (head) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          break;
        case 0xc4:
        case 0xd9:
          skip(need(1));
          break;
        case 0xc5:
        case 0xda:
          skip(need(2));
          break;
        case 0xc6:
        case 0xdb:
          skip(need(4));
          break;
        case 0xcc:
          skip(1);
          break;
        case 0xcd:
          skip(2);
          break;
        case 0xca:
        case 0xce:
          skip(4);
          break;
        case 0xcb:
        case 0xcf:
        case 0xd3:
          skip(8);
          break;
        case 0xd0:
          skip(1);
          break;
        case 0xd1:
          skip(2);
          break;
        case 0xd2:
          skip(4);
          break;
        case 0xdc:
          enter(need(2));
          break;
        case 0xdd:
          enter(need(4));
          break;
        default:
          throw new DecodeError(`a value of kind 0x${head.toString(16)} is not part of the protocol`);
      }
  }
}
