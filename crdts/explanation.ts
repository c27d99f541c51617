/** The form of explanations (explain.ts): plain JSON, stable enough for tools. */
import type { ReplicaId } from './dot.js';
import type { PartName, VisibleType } from './key-state.js';
import type { Stamp } from './stamp.js';

/**
 * Bytes for people: as text where they are UTF-8, else with `\xNN` for each byte that isn't printable ASCII. `cutFrom` is the
 * length in bytes of one that was too long to show.
 */
export type Readable =
  | { readonly text: string; readonly cutFrom?: number }
  | { readonly escaped: string; readonly cutFrom?: number }
  /** In the store, not in memory. */
  | { readonly unloaded: true };

/** One write: who, and when by its hybrid clock. */
export interface ExplainedDot {
  readonly replica: ReplicaId;
  readonly stamp: Stamp;
  /** The stamp's physical time, ISO 8601. */
  readonly time: string;
}

/** What one replica's increments add. Decimal strings, since they may exceed 2^53, or be fractions. */
export interface ExplainedCount {
  readonly replica: ReplicaId;
  /** When the replica began to count. */
  readonly since: ExplainedDot;
  readonly increments: string;
  readonly decrements: string;
  /** Increments minus decrements that some SET or DEL observed, and so cancelled. */
  readonly cancelled: string;
  /** What the replica adds to the value. */
  readonly counts: string;
}

/** The string of a key. */
export interface ExplainedString {
  readonly live: boolean;
  /** The visible string; null when there is none. */
  readonly value: Readable | null;
  /** The SET or DEL that won; null when there was none. */
  readonly winner:
    | (ExplainedDot & { readonly write: 'set' | 'delete'; readonly value: Readable | null })
    | null;
  /** Every replica that ever counted, cancelled or not, in the order of ids. */
  readonly counts: readonly ExplainedCount[];
  /** Sum of the counts. */
  readonly counted: string;
  /** False when there are counts, but the winning value is not a number: they are kept aside. */
  readonly countsApplied: boolean;
  readonly why: string;
}

/** The set of a key. */
export interface ExplainedSet {
  readonly live: boolean;
  readonly size: number;
  /** False when only some members are in memory. */
  readonly whole: boolean;
  /** Members with the adds that keep each one in, in the order of their bytes; at most `limit`. */
  readonly members: readonly { readonly member: Readable; readonly addedBy: readonly ExplainedDot[] }[];
  /** Members in memory that are not listed. */
  readonly more: number;
  /** For each replica, the last of its adds that was seen, still in force or not. */
  readonly seen: readonly ExplainedDot[];
  readonly why: string;
}

/** The writes of a key under a policy other than lww that nothing has replaced, in the order of (stamp, replica). */
export interface ExplainedValues {
  readonly live: boolean;
  readonly siblings: readonly (ExplainedDot & { readonly value: Readable; readonly region: string })[];
  readonly why: string;
}

/** A deadline, and who gave it. */
export interface ExplainedDeadline extends ExplainedDot {
  /** ISO 8601; null = explicitly none. */
  readonly deadline: string | null;
  readonly holds: boolean;
}

/** The expiry of a key. */
export interface ExplainedExpiry {
  /** The deadline that holds, ISO 8601; null = none. */
  readonly deadline: string | null;
  readonly expired: boolean;
  /** The deadlines that nothing has replaced yet. */
  readonly candidates: readonly ExplainedDeadline[];
  readonly why: string;
}

/** A key: what clients see of it, and all that it consists of. */
export interface ExplainedKey {
  /** What clients see. */
  readonly type: VisibleType;
  /** Live parts that the visible one hides, until the next DEL or SET, the latest first; empty in the usual case. */
  readonly hidden: readonly PartName[];
  readonly why: string;
  /** The last frame that was merged into the key; null when none was. */
  readonly touched: { readonly stamp: Stamp; readonly time: string } | null;
  readonly string: ExplainedString | null;
  readonly set: ExplainedSet | null;
  /** Concurrent writes under a policy other than lww. */
  readonly values: ExplainedValues | null;
  readonly expiry: ExplainedExpiry | null;
}
