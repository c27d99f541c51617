/** Builds the libp2p node that the mesh runs on, with its bounds; only this folder knows libp2p. */
import './promise-with-resolvers.js';
import { createServer } from 'node:net';
import type { GossipSub } from '@chainsafe/libp2p-gossipsub';
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { identify } from '@libp2p/identify';
import type { Ed25519PrivateKey, Libp2p, PeerId as Libp2pPeerId } from '@libp2p/interface';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { ping } from '@libp2p/ping';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { ConfigError } from '../errors.js';
import { SelfDialError } from './dialing.js';
import { createGossip } from './gossip.js';
import type { PeerId } from './mesh.js';

/** The services that a member runs. */
export type MeshServices = {
  gossip: GossipSub;
  identify: unknown;
  ping: unknown;
};

export type MeshNode = Libp2p<MeshServices>;

/** One dial, from the first packet to the end of the handshakes, may take this long. */
export const DIAL_TIMEOUT_MS = 5_000;
const PING_INTERVAL_MS = 5_000;
/** A peer that doesn't answer a ping for this long is dead. */
const PING_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 512;

export interface NodeParts {
  readonly privateKey: Ed25519PrivateKey;
  readonly listen: readonly string[];
  /** What others are told; undefined = the addresses that it listens on. */
  readonly announce: readonly string[] | undefined;
  readonly meshKey: Uint8Array | undefined;
  readonly topic: string;
  /** Says whether a connection with this peer is to be refused. */
  isRefused(peer: PeerId): boolean;
}

/** Creates the node without starting it. Throws ConfigError when a listen address isn't one, or is taken. */
export async function createMeshNode(parts: NodeParts): Promise<MeshNode> {
  for (const address of parts.listen) await probeListen(address);
  const isRefused = (peer: Libp2pPeerId) => parts.isRefused(peer.toString());
  const { meshKey } = parts;
  const self = peerIdFromPrivateKey(parts.privateKey).toString();
  const node = await createLibp2p<MeshServices>({
    start: false,
    privateKey: parts.privateKey,
    addresses: {
      listen: [...parts.listen],
      announce: [...(parts.announce ?? [])],
      // libp2p takes an empty `announce` for none given.
      ...(parts.announce?.length === 0 && { announceFilter: () => [] }),
    },
    transports: [tcp({ maxConnections: MAX_CONNECTIONS })],
    connectionEncrypters: [noise()],
    streamMuxers: [
      yamux({
        maxInboundStreams: 256,
        maxOutboundStreams: 256,
        maxStreamWindowSize: 4 * 1024 * 1024,
        keepAliveInterval: 15_000,
      }),
    ],
    // The default of one second for the exchange of nonces is too short for a far or busy peer.
    ...(meshKey === undefined
      ? {}
      : { connectionProtector: preSharedKey({ psk: meshKey, timeout: DIAL_TIMEOUT_MS }) }),
    connectionGater: {
      denyDialMultiaddr: () => false,
      denyDialPeer: isRefused,
      denyInboundEncryptedConnection: isRefused,
      denyOutboundEncryptedConnection: (peer, connection) => {
        if (peer.toString() === self) throw new SelfDialError('this address leads to this node itself');
        // This libp2p doesn't compare the PeerId in a dialed address with the one that it found there.
        const expected = connection.remoteAddr.getPeerId();
        if (expected !== null && expected !== peer.toString())
          throw new Error(`${peer} is there, not ${expected}`);
        return isRefused(peer);
      },
    },
    connectionManager: {
      maxConnections: MAX_CONNECTIONS,
      dialTimeout: DIAL_TIMEOUT_MS,
      inboundUpgradeTimeout: DIAL_TIMEOUT_MS,
      maxIncomingPendingConnections: 128,
      // Members may share a host (or a NAT); the default of five a second would lock them out.
      inboundConnectionThreshold: 128,
      // Redialing is ours (dialing.ts).
      reconnectRetries: 0,
    },
    connectionMonitor: { pingInterval: PING_INTERVAL_MS, pingTimeout: { minTimeout: PING_TIMEOUT_MS } },
    services: {
      identify: identify(),
      ping: ping({ maxInboundStreams: 8, maxOutboundStreams: 8 }),
      gossip: (components) => createGossip(parts.topic)(components) as GossipSub,
    },
  });
  return node;
}

/** Parses a multiaddr. Throws ConfigError, naming the option that it stands in. */
export function parseAddress(option: string, address: string): Multiaddr {
  const problem = (why: string, cause?: unknown) =>
    new ConfigError(
      `${option} ${address}: ${why}; write it like /ip4/10.0.0.5/tcp/4001 or /dns4/host/tcp/4001`,
      {
        cause,
      },
    );
  let parsed: Multiaddr;
  try {
    parsed = multiaddr(address);
  } catch (cause) {
    throw problem('this is not a multiaddr', cause);
  }
  if (!parsed.protoNames().includes('tcp')) throw problem('only TCP addresses can be used');
  return parsed;
}

/** Finds out whether an address can be listened on, because libp2p reports the reason only as text. */
async function probeListen(address: string): Promise<void> {
  const { host, port } = parseAddress('listen', address).toOptions();
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, resolve);
    });
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    const remedies: Record<string, string> = {
      EADDRINUSE: `port ${port} is in use: stop the program that has it, or listen on another port`,
      EADDRNOTAVAIL: `this machine has no interface ${host}: listen on one of its own addresses, or on 0.0.0.0`,
      EACCES: `this user may not listen on port ${port}: take a port above 1023`,
    };
    throw new ConfigError(`listen ${address}: ${remedies[code] ?? `can not listen there (${code})`}`, {
      cause,
    });
  } finally {
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
  }
}
