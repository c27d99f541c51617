/**
 * Who else is in the mesh: members tell each other whom they are connected with, and where those listen, so that
 * knowing one member is enough to find all. The list is JSON: [[PeerId, [multiaddr, …]], …].
 */
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { PeerError } from '../errors.js';
import { MAX_ADDRESSES_PER_MEMBER, MAX_LEARNED_MEMBERS } from './dialing.js';
import type { PeerId } from './mesh.js';

/** The request, answered by the adapter itself, that asks for the list. Names that begin so are not for the node's handler. */
export const MEMBERS_PROTOCOL = 'mesh/members';
const MAX_ADDRESS_CHARS = 256;

/** Where each member listens. */
export type Members = ReadonlyMap<PeerId, readonly string[]>;

/** Encodes the list, without members that listen nowhere. */
export function encodeMembers(members: Members): Uint8Array {
  const list = [...members]
    .filter(([, addresses]) => addresses.length > 0)
    .slice(0, MAX_LEARNED_MEMBERS)
    .map(([peer, addresses]) => [peer, addresses.slice(0, MAX_ADDRESSES_PER_MEMBER)]);
  return new TextEncoder().encode(JSON.stringify(list));
}

/** Decodes a list that a peer sent. Throws PeerError when it isn't one, or too long; addresses that don't parse are left out. */
export function decodeMembers(bytes: Uint8Array): Members {
  let list: unknown;
  try {
    list = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new PeerError('a list of members is not JSON', { cause });
  }
  if (!Array.isArray(list) || list.length > MAX_LEARNED_MEMBERS)
    throw new PeerError('a list of members is malformed');
  const members = new Map<PeerId, string[]>();
  for (const entry of list as unknown[]) {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || !Array.isArray(entry[1])) {
      throw new PeerError('a list of members is malformed');
    }
    const peer = canonicalPeerId(entry[0]);
    const addresses = entry[1].slice(0, MAX_ADDRESSES_PER_MEMBER).filter(isTcpAddress);
    if (peer !== undefined && addresses.length > 0) members.set(peer, addresses);
  }
  return members;
}

function canonicalPeerId(text: string): PeerId | undefined {
  try {
    return peerIdFromString(text).toString();
  } catch {
    return undefined;
  }
}

function isTcpAddress(address: unknown): address is string {
  if (typeof address !== 'string' || address.length > MAX_ADDRESS_CHARS) return false;
  try {
    return multiaddr(address).protoNames().includes('tcp');
  } catch {
    return false;
  }
}
