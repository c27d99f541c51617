/** What a document is made with, and what it reports. */
import type { ByteString } from './bytes.js';
import type { ReplicaId } from './dot.js';
import type { Rules } from './rules.js';

/** What createDocument needs (document.ts). */
export interface DocumentOptions {
  /**
   * Identity of this document: 1 to 64 printable ASCII characters without spaces. Never used by two documents, and not used
   * again after its state was lost or restored from an older snapshot: take a new one then.
   */
  readonly replica: ReplicaId;
  /** Gives the Unix time in milliseconds, such as `Date.now`. */
  readonly now: () => number;
  /** Called once for each key that an operation or a merge changed, afterwards. What it throws reaches the caller; the change stays. */
  readonly onChange?: (change: DocumentChange) => void;
  /** Where to start from: what a document's `snapshot()` gave. With the same `replica`, it goes on where that one was. */
  readonly snapshot?: unknown;
  /** Which keys hold what, and how their strings resolve. Give every document the same. Default: any type, last write wins. */
  readonly rules?: Rules;
  /** What resolvers see as the region of this document's writes. Default: the replica. */
  readonly region?: string;
  /** The longest key, value or member. Default: 8 MiB, as a node's. */
  readonly maxValueBytes?: number;
  /** How many deltas may be held back at most. Default: 1,024. */
  readonly maxHeld?: number;
  /** How far ahead of `now` a delta may be stamped; what is further ahead is held back. Default: 60,000 ms. */
  readonly maxDriftMs?: number;
}

/** A key whose state has changed. */
export interface DocumentChange {
  readonly key: ByteString;
  /** Who changed it: this document's own replica, another one's, or null when it came with a snapshot. */
  readonly replica: ReplicaId | null;
}

/** What became of a delta: merged now; merged or held before; held back until what it depends on is here. */
export type Merged = 'merged' | 'known' | 'held';
