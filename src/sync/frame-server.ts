/** Serves frames for repair: from the recent ones in memory, of any replica, and from this node's own logs. */
import { LimitError } from '../errors.js';
import type { RecentFrames } from '../replica/recent-frames.js';
import type { Store } from '../store/store.js';
import { encodeFrameChunk, type FramesRequest } from './messages.js';

/** Bytes of frames in one chunk, about. */
const CHUNK_BYTES = 256 * 1024;
/** Frames that one request may ask for. */
const MAX_FRAMES = 100_000;

/** Gives the asked-for frames in order, from the first on as far as they are there without a hole. */
export async function* serveFrames(
  request: FramesRequest,
  recent: RecentFrames,
  store: Store,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const { replica, to } = request;
  let next = request.from;
  if (to - next >= MAX_FRAMES) throw new LimitError(`more than ${MAX_FRAMES} frames in one request`);
  while (next <= to && !signal.aborted) {
    const chunk: Uint8Array[] = [];
    let bytes = 0;
    for (; next <= to && bytes < CHUNK_BYTES; next += 1) {
      const frame = recent.get(replica, next);
      if (frame === undefined) break;
      chunk.push(frame);
      bytes += frame.length;
    }
    if (chunk.length === 0) {
      for (const frame of await store.readFrames(replica, next, CHUNK_BYTES)) {
        if (frame.number !== next || next > to) break;
        chunk.push(frame.bytes);
        next += 1;
      }
    }
    if (chunk.length === 0) return;
    yield encodeFrameChunk(chunk);
  }
}
