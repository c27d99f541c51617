/**
 * The libp2p mesh: TCP, noise and yamux between Ed25519 identities, behind an optional mesh key and an allow-list.
 *
 * Broadcasts go over gossipsub (gossip.ts), requests over a stream each (request-protocol.ts), known members are dialed
 * for ever (dialing.ts), and members tell each other of the others (members.ts). A member counts as reachable when it
 * is identified, speaks our request protocol, and gossip flows both ways: what is sent then has a way to arrive.
 */
import './promise-with-resolvers.js';
import { setMaxListeners } from 'node:events';
import type { Connection, IdentifyResult, Message, Stream } from '@libp2p/interface';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { ConfigError, LimitError, PeerError } from '../errors.js';
import { type Logger, silentLogger } from '../options.js';
import { systemTimers, type Timers } from '../timers.js';
import { Dialing } from './dialing.js';
import { MAX_BROADCAST_BYTES, validator } from './gossip.js';
import { createIdentity, readMeshKey, readPrivateKey } from './identity.js';
import { createMeshNode, DIAL_TIMEOUT_MS, type MeshNode, parseAddress } from './libp2p-node.js';
import { decodeMembers, encodeMembers, MEMBERS_PROTOCOL } from './members.js';
import type { Mesh, MeshHandlers, PeerId, RequestOptions } from './mesh.js';
import { Reachability } from './reachability.js';
import { answer, ask, MAX_REQUESTS_PER_PEER, REQUEST_PROTOCOL } from './request-protocol.js';

export interface Libp2pMeshOptions {
  /** Ed25519 private key, as `createIdentity` makes it. Default: a new one. */
  readonly identity?: Uint8Array;
  /** Multiaddrs to listen on. Default: ['/ip4/127.0.0.1/tcp/0']. An empty list listens nowhere. */
  readonly listen?: readonly string[];
  /** Multiaddrs that others are told to dial, such as one outside of a container. An empty list tells none. Default: those it listens on. */
  readonly announce?: readonly string[];
  /** Multiaddrs of members to dial and redial; with /p2p/… at the end, only that member is accepted there. Default: []. */
  readonly peers?: readonly string[];
  /** Pre-shared key, as `createMeshKey` makes it. Default: none. */
  readonly meshKey?: Uint8Array;
  /** PeerIds of the members. Default: everyone who can connect. */
  readonly allow?: readonly PeerId[];
  /** Default: silent. */
  readonly logger?: Logger;
  /** Default: the machine's. libp2p's own timers are always the machine's. */
  readonly timers?: Timers;
  /** Source of randomness for the jitter of redialing. Default: Math.random. */
  readonly random?: () => number;
  /** The gossip topic; meshes with different topics don't hear each other. Default: 'valkey-mesh/1'. */
  readonly topic?: string;
}

/** Members are asked for others this long after they connected, and then time and again. */
const ASK_AGAIN_MS = 1_000;
const ASK_PERIODICALLY_MS = 30_000;

/** Creates a mesh over libp2p. Throws ConfigError when the identity, the mesh key, an address or a PeerId isn't usable. */
export function createLibp2pMesh(options: Libp2pMeshOptions = {}): Mesh {
  return new Libp2pMesh(options);
}

class Libp2pMesh implements Mesh {
  readonly self: PeerId;
  readonly maxBroadcastBytes = MAX_BROADCAST_BYTES;
  readonly #privateKey: ReturnType<typeof readPrivateKey>;
  readonly #meshKey: Uint8Array | undefined;
  readonly #listen: readonly string[];
  readonly #announce: readonly string[] | undefined;
  readonly #configured: readonly { address: string; peer: PeerId | undefined }[];
  readonly #allow: ReadonlySet<PeerId> | undefined;
  readonly #topic: string;
  readonly #logger: Logger;
  readonly #timers: Timers;
  readonly #dialing: Dialing;
  readonly #stopping = new AbortController();
  /** Broadcasts that are published in the next turn of the event loop. */
  readonly #outbox: Uint8Array[] = [];
  /** Where connected members listen. */
  readonly #addresses = new Map<PeerId, readonly string[]>();
  readonly #answering = new Map<PeerId, number>();
  #handlers: MeshHandlers | undefined;
  #node: MeshNode | undefined;
  #reachability: Reachability | undefined;
  #started = false;
  #stopped: Promise<void> | undefined;

