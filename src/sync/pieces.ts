/**
 * Pieces: long messages cut up, so that none is too long for the mesh. A frame may hold an 8 MiB value or ten of them, and
 * a key's state a set of any size.
 *
 * Each piece begins with a byte: 1 = the message goes on in the next piece, 0 = it ends here.
 */
import { DecodeError } from '../errors.js';

/** Bytes of a message in one piece. */
const PIECE_BYTES = 1024 * 1024;
/** The longest message. A store takes no longer commit. */
const MAX_MESSAGE_BYTES = 512 * 1024 * 1024;

/** Cuts messages into pieces. */
export async function* toPieces(messages: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const message of messages) {
    let start = 0;
    do {
      const end = Math.min(message.length, start + PIECE_BYTES);
      const piece = new Uint8Array(1 + end - start);
      piece[0] = Number(end < message.length);
      piece.set(message.subarray(start, end), 1);
      yield piece;
      start = end;
    } while (start < message.length);
  }
}

/** Puts messages together again. Throws DecodeError when a piece isn't one, the last one is missing, or a message is too long. */
export async function* fromPieces(
  pieces: AsyncIterable<Uint8Array>,
  maxBytes = MAX_MESSAGE_BYTES,
): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of pieces) {
    if (piece[0] !== 0 && piece[0] !== 1)
      throw new DecodeError('a piece of a message does not say whether it is the last');
    bytes += piece.length - 1;
    if (bytes > maxBytes) throw new DecodeError(`a message is longer than ${maxBytes} bytes`);
    parts.push(piece.subarray(1));
    if (piece[0] === 1) continue;
    yield parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    parts = [];
    bytes = 0;
  }
  if (parts.length > 0) throw new DecodeError('a message ends in the middle');
}
