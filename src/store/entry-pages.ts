/**
 * Entry pages: how the entries of a big set lie in Valkey.
 *
 * A hash of up to 512 short fields is a *listpack*, packed bytes, and costs few of them beyond what it holds; a larger one is a hash table,
 * which costs about 65 bytes more for each field. So the entries of a set beyond {@link MOST_IN_ONE_HASH} are spread over *pages*, small hashes
 * beside each other, and where the one hash was stands the *directory*, a string: how many pages there are, how many entries in them, and how many
 * pages are missing because they have none. Its type tells a big set from a small one.
 *
 * Which page an entry is in is told by **linear hashing** (Litwin, 1980). Of n pages and a hash h of the element, with L = the greatest power
 * of two up to n, it is page h mod 2L if there is such a page, else h mod L. To have one page more, one page is *split*: number n - L gives
 * page n what belongs there now. So a set grows by as many pages as its new entries need, and a commit's work follows from what it adds. Pages never
 * become fewer, until the last entry goes; entries only ever move to a page with a higher number, which is why a scan finds them all.
 *
 * The hash is a property of the element alone, and stands before each entry in a page, so that a split needn't compute it again. Nodes send it
 * along; the scripts look up the directory, so nodes that share a store needn't know what the others have split. It is no secret:
 * whoever picks members that hash alike makes one page as large as they like. Such a page is not split any more, and so no other either: the set
 * works as before, and further entries cost what they would cost in one hash. The same goes for the hashes of big sets that earlier releases wrote.
 */
import type { ByteString } from '../../crdts/bytes.js';

/** So many entries stand in one hash; what is beyond goes into pages. */
export const MOST_IN_ONE_HASH = 512;

/**
 * Entries per page, on average; a page that is next to be split has up to twice as many, and neighbours keep together, so some have 300. A listpack
 * is searched from its beginning, so more of them cost time, about 0.01 µs each; fewer cost memory: a page has a name, about 100 bytes in all.
 */
export const ENTRIES_PER_PAGE = 64;

/** A page, or a hash that is to become pages, is read as a whole; one with more entries is left as it is. */
export const MOST_MOVED = 1024;

/** Bytes of the hash before each entry in a page. */
export const HASH_BYTES = 3;

/** What makes the hash. Stored data is placed by it, so none of it must ever change. First the greatest prime below 2^24: all sums stay exact, in 32 bits here and in Lua's doubles. */
const PRIME = 16_777_213;
const FACTOR = 227;
/** Spreads what is left in the low bits of the sum over all of them. */
const SPREAD = 7_199_369;
/** Longer elements than two of these, which no listpack holds, are told by so many bytes at either end and by their length. */
const END = 32;

/** What makes the hash, for the scripts. */
export const HASH = { prime: PRIME, factor: FACTOR, spread: SPREAD, end: END } as const;

/**
 * The hash of an element, below 2^24. The scripts have the same function (entry-scripts.ts). The last four bits of an element don't count, so
 * that neighbours, such as the ten numbers that differ in the last digit, share a page, and what is added in order costs one call for many.
 */
export function entryHash(element: ByteString): number {
  const { length } = element;
  let hash = length % PRIME;
  if (length === 0) return hash;
  const last = length - 1;
  const first = length > 2 * END ? END : last;
  for (let i = 0; i < first; i += 1) hash = ((hash * FACTOR + element.charCodeAt(i)) >>> 0) % PRIME;
  for (let i = Math.max(first, length - END); i < last; i += 1)
    hash = ((hash * FACTOR + element.charCodeAt(i)) >>> 0) % PRIME;
  hash = ((hash * FACTOR + (element.charCodeAt(last) >>> 4)) >>> 0) % PRIME;
  return (hash * SPREAD) % PRIME;
}

/** The hashes of elements one after the other, {@link HASH_BYTES} bytes each. */
export function entryHashes(elements: Iterable<ByteString>): ByteString {
  let hashes = '';
  for (const element of elements) {
    const hash = entryHash(element);
    hashes += String.fromCharCode(hash >>> 16, (hash >>> 8) & 255, hash & 255);
  }
  return hashes as ByteString;
}
