/**
 * What the front doors (RESP, HTTP, embed API) see of a node. They depend on this interface only, so each can be tested
 * on its own, and the node can be rebuilt behind it.
 */
import type { Operation, Settle } from './replica/operation.js';
import type { NativeReads } from './store/store.js';

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
  /** Why it is refused (other rules, for example), with what to do; null = it isn't. */
  readonly refused: string | null;
}

/** A node at a glance. Sizes in bytes, times in Unix milliseconds unless the name says otherwise. */
export interface NodeStatus {
  readonly version: string;
  readonly peerId: string;
  readonly region: string;
  readonly replica: string;
  readonly state: 'starting' | 'ready' | 'store-unavailable' | 'stopping';
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
    /** Frames from the future, by a skewed peer. */
    readonly skewed: number;
    /** Frames that were pulled to fill a gap, since start. */
    readonly repaired: number;
    /** Malformed or forged frames that were refused, since start. */
    readonly refused: number;
  };
  readonly queue: { readonly operations: number; readonly bytes: number };
  readonly conflicts: number;
  readonly peers: readonly PeerStatus[];
}

/** What the front doors need of a node. */
export interface Engine {
  readonly reads: NativeReads;
  /** Longest allowed key, value or member, in bytes. */
  readonly maxValueBytes: number;
  /** Unix milliseconds. */
  now(): number;
  /** Queues an operation. Never throws: every outcome, a full queue included, comes through `settle`. */
  submit<T>(operation: Operation<T>, settle: Settle<T>): void;
  /** The number of this node's last committed frame. */
  lastFrame(): number;
  /** Waits until `regions` other regions have applied this node's frame `frameNumber`; gives how many have at the end. `timeoutMs` 0 = wait for ever. */
  waitFor(regions: number, frameNumber: number, timeoutMs: number, signal?: AbortSignal): Promise<number>;
  status(): NodeStatus;
  /** One digest over all keys, 12 hex digits, equal where the regions are equal; and the number of keys per slot digest compared. */
  digest(): Promise<{ digest: string; slots: number }>;
}
