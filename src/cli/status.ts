/** `valkey-mesh status`: shows a running peer's status, over its HTTP door. */
import type { ClockStatus, ForgettingStatus, NodeStatus } from '../engine.js';
import { ConfigError, PeerError } from '../errors.js';
import { describeLoading } from '../sync/loading.js';

export interface StatusFlags {
  /** The peer's HTTP door. */
  readonly url: string;
  readonly json?: boolean;
}

/** How long a peer has to answer. */
const TIMEOUT_MS = 5_000;

/** Fetches and prints the status. Throws ConfigError for a bad URL, PeerError when the peer doesn't answer as one. */
export async function status(flags: StatusFlags, print: (line: string) => void): Promise<void> {
  const found = await fetchStatus(flags.url);
  print(flags.json ? JSON.stringify(found) : describeStatus(found));
}

async function fetchStatus(url: string): Promise<NodeStatus> {
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new ConfigError(
      `--url ${JSON.stringify(url)}: give the URL of a peer's --http door, for example http://127.0.0.1:8080`,
    );
  }
  const target = new URL('/api/status', url);
  let body: unknown;
  try {
    const answer = await fetch(target, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok)
      throw new PeerError(
        `${target} answered with HTTP status ${answer.status}; is it a peer's --http door?`,
      );
    body = await answer.json();
  } catch (cause) {
    if (cause instanceof PeerError) throw cause;
    if (cause instanceof SyntaxError)
      throw new PeerError(`${target} is not a peer's --http door: its answer isn't JSON`, { cause });
    throw new PeerError(
      `no answer from ${target} (${reason(cause)}); is the peer running, and with --http?`,
      { cause },
    );
  }
  if (!isStatus(body))
    throw new PeerError(`${target} is not a peer's --http door: its answer isn't a status`);
  return body;
}

/** A status as lines of text: facts first, then a table of the peers. */
export function describeStatus(found: NodeStatus): string {
  const store = Object.entries(found.store).map(([name, value]) => `${name} ${value}`);
  const { own, applied, heldBack, skewed, repaired, refused } = found.frames;
  const facts = [
    ['region', found.region],
    ['state', found.state],
    ...(found.loading ? [['progress', describeLoading(found.loading)]] : []),
    ...(found.clock.warning === null ? [] : [['WARNING', found.clock.warning]]),
    ['peer id', found.peerId],
    ['replica', found.replica],
    ['version', found.version],
    ['up for', duration(found.uptimeMs)],
    ['store', store.join(', ')],
    ['addresses', found.addresses.join(' ') || 'none'],
    [
      'frames',
      `${own} own, ${applied} applied, ${heldBack} held back, ${skewed} skewed, ${repaired} repaired, ${refused} refused`,
    ],
    ['queue', `${found.queue.operations} operations, ${found.queue.bytes} bytes`],
    ['conflicts', String(found.conflicts)],
    ['clock', describeClock(found.clock)],
    ['forgetting', describeForgetting(found.forgetting)],
    ...found.forgetting.waitingFor.map((peerId) => [
      'waits for',
      `${found.peers.find((peer) => peer.peerId === peerId)?.region || 'a member'}: it keeps deleted keys from being dropped. Bring it back; if it is gone for good: MESH FORGET ${peerId}`,
    ]),
  ];
  const peers = found.peers.map((peer) => [
    peer.region,
    peer.peerId,
    peer.connected ? 'yes' : 'no',
    String(peer.appliedNumber),
    String(peer.behindFrames),
    peer.silentMs === null ? 'never heard' : duration(peer.silentMs),
    peer.clockOffsetMs === null ? 'unknown' : signed(peer.clockOffsetMs),
  ]);
  const table =
    peers.length > 0
      ? [['REGION', 'PEER ID', 'CONNECTED', 'HAS APPLIED', 'BEHIND', 'SILENT FOR', 'CLOCK'], ...peers]
      : [['no other peers']];
  return `${columns(facts)}\n\n${columns(table)}`;
}

function describeClock({ offsetMs, spreadMs, heard }: ClockStatus): string {
  if (heard === 0) return 'compared with no other member yet';
  return `${signed(offsetMs)} from the median of ${heard + 1} members, ${spreadMs} ms between the extremes`;
}

function describeForgetting({ stableMs, members, forgotten, swept }: ForgettingStatus): string {
  const stable =
    stableMs === null ? 'nothing is stable yet' : `stable up to ${new Date(stableMs).toISOString()}`;
  return `${stable}, with ${members.length} other members; ${forgotten} deleted keys dropped, ${swept} expired keys swept`;
}

function signed(ms: number): string {
  return `${ms > 0 ? '+' : ''}${ms} ms`;
}

function columns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, at) => {
      widths[at] = Math.max(widths[at] ?? 0, cell.length);
    });
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3_600)} h`;
}

function isStatus(body: unknown): body is NodeStatus {
  return (
    typeof body === 'object' &&
    body !== null &&
    'peerId' in body &&
    'frames' in body &&
    'peers' in body &&
    Array.isArray(body.peers)
  );
}

function reason(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  if (cause.name === 'TimeoutError') return `none within ${TIMEOUT_MS / 1_000} s`;
  const inner = cause.cause as NodeJS.ErrnoException | undefined;
  return inner?.code ?? inner?.message ?? cause.message;
}
