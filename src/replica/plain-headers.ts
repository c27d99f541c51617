/**
 * Headers of keys that hold a plain string and nothing else, or held one: most keys. The bytes are those that key-record.ts would
 * pack, but the keys of one batch share all but the end of theirs, so it is packed once.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import type { Stamp } from '../../crdts/stamp.js';
import { packBytes } from './msgpack.js';

export class PlainHeaders {
  readonly #tag: number;
  readonly #deleted: number;
  readonly #native: number;
  readonly #buffer = Buffer.alloc(128);
  #touched: Stamp = -1;
  #replica: ReplicaId = '';
  /** Length of what is shared. */
  #shared = 0;

  /** @param tag the string's in a header; @param deleted, native where a value stands */
  constructor(tag: number, deleted: number, native: number) {
    this.#tag = tag;
    this.#deleted = deleted;
    this.#native = native;
  }

  /** The header; null when the state holds more than a plain string. */
  encode({ touched, string, set, values, expiry }: KeyState): ByteString | null {
    if (string === null || set !== null || values !== null || expiry !== null || string.counter !== null)
      return null;
    const { stamp, replica, value } = string.register;
    const distance = touched - stamp;
    if (stamp === 0 || distance < 0 || distance >= 0x10000) return null;
    if (touched !== this.#touched || replica !== this.#replica) this.#share(touched, replica);
    const buffer = this.#buffer;
    let at = this.#shared;
    if (distance < 0x80) buffer[at++] = distance;
    else if (distance < 0x100) {
      buffer[at++] = 0xcc;
      buffer[at++] = distance;
    } else {
      buffer[at++] = 0xcd;
      buffer[at++] = distance >> 8;
      buffer[at++] = distance & 0xff;
    }
    buffer[at++] = 0; // the only replica of the table
    buffer[at++] = value === null ? this.#deleted : this.#native;
    return buffer.toString('latin1', 0, at) as ByteString;
  }

  #share(touched: Stamp, replica: ReplicaId): void {
    this.#touched = touched;
    this.#replica = replica;
    const whole = packBytes([touched, [replica], this.#tag, [0, 0, 0]]);
    this.#shared = whole.length - 3;
    this.#buffer.write(whole, 0, this.#shared, 'latin1');
  }
}
