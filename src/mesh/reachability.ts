/**
 * Who is reachable: members that are identified, speak our request protocol, and with whom gossip flows both ways.
 *
 * gossipsub 14 never replaces a gossip stream that broke (an oversized message, a connection that closed while another
 * one to the same peer stayed): the link then looks open and carries nothing. So each link is looked at regularly, and
 * one that doesn't carry gossip, or never became usable, is closed; it is dialed again from scratch.
 */
import type { Connection, PeerId as Libp2pPeerId } from '@libp2p/interface';
import type { Logger } from '../options.js';
import type { Cancel, Timers } from '../timers.js';
import type { MeshNode } from './libp2p-node.js';
import type { PeerId } from './mesh.js';
import { REQUEST_PROTOCOL } from './request-protocol.js';

/** How often a link that isn't usable yet is looked at. */
const PENDING_CHECK_MS = 20;
/** How often a usable one is. */
const LINK_CHECK_MS = 1_000;
/** A connection that isn't usable after this long is closed. */
const USABLE_WITHIN_MS = 10_000;

export interface ReachabilityHandlers {
  onReachable(peer: PeerId): void;
  onUnreachable(peer: PeerId): void;
}

/** Watches the links of a libp2p node. */
export class Reachability {
  readonly #reachable = new Set<PeerId>();
  /** Peers that are identified and whose gossip isn't flowing yet. */
  readonly #pending = new Set<PeerId>();
  /** Peers whose gossip was found broken once. */
  readonly #suspect = new Set<PeerId>();
  #cancelPending: Cancel | undefined;
  #cancelCheck: Cancel | undefined;
  #stopped = false;

  constructor(
    private readonly node: MeshNode,
    private readonly topic: string,
    private readonly timers: Timers,
    private readonly logger: Logger,
    private readonly handlers: ReachabilityHandlers,
  ) {
    node.addEventListener('peer:identify', ({ detail }) => {
      if (detail.protocols.includes(REQUEST_PROTOCOL)) this.#identified(detail.peerId.toString());
    });
    node.addEventListener('peer:disconnect', ({ detail }) => this.#gone(detail.toString()));
    node.addEventListener('connection:close', ({ detail }) =>
      this.#check(detail.remotePeer.toString(), true),
    );
    node.services.gossip.addEventListener('subscription-change', () => this.#checkPending());
    this.#scheduleCheck();
  }

  peers(): PeerId[] {
    return [...this.#reachable];
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelPending?.();
    this.#cancelCheck?.();
    this.#reachable.clear();
    this.#pending.clear();
  }

  #identified(peer: PeerId): void {
    if (this.#stopped || this.#reachable.has(peer)) return;
    this.#pending.add(peer);
    this.#checkPending();
  }

  #gone(peer: PeerId): void {
    this.#pending.delete(peer);
    this.#suspect.delete(peer);
    if (this.#reachable.delete(peer) && !this.#stopped) this.handlers.onUnreachable(peer);
  }

  #checkPending(): void {
    this.#cancelPending?.();
    this.#cancelPending = undefined;
    for (const peer of this.#pending) {
      if (!this.#carriesGossip(peer)) continue;
      this.#pending.delete(peer);
      this.#reachable.add(peer);
      this.handlers.onReachable(peer);
    }
    if (this.#pending.size === 0 || this.#stopped) return;
    this.#cancelPending = this.timers.after(PENDING_CHECK_MS, () => this.#checkPending());
  }

  #scheduleCheck(): void {
    this.#cancelCheck = this.timers.after(LINK_CHECK_MS, () => {
      if (this.#stopped) return;
      for (const peer of this.#reachable) this.#check(peer, false);
      for (const connection of this.node.getConnections()) this.#checkAge(connection);
      this.#scheduleCheck();
    });
  }

  /** Closes a link whose gossip is broken: `atOnce`, or when it was found broken for the second time. */
  #check(peer: PeerId, atOnce: boolean): void {
    if (this.#stopped || !this.#reachable.has(peer)) return;
    if (this.#carriesGossip(peer)) {
      this.#suspect.delete(peer);
    } else if (atOnce || this.#suspect.has(peer)) {
      const connections = this.#connections(peer);
      if (connections.length === 0) return;
      this.logger.warn({ peer }, 'gossip with a peer broke: the link is closed and made anew');
      for (const connection of connections) connection.abort(new Error('gossip broke'));
    } else {
      this.#suspect.add(peer);
    }
  }

  #checkAge(connection: Connection): void {
    const peer = connection.remotePeer.toString();
    if (this.#reachable.has(peer) || connection.status !== 'open') return;
    if (Date.now() - connection.timeline.open < USABLE_WITHIN_MS) return;
    this.logger.warn(
      { peer },
      'a connection did not become usable and is closed: is the other end a valkey-mesh member?',
    );
    connection.abort(new Error('the connection did not become usable'));
  }

  #connections(peer: PeerId): Connection[] {
    return this.node
      .getConnections()
      .filter((connection) => connection.status === 'open' && connection.remotePeer.toString() === peer);
  }

  /** Says whether the peer subscribed, and one gossip stream each way is open. */
  #carriesGossip(peer: PeerId): boolean {
    const { gossip } = this.node.services;
    if (!gossip.getSubscribers(this.topic).some((subscriber: Libp2pPeerId) => subscriber.toString() === peer))
      return false;
    if (!gossip.streamsOutbound.has(peer) || !gossip.streamsInbound.has(peer)) return false;
    const streams = this.#connections(peer)
      .flatMap((connection) => connection.streams)
      .filter((stream) => stream.status === 'open' && gossip.multicodecs.includes(stream.protocol ?? ''));
    return (
      streams.some(({ direction, writeStatus }) => direction === 'outbound' && writeStatus === 'writing') &&
      streams.some(({ direction, readStatus }) => direction === 'inbound' && readStatus === 'ready')
    );
  }
}
