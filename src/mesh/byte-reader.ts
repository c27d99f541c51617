/** Reads exact numbers of bytes from a stream of pieces, pulling no further than it must. */

/** A piece of a stream: a byte array, or a list of them. */
export interface Piece {
  subarray(): Uint8Array;
}

/** Pulls pieces from `source` as they are needed; what isn't pulled stays with the sender. */
export class ByteReader {
  readonly #source: AsyncIterator<Piece>;
  readonly #pieces: Uint8Array[] = [];
  #buffered = 0;

  constructor(source: AsyncIterable<Piece>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Reads `count` bytes into an array of their own; undefined when the source ended first. Throws as the source does. */
  async read(count: number): Promise<Uint8Array | undefined> {
    while (this.#buffered < count) if (!(await this.#pull())) return undefined;
    const bytes = new Uint8Array(count);
    for (let filled = 0; filled < count; ) {
      const piece = this.#pieces[0]!;
      const taken = Math.min(piece.byteLength, count - filled);
      bytes.set(piece.subarray(0, taken), filled);
      filled += taken;
      if (taken === piece.byteLength) this.#pieces.shift();
      else this.#pieces[0] = piece.subarray(taken);
    }
    this.#buffered -= count;
    return bytes;
  }

  /** Waits until the source ends, fails, or sends a byte more. */
  async rest(): Promise<'ended' | 'failed' | 'more'> {
    try {
      while (this.#buffered === 0) if (!(await this.#pull())) return 'ended';
      return 'more';
    } catch {
      return 'failed';
    }
  }

  async #pull(): Promise<boolean> {
    const step = await this.#source.next();
    if (step.done === true) return false;
    const bytes = step.value.subarray();
    if (bytes.byteLength > 0) {
      this.#pieces.push(bytes);
      this.#buffered += bytes.byteLength;
    }
    return true;
  }
}
