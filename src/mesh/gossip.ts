/**
 * How gossipsub is set up, and why. The traps of version 14.1.2 that this answers:
 * - A message over 4 MiB kills the link silently: broadcasts are bounded far below, and so is what is decoded.
 * - What a peer may make us decode or remember is unlimited by default: subscriptions, control messages, topics.
 * - An answer to IWANT packs many messages into one, which passes 4 MiB too: messages are not advertised (Dlazy 0);
 *   what gossip loses, the layers above repair.
 * - A slow consumer buffers without bound: the buffer is bounded, and what doesn't fit is dropped.
 * - Scoring would punish members behind one address, and those that reconnect often: who is a member is decided by the
 *   allow-list, so the weights are zero.
 * - Remembered messages cost memory for seconds, their ids for minutes: both are kept as briefly as still of use.
 */
import { type GossipsubOpts, gossipsub } from '@chainsafe/libp2p-gossipsub';
import { type Message, StrictSign, TopicValidatorResult } from '@libp2p/interface';
import type { PeerId } from './mesh.js';

/** The largest broadcast: 256 KiB with the envelope. */
export const MAX_BROADCAST_BYTES = 255 * 1024;
/** The largest gossip message that is decoded at all; a link that brings a larger one is closed. */
const MAX_RPC_BYTES = 1024 * 1024;
/** Bytes that may wait for one peer; broadcasts beyond it don't reach that peer. */
const MAX_OUTBOUND_BYTES = 16 * 1024 * 1024;

/** Creates the gossipsub service for one topic. */
export function createGossip(topic: string): ReturnType<typeof gossipsub> {
  const options: Partial<GossipsubOpts> = {
    globalSignaturePolicy: StrictSign,
    emitSelf: false,
    allowedTopics: [topic],
    // Few members, all connected: send straight to everyone, and let a few relay for links that are down.
    floodPublish: true,
    D: 3,
    Dlo: 2,
    Dhi: 4,
    Dscore: 1,
    Dout: 1,
    Dlazy: 0,
    gossipFactor: 0,
    heartbeatInterval: 1000,
    mcacheLength: 1,
    mcacheGossip: 1,
    seenTTL: 30_000,
    // A message that came by another way was verified already: recognise it by author and sequence number alone.
    fastMsgIdFn: ({ from, seqno }) =>
      Buffer.concat([from ?? new Uint8Array(0), seqno ?? new Uint8Array(0)]).toString('latin1'),
    allowPublishToZeroTopicPeers: true,
    fallbackToFloodsub: false,
    doPX: false,
    tagMeshPeers: false,
    awaitRpcHandler: true,
    awaitRpcMessageHandler: true,
    maxInboundStreams: 8,
    maxOutboundStreams: 8,
    maxOutboundBufferSize: MAX_OUTBOUND_BYTES,
    maxInboundDataLength: MAX_RPC_BYTES,
    decodeRpcLimits: {
      maxSubscriptions: 8,
      maxMessages: 16,
      maxIhaveMessageIDs: 16,
      maxIwantMessageIDs: 16,
      maxIdontwantMessageIDs: 512,
      maxControlMessages: 64,
      maxPeerInfos: 16,
    },
    scoreParams: { IPColocationFactorWeight: 0, behaviourPenaltyWeight: 0 },
  };
  return gossipsub(options);
}

/** Accepts messages that an allowed member other than this node signed. `source` relayed it, which says nothing. */
export function validator(self: PeerId, isAllowed: (author: PeerId) => boolean) {
  return (_source: unknown, message: Message): TopicValidatorResult => {
    if (message.type !== 'signed' || message.data.byteLength > MAX_BROADCAST_BYTES)
      return TopicValidatorResult.Reject;
    const author = message.from.toString();
    if (author === self) return TopicValidatorResult.Ignore;
    return isAllowed(author) ? TopicValidatorResult.Accept : TopicValidatorResult.Reject;
  };
}
