/** Options of a node: what `createNode` takes, and what the command line and the config file end up as. */

import type { RuleOptions } from '../crdts/rules.js';
import type { Mesh, PeerId } from './mesh/mesh.js';
import type { Store } from './store/store.js';
import type { ValkeyServerOptions } from './store/valkey-address.js';
import type { Timers } from './timers.js';

/** The part of a logger that this package calls; a pino logger or `console` fits. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Says nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

export interface NodeOptions {
  /** Human label of the region, 1–64 characters of `A-Z a-z 0-9 _ . -`. Several nodes may share one. */
  readonly region: string;
  /**
   * `'memory'`, the URL of the region's own Valkey (forms: store/valkey-url.ts), an object with ioredis's names for it (host
   * and port, path, or cluster, or sentinels and name; tls …), or a store of your own. Default: 'memory'.
   */
  readonly store?: string | ValkeyServerOptions | Store;
  /** Key patterns with their type and policy; the first that matches a key holds. The same on every member. Default: [], any type, last write wins. */
  readonly rules?: readonly RuleOptions[];
  /** A mesh of your own, instead of the libp2p one that the next six options describe. */
  readonly mesh?: Mesh;
  /** Multiaddrs to listen on. Default: ['/ip4/127.0.0.1/tcp/0']. An empty list listens nowhere. */
  readonly listen?: readonly string[];
  /** Multiaddrs that other members are told to dial, such as one outside of a container. An empty list tells none. Default: those it listens on. */
  readonly announce?: readonly string[];
  /** Multiaddrs of members to dial, and to redial for as long as the node runs. Default: []. */
  readonly peers?: readonly string[];
  /** Ed25519 private key (libp2p's protobuf form, as `keygen` writes it). Default: a new one at each start. */
  readonly identity?: Uint8Array;
  /** Pre-shared key of the mesh (pnet's text form, as `keygen --mesh-key` writes it); who lacks it can't even shake hands. Default: none. */
  readonly meshKey?: Uint8Array;
  /** PeerIds of the members. Default: everyone who can connect. */
  readonly allow?: readonly PeerId[];
  /** Clock and timers. Default: the machine's. */
  readonly timers?: Timers;
  /** Source of randomness, 0 ≤ x < 1. Default: Math.random. */
  readonly random?: () => number;
  /** Default: silent. */
  readonly logger?: Logger;
  /** How far ahead of this node's clock a peer's stamps may be before its frames are held back. Default: 60,000. */
  readonly maxDriftMs?: number;
  /**
   * How far the members' clocks may differ until log, status and metrics say so. NTP keeps them within tens of milliseconds, and what is
   * measured through the mesh is wrong by at most a few hundred; from about a second on people see the wrong write win. Default: 1,000.
   */
  readonly maxClockOffsetMs?: number;
  /** Longest key, value or member in bytes. Default: 8 MiB. */
  readonly maxValueBytes?: number;
  /** Operations that may wait for a commit; more are refused with LimitError. Default: 100,000. */
  readonly maxQueuedOperations?: number;
  /** Bytes of operations' arguments that may wait for a commit; more are refused with LimitError. Default: 64 MiB. */
  readonly maxQueuedBytes?: number;
  /** Time between heartbeats. Default: 1,000. */
  readonly heartbeatMs?: number;
  /** Time between comparisons of all digests with a random member, which find what frames did not bring. Default: 15,000. */
  readonly antiEntropyMs?: number;
  /** Sets of at least so many members are compared by parts, so that only the members travel that differ. Default: 1,024. */
  readonly bigSetMembers?: number;
  /** How long what is left of a deleted key is kept, at least, once every member knows of the deletion. Default: 60,000. */
  readonly tombstoneGraceMs?: number;
  /**
   * What becomes of operations while an empty or lost region is being brought up to the others: 'refuse' rejects them with
   * LoadingError, 'serve' takes writes and gives stale reads. Default: 'refuse'.
   */
  readonly whileLoading?: 'refuse' | 'serve';
  /** How long nothing may have come, from no member, until loading is given up and the node serves what it has. 0 = for ever. Default: 30,000. */
  readonly loadingPatienceMs?: number;
  /** Bytes of this node's own frames kept in the store for members that were away; who needs older ones gets whole states. Default: 64 MiB. */
  readonly maxLogBytes?: number;
  /** Bytes of recent frames kept in memory for repair. Default: 32 MiB. */
  readonly recentFramesBytes?: number;
  /** Bytes of frames that may wait for their predecessors; beyond it they are dropped and repaired later. Default: 32 MiB. */
  readonly heldBackBytes?: number;
}
