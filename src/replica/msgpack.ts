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

/** Heads from 0xc0 to 0xdd: how many bytes of a value follow, or with a minus, how many that say a length. NaN: not ours. */
const FOLLOWING: readonly number[] = Object.assign(new Array<number>(30).fill(Number.NaN), {
  0: 0, // null
  2: 0, // false
  3: 0, // true
  4: -1, // byte arrays
  5: -2,
  6: -4,
  10: 4, // floats
  11: 8,
  12: 1, // integers from 0 up
  13: 2,
  14: 4,
  15: 8,
  16: 1, // integers
  17: 2,
  18: 4,
  19: 8,
  25: -1, // strings
  26: -2,
  27: -4,
  28: -2, // arrays
  29: -4,
});

/** Values still to come in the arrays around the one that the guard is in. */
const outer: number[] = new Array<number>(MAX_DEPTH).fill(0);

/** Throws DecodeError unless the bytes are one msgpack value of the allowed kinds, and nothing follows it. One loop: it is on the way of every byte. */
function checkTree(bytes: Uint8Array): void {
  const end = bytes.length;
  let at = 0;
  let left = 1;
  let depth = 0;
  while (left > 0) {
    if (at >= end) throw tooShort();
    left -= 1;
    const head = bytes[at]!;
    at += 1;
    let entered = -1;
    if (head >= 0xa0 && head <= 0xbf) at += head & 0x1f;
    else if (head >= 0x90 && head <= 0x9f) entered = head & 0x0f;
    else if (head > 0x7f && head < 0xe0) {
      const following = FOLLOWING[head - 0xc0] ?? Number.NaN;
      if (following >= 0) at += following;
      else if (following < 0) {
        const start = at - following;
        if (start > end) throw tooShort();
        let length = 0;
        for (; at < start; at += 1) length = length * 256 + bytes[at]!;
        if (head >= 0xdc) entered = length;
        else at += length;
      } else throw new DecodeError(`a value of kind 0x${head.toString(16)} is not part of the protocol`);
    }
    if (entered >= 0) {
      if (entered > end - at) throw new DecodeError('an array is longer than its bytes');
      if (depth === MAX_DEPTH) throw new DecodeError('arrays are nested too deeply');
      outer[depth] = left;
      depth += 1;
      left = entered;
    }
    while (left === 0 && depth > 0) {
      depth -= 1;
      left = outer[depth]!;
    }
  }
  if (at > end) throw tooShort();
  if (at < end) throw new DecodeError('bytes follow the value');
}

function tooShort(): DecodeError {
  return new DecodeError('the bytes end in the middle of a value');
}
