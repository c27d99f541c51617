/** Set scans: a big set's entries page by page, so that it is never in memory as a whole. */
import type { ByteString } from '../../crdts/bytes.js';
import type { Dots } from '../../crdts/or-set.js';
import { decodeEntry } from '../replica/key-record.js';
import type { Store } from '../store/store.js';
import { BucketDigests } from './member-buckets.js';

/** Members per page, about. */
const PAGE_MEMBERS = 1000;

/** What decides how a set travels. */
export interface BigSets {
  /** Sets of at least so many members are compared by buckets and sent in pages. */
  readonly bigSetMembers: number;
}

/** Default of {@link BigSets.bigSetMembers}: below it, the digests of the buckets would cost more than the set. */
export const BIG_SET_MEMBERS = 1024;

/**
 * Gives a set's members with their dots. Members that were there from the first page to the last come at least once; each as it is when
 * its page is read.
 */
export async function* scanSet(
  store: Store,
  key: ByteString,
  { bigSetMembers }: BigSets,
): AsyncGenerator<[ByteString, Dots][]> {
  let cursor = '0';
  do {
    const page = await store.scanEntries(key, cursor, Math.min(PAGE_MEMBERS, bigSetMembers));
    yield [...page.entries].map(([member, entry]) => [member, decodeEntry(entry)]);
    cursor = page.cursor;
  } while (cursor !== '0');
}

/** Digests of a set's buckets. Should it change meanwhile, then each member's as it was at some moment of the scan. */
export async function scanDigests(store: Store, key: ByteString, big: BigSets): Promise<BucketDigests> {
  const digests = new BucketDigests(key);
  // A page may come again while the server rehashes.
  for await (const page of scanSet(store, key, big))
    for (const [member, dots] of page) digests.add(member, dots);
  return digests;
}
