/**
 * What the front doors (RESP, HTTP, embed API) see of a node. They depend on this interface only, so each can be tested
 * on its own, and the node can be rebuilt behind it.
 */
import type { LoadingError } from './errors.js';
import type { Operation, Waiter } from './replica/operation.js';
import type { NativeReads } from './store/store.js';
import type { VerifyOptions, VerifyReport } from './verify/report.js';

/** One other member, as this node knows it. */
export interface PeerStatus {
  readonly peerId: string;
  readonly region: string;
  readonly replica: string;
  readonly connected: boolean;
  /** The last of this node's frames that the peer has reported as applied. */
  readonly appliedNumber: number;
  /** Frames of that peer which this node knows of and hasn't applied yet. */
  readonly behindFrames: number;
  /** Milliseconds since anything was heard of it; null = never. */
  readonly silentMs: number | null;
  /** Its clock minus this node's; null = not known yet. */
  readonly clockOffsetMs: number | null;
  /** Why it is refused (other rules, for example), with what to do; null = it isn't. */
  readonly refused: string | null;
  /** It uses the same store as this node (sync/siblings.ts). Default: false. */
  readonly sharesStore?: boolean;
}

/** How far a node is that lacks what the other members have (sync/bootstrap.ts). Counts are those of the transfer under way, or of the last one. */
export interface LoadingStatus {
  /** Who gives, and its region; null = nobody yet. */
  readonly peer: string | null;
  readonly region: string | null;
  /** Keys that have come, and that the giver announced; 0 = it hasn't. */
  readonly keys: number;
  readonly keysTotal: number;
  readonly bytes: number;
  readonly keysPerSecond: number;
  /** null = unknown. */
  readonly secondsLeft: number | null;
  /** When loading began, Unix milliseconds. */
  readonly sinceMs: number;
}

/** How a node's clock compares with the other members' (sync/clock-skew.ts). */
export interface ClockStatus {
  /** This node's clock minus the median of all members' clocks, its own included. */
  readonly offsetMs: number;
  /** Between the clock that is furthest ahead and the one furthest behind. */
  readonly spreadMs: number;
  /** Says that most members' clocks agree with each other, and not with this node's. */
  readonly off: boolean;
  /** Members whose clocks were compared, besides this node. */
  readonly heard: number;
  /** What is wrong, also with the others' clocks, and what to do; null = nothing. */
  readonly warning: string | null;
}

/** How far forgetting is: dropping what is left of deleted keys, once every member knows of the deletion (crdts/forgetting.ts). */
export interface ForgettingStatus {
  /** What was deleted up to then may be dropped, after the grace period; Unix milliseconds, null = nothing yet. It stands still while nothing waits to be dropped. */
  readonly stableMs: number | null;
  /** PeerIds of the members that must know, besides this node. */
  readonly members: readonly string[];
  /** Those of them that hold it back, being away or far behind: bring them back, or have them forgotten. */
  readonly waitingFor: readonly string[];
  /** Deleted keys that were dropped, since start. */
  readonly forgotten: number;
  /** Expired keys that were deleted for all members, since start. */
  readonly swept: number;
}

/** A node at a glance. Sizes in bytes, times in Unix milliseconds unless the name says otherwise. */
export interface NodeStatus {
  readonly version: string;
  readonly peerId: string;
  readonly region: string;
  readonly replica: string;
  readonly state: 'starting' | 'loading' | 'ready' | 'store-unavailable' | 'stopping';
  /** How far loading is; null = nothing is being loaded. */
  readonly loading: LoadingStatus | null;
  readonly addresses: readonly string[];
  readonly startedAtMs: number;
  readonly uptimeMs: number;
  readonly store: Readonly<Record<string, string | number>>;
  readonly frames: {
    /** This node's last committed frame. */
    readonly own: number;
    /** Remote frames applied since start. */
    readonly applied: number;
    /** Frames that wait for their predecessors. */
    readonly heldBack: number;
    /** Replicas whose frames come from too far in the future. */
    readonly skewed: number;
    /** Frames that were pulled to fill a gap, since start. */
    readonly repaired: number;
    /** Malformed or forged frames that were refused, since start. */
    readonly refused: number;
  };
  readonly queue: { readonly operations: number; readonly bytes: number };
  readonly conflicts: number;
  readonly clock: ClockStatus;
  readonly forgetting: ForgettingStatus;
  readonly peers: readonly PeerStatus[];
}

/** What the front doors need of a node. */
export interface Engine {
  readonly reads: NativeReads;
  /** Longest allowed key, value or member, in bytes. */
  readonly maxValueBytes: number;
  /** Unix milliseconds. */
  now(): number;
  /**
   * Why operations are refused just now; null = they aren't. What is submitted fails with it; whoever reads asks this
   * first. It is so while the node loads, unless it was told to serve meanwhile.
   */
  refusal(): LoadingError | null;
  /** Queues an operation. Never throws: every outcome, a full queue included, is told to `waiter`. */
  submit<T>(operation: Operation<T>, waiter: Waiter<T>): void;
  /** The number of this node's last committed frame. */
  lastFrame(): number;
  /** Waits until `regions` other regions have applied this node's frame `frameNumber`; gives how many have at the end. `timeoutMs` 0 = wait for ever. */
  waitFor(regions: number, frameNumber: number, timeoutMs: number, signal?: AbortSignal): Promise<number>;
  status(): NodeStatus;
  /** Forgets a member that is gone for good. Throws ArgumentError when it is this node, not a member, or connected. */
  forget(peerId: string): void;
  /** One digest over all keys, 12 hex digits, equal where the regions are equal; and the number of keys per slot digest compared. */
  digest(): Promise<{ digest: string; slots: number }>;
  /** Compares all regions at a common cut; see verify/verify.ts. Rejects with ArgumentError, or LimitError while another verification runs here. */
  verify(options?: VerifyOptions): Promise<VerifyReport>;
}
