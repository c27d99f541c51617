/**
 * The store port: where a node keeps its region's keys.
 *
 * A store knows nothing of CRDTs. For each key it holds an opaque *header*, opaque *entries* (element → bytes), and the
 * *native* value that any client of the store can read: a string, a set, an expiry. Besides, it holds the log of this
 * node's own frames, the applied vector, and a few facts about the node. One commit changes all of that in one atomic step.
 *
 * Three stores implement this port, `memory`, `valkey` and `valkey cluster`, and one compliance suite (test/support/store-compliance.ts) runs on all.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { Stamp } from '../../crdts/stamp.js';
import type { Inspection } from './inspection.js';

/** How far a replica's frames have been applied: its frame number, counted from 1 without gaps, and that frame's stamp. */
export interface AppliedMark {
  readonly replica: ReplicaId;
  readonly number: number;
  readonly stamp: Stamp;
}

/** What to load of one key. The header always comes. */
export interface LoadRequest {
  readonly key: ByteString;
  /** Load the native string value. Default: false. A key that is absent or not a native string gives null. */
  readonly value?: boolean;
  /** Which entries to load: the named elements, or every one. Default: none. */
  readonly elements?: readonly ByteString[] | 'all';
}

/** What one key holds. */
export interface LoadedKey {
  readonly header: ByteString | null;
  /** The native string; null when it wasn't asked for, is absent (Valkey may have expired it), or is of another type. */
  readonly value: ByteString | null;
  /** The asked-for entries that exist. */
  readonly entries: ReadonlyMap<ByteString, ByteString>;
}

/** What a commit does to the native value of a key. */
export type NativeWrite =
  /** Replace by a string, whatever it was. Clears a native expiry (`expireAtMs` is applied after it). */
  | { readonly kind: 'string'; readonly value: ByteString }
  /** Remove the native key. */
  | { readonly kind: 'delete' }
  /** Add to and remove from the native set; a native expiry stays. When nothing is left, the key is gone, as in Valkey. */
  | { readonly kind: 'set'; readonly add: readonly ByteString[]; readonly remove: readonly ByteString[] }
  /** Replace by the set of all elements that have an entry, after this commit's own entry changes. Clears a native expiry. */
  | { readonly kind: 'rebuild' };

/** What a commit does to one key. A key appears at most once in a commit. */
export interface KeyWrite {
  readonly key: ByteString;
  /** The header that must be there; null: none. Anything else stored fails the whole commit as stale. */
  readonly expected: ByteString | null;
  /** The header to store; null removes it (then remove the entries too). */
  readonly header: ByteString | null;
  /** Entries to remove before the changes below. Default: none. */
  readonly clearEntries?: boolean;
  /** Entries to store (bytes) or to remove (null). */
  readonly entries?: readonly (readonly [element: ByteString, entry: ByteString | null])[];
  /** What to do to the native value. Default: leave it as it is. */
  readonly native?: NativeWrite | undefined;
  /** Native expiry, applied after `native`: Unix milliseconds (a past time deletes), null = none. Default: leave it as it is. */
  readonly expireAtMs?: number | null;
  /** Added to the digest of the key's slot, modulo 2^48; an integer from 0 to 2^48-1. */
  readonly digest: number;
  /**
   * {@link Store.era} when `expected` was loaded, or stored by an earlier commit, whichever was called last: if it still is that era when the commit
   * takes effect, `expected` needn't be compared. Default: it is compared.
   */
  readonly era?: number;
  /** Whether `expected` is null, for those who make that only when it is asked for. Default: it is asked for. */
  readonly first?: boolean;
}

/** A frame as it is logged: the number is the previous one of that replica plus 1. */
export interface LoggedFrame {
  readonly replica: ReplicaId;
  readonly number: number;
  readonly stamp: Stamp;
  readonly bytes: Uint8Array;
}

/** A mark to raise. */
export interface RaisedMark extends AppliedMark {
  /**
   * The number that must stand there (0 = none): any other makes the whole commit stale, since another node on the same store has applied
   * those frames meanwhile. Default: whatever stands there, and a mark that isn't above it is ignored.
   */
  readonly after?: number;
}

