/** Addresses as people write them: `HOST:PORT` for the front doors, multiaddrs for the mesh. */
import { isIP } from 'node:net';

/** A TCP address to listen on or to connect to. Port 0 lets the system choose. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Parses `HOST:PORT`, `[IPV6]:PORT` or just `PORT` (then on 127.0.0.1); null = none of these. */
export function parseAddress(text: string): Address | null {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]\s]+)):)?(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const [, ipv6, name, digits] = match;
  const port = Number(digits);
  if (port > 65535 || (ipv6 !== undefined && isIP(ipv6) !== 6)) return null;
  return { host: ipv6 ?? name ?? '127.0.0.1', port };
}

/** Writes an address as `HOST:PORT`. */
export function formatAddress(address: Address): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Says whether only this machine can reach a host. A name other than `localhost` counts as reachable. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** The form of a PeerId that Ed25519 identities have. */
export const PEER_ID = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/;

/** A multiaddr taken apart: the mesh speaks TCP only. */
export interface TcpMultiaddr extends Address {
  readonly peerId: string | null;
}

/** Parses `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/PEERID]`; null = something else. */
export function parseMultiaddr(text: string): TcpMultiaddr | null {
  const match = /^\/(ip4|ip6|dns|dns4|dns6)\/([^/\s]+)\/tcp\/(\d{1,5})(?:\/p2p\/([^/\s]+))?$/.exec(text);
  if (match === null) return null;
  const [, kind, host = '', digits, peerId = null] = match;
  const port = Number(digits);
  if (port > 65535 || (peerId !== null && !PEER_ID.test(peerId))) return null;
  if ((kind === 'ip4' && isIP(host) !== 4) || (kind === 'ip6' && isIP(host) !== 6)) return null;
  return { host, port, peerId };
}
