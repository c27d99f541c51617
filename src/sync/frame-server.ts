/**
 * Serves frames for repair: from the recent ones in memory, of any replica, from this node's own logs, and from what is held
 * back here. That may be the only copy, behind a hole that this node can't fill itself.
 */
import { LimitError } from '../errors.js';
import type { CausalDelivery } from '../replica/causal-delivery.js';
import type { RecentFrames } from '../replica/recent-frames.js';
import type { Store } from '../store/store.js';
import { encodeFrameChunk, type FramesRequest } from './messages.js';

/** Bytes of frames in one chunk, about. */
const CHUNK_BYTES = 256 * 1024;
/** Frames that one request may ask for. */
const MAX_FRAMES = 100_000;

/** Gives the asked-for frames in order: from the first on as far as they are there without a hole, then those that are held back. */
export async function* serveFrames(
  request: FramesRequest,
  recent: RecentFrames,
  delivery: CausalDelivery,
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
    if (chunk.length === 0) break;
    yield encodeFrameChunk(chunk);
  }
  let chunk: Uint8Array[] = [];
  let bytes = 0;
  for (const frame of delivery.heldFrames(replica, next, to)) {
    if (signal.aborted) return;
    chunk.push(frame.bytes);
    bytes += frame.bytes.length;
    if (bytes < CHUNK_BYTES) continue;
    yield encodeFrameChunk(chunk);
    [chunk, bytes] = [[], 0];
  }
  if (chunk.length > 0) yield encodeFrameChunk(chunk);
}
