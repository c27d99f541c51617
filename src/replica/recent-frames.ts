/** Recent frames in memory, of every replica, so that any peer can fill another's gap. The oldest go first. */
import type { ReplicaId } from '../../crdts/dot.js';

export class RecentFrames {
  readonly #frames = new Map<string, Uint8Array>();
  readonly #maxBytes: number;
  #bytes = 0;

  /** @param maxBytes bound of the frames' bytes */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Keeps a frame; one that is there already stays. */
  add(replica: ReplicaId, number: number, bytes: Uint8Array): void {
    const name = `${replica} ${number}`;
    if (this.#frames.has(name)) return;
    // A small part of a large message would keep all of it in memory.
    const own = bytes.buffer.byteLength > 2 * bytes.length + 4096 ? bytes.slice() : bytes;
    this.#frames.set(name, own);
    this.#bytes += bytes.length;
    for (const [oldest, gone] of this.#frames) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#frames.delete(oldest);
      this.#bytes -= gone.length;
    }
  }

  /** All frames, those first that came first. */
  *all(): Generator<readonly [replica: ReplicaId, number: number, bytes: Uint8Array]> {
    for (const [name, bytes] of this.#frames) {
      const space = name.indexOf(' ');
      yield [name.slice(0, space), Number(name.slice(space + 1)), bytes];
    }
  }

  /** Forgets the frames of all replicas but one; null: of all. */
  keepOnly(replica: ReplicaId | null): void {
    for (const [name, bytes] of this.#frames) {
      if (replica !== null && name.startsWith(`${replica} `)) continue;
      this.#frames.delete(name);
      this.#bytes -= bytes.length;
    }
  }

  get(replica: ReplicaId, number: number): Uint8Array | undefined {
    return this.#frames.get(`${replica} ${number}`);
  }
}