/** One atomic change. */
export interface Commit {
  readonly writes: readonly KeyWrite[];
  /** This node's own frame, appended to its log; raises the applied vector to it too. */
  readonly frame?: LoggedFrame;
  /** Raises the applied vector. */
  readonly applied?: readonly RaisedMark[];
}

/** What became of a commit that took effect. */
export interface CommitResult {
  /** Another node's commit failed because of one of this store: that node should be let go first for a moment. */
  readonly crowded: boolean;
}

/** Who a node was when it last used the store. */
export interface StoredIdentity {
  /** The node's PeerId, as text. */
  readonly peerId: string;
  /** Its current replica id, `<hash>.<epoch>`. */
  readonly replica: ReplicaId;
  /** The epoch in which it began to use these data; null = an earlier release stored it elsewhere. */
  readonly born: number | null;
  /** True when it was shut down cleanly, wrote nothing after that, and the store is certainly not an older copy. */
  readonly clean: boolean;
}

/** How the data went that were here before. */
export interface DroppedData {
  /** Their name; see {@link StoreFacts.dataset}. */
  readonly dataset: string;
  /** Why. */
  readonly reason: DropReason;
}

/** 'forgotten': their nodes were forgotten by the others; 'outdated': the others have forgotten what was deleted of them. */
export type DropReason = 'forgotten' | 'outdated';

/** What a store knows. */
export interface StoreFacts {
  /** The nodes that use it, or have used it, until they are retired. */
  readonly identities: readonly StoredIdentity[];
  readonly applied: readonly AppliedMark[];
  /**
   * Replicas of which the logs hold frames that aren't, or not all of them wholly, applied: a store of several servers has lost the end of
   * one. Told by open(); they are to be merged once more. Default: none.
   */
  readonly unapplied?: readonly ReplicaId[];
  /** What {@link Store.saveNotes} stored last; null = nothing. */
  readonly notes: ByteString | null;
  /** Random name of these data; a copy of them has the same. */
  readonly dataset: string;
  /** Names these data at the place where they are, in at most 64 printable characters: equal for two nodes when they use one store. Empty: it can't be told. */
  readonly place: string;
  /** What {@link Store.clear} removed here last; null = nothing. */
  readonly dropped: DroppedData | null;
  /** Server, version and the like, for status and logs. */
  readonly server: Readonly<Record<string, string | number>>;
}

/** Said by a native read of a key that holds another type. */
export const WRONG_TYPE: unique symbol = Symbol('wrong type');
export type WrongType = typeof WRONG_TYPE;

export type NativeType = 'none' | 'string' | 'set';

export interface ScanOptions {
  /** Valkey's glob pattern. Default: all keys. */
  readonly match?: ByteString;
  /** Roughly how many keys to look at. Default: 10. */
  readonly count?: number;
  readonly type?: Exclude<NativeType, 'none'>;
}

/** Reads of native values, as any client of the store sees them: committed and unexpired data, no reserved keys. */
export interface NativeReads {
  /** Strings by key; null = absent. */
  strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]>;
  /** Length of a string in bytes; 0 = absent. */
  stringLength(key: ByteString): Promise<number | WrongType>;
  /** All members of a set, in no order; empty = absent. */
  members(key: ByteString): Promise<ByteString[] | WrongType>;
  /** For each member, whether the set has it. */
  contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType>;
  /** Size of a set; 0 = absent. */
  cardinality(key: ByteString): Promise<number | WrongType>;
  /** As SRANDMEMBER key count: positive = that many distinct members at most, negative = |count| members with repeats. */
  randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType>;
  types(keys: readonly ByteString[]): Promise<NativeType[]>;
  /** Expiry by key, Unix milliseconds; null = no expiry, undefined = no such key. */
  deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]>;
  /** As SCAN: start with cursor '0' and go on until it is '0' again. */
  scan(cursor: string, options?: ScanOptions): Promise<{ cursor: string; keys: ByteString[] }>;
  /** Number of keys, reserved ones left out. */
  count(): Promise<number>;
}

