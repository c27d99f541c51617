/** What a node says of itself. */
import type { LoadingStatus, NodeStatus, PeerStatus } from './engine.js';
import type { Replica } from './replica/replica.js';
import type { Member } from './sync/members.js';
import type { Sync } from './sync/sync.js';
import { VERSION } from './version.js';

export interface StatusFacts {
  readonly peerId: string;
  readonly region: string;
  readonly replica: Replica;
  readonly sync: Sync;
  readonly state: NodeStatus['state'];
  readonly loading: LoadingStatus | null;
  readonly addresses: string[];
  readonly startedAtMs: number;
  readonly nowMs: number;
  readonly store: NodeStatus['store'];
  readonly conflicts: number;
}

export function nodeStatus(facts: StatusFacts): NodeStatus {
  const { peerId, region, replica, sync, state, loading, addresses, startedAtMs, nowMs, store } = facts;
  const { counters } = sync;
  return {
    version: VERSION,
    peerId,
    region,
    replica: replica.id,
    state: state === 'ready' && loading !== null ? 'loading' : state,
    loading,
    addresses,
    startedAtMs,
    uptimeMs: nowMs - startedAtMs,
    store,
    frames: {
      own: replica.lastFrame,
      applied: counters.applied,
      heldBack: sync.heldBack,
      skewed: sync.skewed.length,
      repaired: counters.repaired,
      refused: counters.refused,
    },
    queue: replica.queued,
    conflicts: facts.conflicts,
    clock: sync.clock,
    forgetting: sync.forgetting,
    peers: sync.members.all().map((member) => peerStatus(member, facts)),
  };
}

function peerStatus(member: Member, { replica, sync, nowMs }: StatusFacts): PeerStatus {
  return {
    peerId: member.peerId,
    region: member.region,
    replica: member.replica,
    connected: member.connected,
    appliedNumber: member.applied.get(replica.id) ?? 0,
    behindFrames: sync.missing(member.replica),
    silentMs: member.heardAtMs === 0 ? null : Math.max(0, nowMs - member.heardAtMs),
    clockOffsetMs: member.clock.ms,
    refused: member.refused,
    ...(sync.siblings.has(member.peerId) ? { sharesStore: true } : {}),
  };
}
