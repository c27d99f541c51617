/**
 * The mesh port: how nodes reach each other.
 *
 * Two meshes implement it, `libp2p` and `loopback`, and one compliance suite (test/support/mesh-compliance.ts) runs on both.
 * What a caller may assume:
 * - `broadcast` is best effort: a message may be lost, come twice, late, or out of order; but who sent it is authentic.
 * - `request` is reliable: the answer's chunks come in order and complete, or the iteration throws.
 */

/** A libp2p PeerId as text (or, on the loopback mesh, any unique name). */
export type PeerId = string;

/** What a mesh calls when something arrives. Handlers must not throw; a broadcast handler must return at once. */
export interface MeshHandlers {
  /** A broadcast arrived. `from` is the member that created it (its signature was checked), whoever relayed it. */
  onBroadcast(from: PeerId, bytes: Uint8Array): void;
  /**
   * A peer asks. Chunks are sent with back-pressure: the next is pulled when the last was taken. Throwing ends the
   * stream with an error at the asker. `signal` aborts when the asker goes away.
   */
  onRequest(from: PeerId, protocol: string, body: Uint8Array, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** A member became reachable. */
  onConnect(peer: PeerId): void;
  /** A member is no longer reachable. */
  onDisconnect(peer: PeerId): void;
}

export interface RequestOptions {
  /** Gives up when no chunk comes for this long. Default: 10,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface Mesh {
  /** This node's own id. */
  readonly self: PeerId;
  /** Addresses that others can dial, complete with the PeerId; empty before start. */
  addresses(): string[];
  /** Starts to listen and to dial. Rejects with ConfigError when an address can't be used (port taken, no such interface …). */
  start(handlers: MeshHandlers): Promise<void>;
  /** Sends to every member, best effort; never throws and never blocks. Messages over `maxBroadcastBytes` are refused with LimitError. */
  broadcast(bytes: Uint8Array): void;
  /** The largest message that `broadcast` takes. */
  readonly maxBroadcastBytes: number;
  /** Asks one member. The iteration throws PeerError when the peer is unreachable, unknown, refuses, breaks off or times out. */
  request(
    peer: PeerId,
    protocol: string,
    body: Uint8Array,
    options?: RequestOptions,
  ): AsyncIterable<Uint8Array>;
  /** Members that are reachable now. */
  peers(): PeerId[];
  /** Closes everything; `start` can't be called again. */
  stop(): Promise<void>;
}