/**
 * The port. Calls may overlap.
 *
 * - A commit is all or nothing. Commits take effect in the order of the calls; when one fails, those that were called
 *   after it and before its failure was reported fail too, with {@link StaleCommitError}, and write nothing.
 * - A commit takes effect once, however often a connection breaks while it is under way.
 * - A load or read that is called after a commit was *called* sees that commit, if it succeeds.
 *
 * Rejections: StaleCommitError (expected header or frame number differs), StoreRefusedError (the store said no: nothing
 * written), StoreUnavailableError (no answer within the store's time limit: outcome unknown; the next call on the store
 * settles it one way or the other before anything else), StoreResetError (the store lost data: open it again).
 */
export interface Store extends NativeReads, Inspection {
  /**
   * Names a time in which no other store has changed these data, as far as this one knows; another number is another time. The store
   * itself finds out, with each commit, whether it has ended. Default: none ever begins.
   */
  readonly era?: number;
  /** Says that a key certainly has no header in the current era. False when it has one, or when that isn't known. Default: it is never known. */
  isAbsent?(key: ByteString): boolean;
  /** Connects and reads the facts. Called once before anything else, and again after a StoreResetError. */
  open(): Promise<StoreFacts>;
  /**
   * Reads the facts again: other nodes may use the same store. One small read. Rejects with StoreResetError when data are lost that
   * were acknowledged to this store, or the node of the identity that it stored is retired.
   */
  refresh(): Promise<StoreFacts>;
  /** Stores who this node is, beside others that use the store; `clean: false` while it runs. Atomic, and a sign of life. */
  saveIdentity(identity: StoredIdentity): Promise<void>;
  /**
   * Removes the identity of another node, and takes from it the right to commit: its store rejects with StoreResetError until it is
   * opened again. Gives false, and does nothing, when that one has committed or given a sign of life within `silentMs`.
   */
  retire(peerId: string, silentMs: number): Promise<boolean>;
  /** Loads keys; answers stand in the order of the requests. */
  load(requests: readonly LoadRequest[]): Promise<LoadedKey[]>;
  commit(commit: Commit): Promise<CommitResult>;

  /** Frames of a logged replica from a number on, in order, up to about `maxBytes` (at least one if there is one). A trimmed or unknown range gives what is left. */
  readFrames(replica: ReplicaId, fromNumber: number, maxBytes: number): Promise<LoggedFrame[]>;
  /** Drops logged frames up to and including a number. */
  trimLog(replica: ReplicaId, throughNumber: number): Promise<void>;

  /** Digests of the slots that hold any header: slot number (0–16383) → digest (0 … 2^48-1). */
  digests(): Promise<Map<number, number>>;
  /**
   * Keys of slots with their headers, a list for each slot, in their order. It ends early, but not before the first one, when the lists
   * hold about `maxBytes`: go on with the slots that are left. Each slot is read in one atomic step.
   */
  headers(slots: readonly number[], maxBytes: number): Promise<[key: ByteString, header: ByteString][][]>;

  /**
   * Stores what the nodes want to remember besides, as opaque bytes ({@link StoreFacts.notes}), if `expected` stands there (null =
   * nothing). Gives what stands there then: something else than `notes` when another node was faster. Atomic.
   */
  saveNotes(notes: ByteString, expected: ByteString | null): Promise<ByteString | null>;
  /**
   * Removes every key that has a header, native value included, the logs, the applied vector, the identities and the notes. Native
   * keys without a header stay. Nothing can be committed any more when this resolves: calls reject with StoreResetError until open(),
   * on every store with these data; open() finishes the removal before it gives its facts, also after a crash. It rejects with
   * StoreResetError, and removes nothing, when the data are no longer those that were opened.
   */
  clear(reason: DropReason): Promise<void>;

  /** What it is connected with now, and what is wrong with that: a few facts for status. Default: those of open(). */
  describe?(): Readonly<Record<string, string | number>>;
  /** Says whether the store answers now; for health checks. Never rejects. */
  ping(): Promise<boolean>;
  /** Closes connections. Calls after it reject with StoppedError. */
  close(): Promise<void>;
}
