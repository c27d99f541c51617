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
  const guard = new TreeGuard(bytes);
  while (guard.hasNext()) guard.pass();
  if (guard.at !== bytes.length) throw new DecodeError('bytes follow the value');
}

/** Walks over a tree's bytes, value by value. */
class TreeGuard {
  at = 0;
  /** Values still to come in the array that it is in. */
  #left = 1;
  readonly #bytes: Uint8Array;
  readonly #outer: number[] = [];

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Steps out of the arrays that end here; false at the end of the tree. */
  hasNext(): boolean {
    while (this.#left === 0) {
      const left = this.#outer.pop();
      if (left === undefined) return false;
      this.#left = left;
    }
    return true;
  }

  /** Passes one value, or into one array. */
  pass(): void {
    this.#left -= 1;
    const head = this.#number(1);
    if (head <= 0x7f || head >= 0xe0) return;
    if (head >= 0xa0 && head <= 0xbf) this.#skip(head & 0x1f);
    else if (head >= 0x90 && head <= 0x9f) this.#enter(head & 0x0f);
    else
      switch (head) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          break;
        case 0xc4:
        case 0xd9:
          this.#skip(this.#number(1));
          break;
        case 0xc5:
        case 0xda:
          this.#skip(this.#number(2));
          break;
        case 0xc6:
        case 0xdb:
          this.#skip(this.#number(4));
          break;
        case 0xcc:
        case 0xd0:
          this.#skip(1);
          break;
        case 0xcd:
        case 0xd1:
          this.#skip(2);
          break;
        case 0xca:
        case 0xce:
        case 0xd2:
          this.#skip(4);
          break;
        case 0xcb:
        case 0xcf:
        case 0xd3:
          this.#skip(8);
          break;
        case 0xdc:
          this.#enter(this.#number(2));
          break;
        case 0xdd:
          this.#enter(this.#number(4));
          break;
        default:
          throw new DecodeError(`a value of kind 0x${head.toString(16)} is not part of the protocol`);
      }
  }

  #skip(count: number): void {
    this.at += count;
    if (this.at > this.#bytes.length) throw new DecodeError('the bytes end in the middle of a value');
  }

  #number(length: number): number {
    const start = this.at;
    this.#skip(length);
    let value = 0;
    for (let i = start; i < this.at; i += 1) value = value * 256 + this.#bytes[i]!;
    return value;
  }

  #enter(count: number): void {
    if (count > this.#bytes.length - this.at) throw new DecodeError('an array is longer than its bytes');
    if (this.#outer.length >= MAX_DEPTH) throw new DecodeError('arrays are nested too deeply');
    this.#outer.push(this.#left);
    this.#left = count;
  }
}
