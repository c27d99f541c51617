/** Scans over the entries of a memory store: paged, while they are written to. */
import type { ByteString } from '../../crdts/bytes.js';
import { StoreRefusedError } from '../errors.js';

type Entries = ReadonlyMap<ByteString, ByteString>;

/** Scans that may be open; beyond, the oldest one is dropped. */
const MOST_SCANS = 256;

/**
 * Open scans by cursor. A Map's iterator keeps its place whatever is added or removed: what was there all along comes, and once. Where all
 * entries were cleared meanwhile, and perhaps stored again by the same commit, the scan begins again with those that are there now.
 */
export class MemoryScans {
  readonly #open = new Map<
    string,
    { readonly entries: Entries; readonly rest: Iterator<[ByteString, ByteString]> }
  >();
  #last = 0;

  /** The next page. Throws StoreRefusedError when the cursor is not one that was given last. */
  page(
    entries: Entries | undefined,
    cursor: string,
    count: number,
  ): { cursor: string; entries: Map<ByteString, ByteString> } {
    const page = new Map<ByteString, ByteString>();
    const begun = this.#open.get(cursor);
    this.#open.delete(cursor);
    if (begun === undefined && cursor !== '0') throw new StoreRefusedError('ERR invalid cursor');
    if (entries === undefined) return { cursor: '0', entries: page };
    const scan = begun?.entries === entries ? begun : { entries, rest: entries.entries() };
    while (page.size < count) {
      const step = scan.rest.next();
      if (step.done === true) return { cursor: '0', entries: page };
      page.set(...step.value);
    }
    this.#last += 1;
    const next = String(this.#last);
    this.#open.set(next, scan);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= MOST_SCANS) break;
      this.#open.delete(oldest);
    }
    return { cursor: next, entries: page };
  }
}