  constructor(options: Libp2pMeshOptions) {
    this.#privateKey = readPrivateKey(options.identity ?? createIdentity().bytes);
    this.self = peerIdFromPrivateKey(this.#privateKey).toString();
    this.#meshKey = options.meshKey === undefined ? undefined : readMeshKey(options.meshKey);
    this.#listen = options.listen ?? ['/ip4/127.0.0.1/tcp/0'];
    for (const address of this.#listen) parseAddress('listen', address);
    this.#announce = options.announce;
    for (const address of this.#announce ?? []) parseAddress('announce', address);
    this.#configured = (options.peers ?? []).map((address) => {
      const peer = parseAddress('peer', address).getPeerId();
      return { address, peer: peer === null ? undefined : readPeerId('peer', peer) };
    });
    this.#allow = options.allow && new Set(options.allow.map((peer) => readPeerId('allow', peer)));
    this.#topic = options.topic ?? 'valkey-mesh/1';
    this.#logger = options.logger ?? silentLogger;
    this.#timers = options.timers ?? systemTimers;
    setMaxListeners(0, this.#stopping.signal);
    this.#dialing = new Dialing(
      {
        self: this.self,
        dial: (addresses) => this.#dial(addresses),
        isConnected: (peer) => this.#connections(peer).length > 0,
        isAllowed: (peer) => this.#isAllowed(peer),
      },
      this.#timers,
      options.random ?? Math.random,
      this.#logger,
    );
  }

  addresses(): string[] {
    return this.#isRunning() ? this.#node!.getMultiaddrs().map((address) => address.toString()) : [];
  }

  async start(handlers: MeshHandlers): Promise<void> {
    if (this.#started) throw new PeerError('a mesh can be started only once');
    this.#started = true;
    this.#handlers = handlers;
    try {
      const node = await createMeshNode({
        privateKey: this.#privateKey,
        listen: this.#listen,
        announce: this.#announce,
        meshKey: this.#meshKey,
        topic: this.#topic,
        isRefused: (peer) => !this.#isAllowed(peer),
      });
      if (this.#stopped !== undefined) return;
      this.#node = node;
      await this.#wire(node);
      await node.start();
    } catch (error) {
      await this.stop();
      if (error instanceof ConfigError) throw error;
      throw new ConfigError(`the mesh can not listen on ${this.#listen.join(', ')}: ${error}`, {
        cause: error,
      });
    }
    if (this.#stopped !== undefined) return;
    for (const { address, peer } of this.#configured) this.#dialing.configure(address, peer);
    this.#exchangePeriodically();
  }

  broadcast(bytes: Uint8Array): void {
    if (bytes.byteLength > MAX_BROADCAST_BYTES) {
      throw new LimitError(
        `a broadcast of ${bytes.byteLength} bytes is over the limit of ${MAX_BROADCAST_BYTES}`,
      );
    }
    if (!this.#isRunning()) return;
    this.#outbox.push(bytes.slice());
    // Signing takes a tenth of a millisecond: those who wait for the commit are answered first.
    if (this.#outbox.length === 1) setImmediate(() => this.#flush());
  }

  #flush(): void {
    const { gossip } = this.#node!.services;
    const outbox = this.#outbox.splice(0);
    // Nobody would get it: then it needn't be signed either.
    if (this.#node!.status !== 'started' || gossip.getSubscribers(this.#topic).length === 0) return;
    for (const bytes of outbox) {
      gossip.publish(this.#topic, bytes).catch((error) => {
        this.#logger.debug({ err: error }, 'a broadcast was not sent');
      });
    }
  }

  async *request(
    peer: PeerId,
    protocol: string,
    body: Uint8Array,
    options: RequestOptions = {},
  ): AsyncGenerator<Uint8Array> {
    // The newest: an older one may be dead and not yet known to be.
    const connection = this.#connections(peer).at(-1);
    if (connection === undefined) throw new PeerError(`peer ${peer} is not reachable`);
    yield* ask(
      { peer, timers: this.#timers, ended: this.#stopping.signal },
      (signal) => connection.newStream(REQUEST_PROTOCOL, { signal }),
      protocol,
      body,
      options,
    );
  }

  peers(): PeerId[] {
    return this.#isRunning() ? (this.#reachability?.peers() ?? []) : [];
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#started = true;
    this.#dialing.stop();
    this.#reachability?.stop();
    this.#stopping.abort();
    if (this.#outbox.length > 0) this.#flush();
    try {
      await this.#node?.stop();
    } catch (error) {
      this.#logger.warn({ err: error }, 'libp2p did not stop cleanly');
    }
  }

  #isRunning(): boolean {
    return this.#node?.status === 'started' && this.#stopped === undefined;
  }

  #isAllowed(peer: PeerId): boolean {
    return this.#allow === undefined || this.#allow.has(peer);
  }

  #connections(peer: PeerId): Connection[] {
    if (!this.#isRunning()) return [];
    return this.#node!.getConnections().filter(
      (connection) => connection.status === 'open' && connection.remotePeer.toString() === peer,
    );
  }

  async #wire(node: MeshNode): Promise<void> {
    const { gossip } = node.services;
    this.#reachability = new Reachability(node, this.#topic, this.#timers, this.#logger, {
      onReachable: (peer) => {
        this.#dialing.reached(peer);
        this.#call(() => this.#handlers?.onConnect(peer));
        void this.#askForMembers(peer);
        this.#timers.after(ASK_AGAIN_MS, () => void this.#askForMembers(peer));
      },
      onUnreachable: (peer) => this.#call(() => this.#handlers?.onDisconnect(peer)),
    });
    gossip.topicValidators.set(
      this.#topic,
      validator(this.self, (author) => this.#isAllowed(author)),
    );
    gossip.addEventListener('message', (event: CustomEvent<Message>) => {
      const { detail } = event;
      if (detail.type !== 'signed' || detail.topic !== this.#topic || this.#stopped !== undefined) return;
      const { buffer, byteOffset, byteLength } = detail.data;
      const bytes = new Uint8Array(buffer, byteOffset, byteLength);
      this.#call(() => this.#handlers?.onBroadcast(detail.from.toString(), bytes));
    });
    node.addEventListener('peer:identify', ({ detail }: CustomEvent<IdentifyResult>) => {
      this.#addresses.set(
        detail.peerId.toString(),
        detail.listenAddrs.map((address) => address.toString()),
      );
    });
    node.addEventListener('peer:disconnect', ({ detail }) => {
      const peer = detail.toString();
      this.#addresses.delete(peer);
      this.#dialing.lost(peer);
    });
    await node.handle(REQUEST_PROTOCOL, ({ stream, connection }) => this.#answer(stream, connection), {
      maxInboundStreams: 2 * MAX_REQUESTS_PER_PEER,
      maxOutboundStreams: 4 * MAX_REQUESTS_PER_PEER,
    });
    // A new subscription is announced on streams that exist when it is made, and on each one that is opened later.
    node.addEventListener('start', () => gossip.subscribe(this.#topic), { once: true });
  }

  async #answer(stream: Stream, connection: Connection): Promise<void> {
    const peer = connection.remotePeer.toString();
    const exchange = { peer, timers: this.#timers, ended: this.#stopping.signal };
    let counted = 0;
    await answer(exchange, stream, (from, protocol, body, signal) => {
      if (protocol === MEMBERS_PROTOCOL) return this.#tellMembers(from);
      const underWay = this.#answering.get(peer) ?? 0;
      if (underWay >= MAX_REQUESTS_PER_PEER) {
        throw new PeerError(`too many requests: ${MAX_REQUESTS_PER_PEER} are answered at the same time`);
      }
      counted = 1;
      this.#answering.set(peer, underWay + 1);
      return this.#handlers!.onRequest(from, protocol, body, signal);
    });
    const left = (this.#answering.get(peer) ?? 0) - counted;
    if (left > 0) this.#answering.set(peer, left);
    else this.#answering.delete(peer);
  }

  async *#tellMembers(asker: PeerId): AsyncGenerator<Uint8Array> {
    yield encodeMembers(new Map([...this.#addresses].filter(([peer]) => peer !== asker)));
  }

  async #askForMembers(peer: PeerId): Promise<void> {
    if (!this.#isRunning() || this.#connections(peer).length === 0) return;
    try {
      for await (const chunk of this.request(peer, MEMBERS_PROTOCOL, new Uint8Array(0))) {
        for (const [member, addresses] of decodeMembers(chunk)) this.#dialing.learn(member, addresses);
      }
    } catch (error) {
      this.#logger.debug({ peer, err: error }, 'a peer did not say who else is in the mesh');
    }
  }

  #exchangePeriodically(): void {
    this.#timers.after(ASK_PERIODICALLY_MS, () => {
      if (!this.#isRunning()) return;
      for (const peer of this.peers()) void this.#askForMembers(peer);
      this.#exchangePeriodically();
    });
  }

  async #dial(addresses: readonly string[]): Promise<PeerId> {
    const signal = AbortSignal.any([AbortSignal.timeout(DIAL_TIMEOUT_MS), this.#stopping.signal]);
    const connection = await this.#node!.dial(
      addresses.map((address) => multiaddr(address)),
      { signal },
    );
    return connection.remotePeer.toString();
  }

  /** Calls into the node; what it throws must not end libp2p's own work. */
  #call(fn: () => void): void {
    if (this.#stopped !== undefined) return;
    try {
      fn();
    } catch (error) {
      this.#logger.error({ err: error }, 'a handler of the mesh failed');
    }
  }
}

function readPeerId(option: string, text: string): PeerId {
  try {
    return peerIdFromString(text).toString();
  } catch (cause) {
    throw new ConfigError(
      `${option} ${text}: this is not a PeerId; \`valkey-mesh keygen\` prints a member's`,
      {
        cause,
      },
    );
  }
}
