/**
 * Metrics in Prometheus's text format: what {@link NodeStatus} holds at the moment of a scrape, and the process's own (memory, CPU,
 * event loop, garbage collection). Nothing is counted here: a metric is a line of the table below.
 *
 * Names and units: https://prometheus.io/docs/practices/naming/. A value that isn't known is left out, not 0.
 */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { NodeStatus } from '../engine.js';

interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number | null;
}

interface MeshMetric {
  /** Without the prefix. A counter's name ends in _total; it starts anew with the process. */
  readonly name: string;
  readonly help: string;
  /** Default: none, and one value. */
  readonly labels?: readonly string[];
  readonly read: (status: NodeStatus) => number | null | readonly Sample[];
}

const PREFIX = 'valkey_mesh_';
const STATES: readonly NodeStatus['state'][] = [
  'starting',
  'loading',
  'ready',
  'store-unavailable',
  'stopping',
];
const PEER_LABELS = ['peer_id', 'region'] as const;

/** One value for each peer. */
function perPeer(
  read: (peer: NodeStatus['peers'][number], status: NodeStatus) => number | null,
): MeshMetric['read'] {
  return (status) =>
    status.peers.map((peer) => ({
      labels: { peer_id: peer.peerId, region: peer.region },
      value: read(peer, status),
    }));
}

const seconds = (ms: number | null): number | null => (ms === null ? null : ms / 1000);
const flag = (yes: boolean): number => (yes ? 1 : 0);

const said = (text: string | number | undefined): number => flag(text !== undefined && text !== '');

const METRICS: readonly MeshMetric[] = [
  {
    name: 'info',
    help: 'This node; the value is always 1.',
    labels: ['version', 'region', 'peer_id', 'replica'],
    read: ({ version, region, peerId, replica }) => [
      { labels: { version, region, peer_id: peerId, replica }, value: 1 },
    ],
  },
  {
    name: 'ready',
    help: '1 while the node serves operations and has caught up with the others once.',
    read: ({ state }) => flag(state === 'ready'),
  },
  {
    name: 'state',
    help: '1 for the state that the node is in, 0 for the others.',
    labels: ['state'],
    read: ({ state }) => STATES.map((each) => ({ labels: { state: each }, value: flag(each === state) })),
  },
  {
    name: 'start_time_seconds',
    help: 'When the node was started, in Unix seconds.',
    read: ({ startedAtMs }) => seconds(startedAtMs),
  },
  {
    name: 'frames_own_total',
    help: 'Frames that this node has committed; begins anew with a new epoch.',
    read: ({ frames }) => frames.own,
  },
  {
    name: 'frames_applied_total',
    help: "Other members' frames that were applied.",
    read: ({ frames }) => frames.applied,
  },
  {
    name: 'frames_repaired_total',
    help: 'Frames that were fetched to fill a gap.',
    read: ({ frames }) => frames.repaired,
  },
  {
    name: 'frames_refused_total',
    help: 'Malformed or forged messages that were refused.',
    read: ({ frames }) => frames.refused,
  },
  {
    name: 'frames_held',
    help: 'Frames that wait for earlier ones, or for their time.',
    read: ({ frames }) => frames.heldBack,
  },
  {
    name: 'replicas_skewed',
    help: 'Replicas whose frames are held back because they come from too far in the future.',
    read: ({ frames }) => frames.skewed,
  },
  {
    name: 'queue_operations',
    help: 'Operations that wait for a commit.',
    read: ({ queue }) => queue.operations,
  },
  {
    name: 'queue_bytes',
    help: 'Bytes of the arguments of operations that wait for a commit.',
    read: ({ queue }) => queue.bytes,
  },
  {
    name: 'conflicts_total',
    help: 'Concurrent writes of which one had to win.',
    read: ({ conflicts }) => conflicts,
  },
  {
    name: 'clock_offset_seconds',
    help: "This node's clock minus the median of all members' clocks, its own included; absent while no other is known.",
    read: ({ clock }) => (clock.heard === 0 ? null : seconds(clock.offsetMs)),
  },
  {
    name: 'clock_spread_seconds',
    help: 'Time between the clock that is furthest ahead and the one furthest behind.',
    read: ({ clock }) => (clock.heard === 0 ? null : seconds(clock.spreadMs)),
  },
  {
    name: 'clock_off',
    help: "1 when most members' clocks agree with each other and not with this node's.",
    read: ({ clock }) => flag(clock.off),
  },
  {
    name: 'clock_warning',
    help: '1 when clocks differ too much, this one or others; the status says which.',
    read: ({ clock }) => flag(clock.warning !== null),
  },
  {
    name: 'stable_stamp_age_seconds',
    help: 'Age of the stable stamp, up to which what is left of deleted keys may be dropped; grows while nothing waits to be. Absent while nothing is stable.',
    read: ({ forgetting, startedAtMs, uptimeMs }) =>
      forgetting.stableMs === null
        ? null
        : seconds(Math.max(0, startedAtMs + uptimeMs - forgetting.stableMs)),
  },
  {
    name: 'forgetting_waits_for_members',
    help: 'Members that keep what is left of deleted keys from being dropped, being away or far behind.',
    read: ({ forgetting }) => forgetting.waitingFor.length,
  },
  {
    name: 'forgotten_keys_total',
    help: 'Deleted keys of which what was left has been dropped.',
    read: ({ forgetting }) => forgetting.forgotten,
  },
  {
    name: 'swept_keys_total',
    help: 'Expired keys that this node has deleted for all members.',
    read: ({ forgetting }) => forgetting.swept,
  },
  {
    name: 'loading',
    help: '1 while an empty or lost region is brought up to the others.',
    read: ({ loading }) => flag(loading !== null),
  },
  {
    name: 'loading_keys',
    help: 'Keys that have come of those that are being loaded; absent while nothing is.',
    read: ({ loading }) => loading?.keys ?? null,
  },
  {
    name: 'loading_keys_expected',
    help: 'Keys that the giver has announced; absent while unknown.',
    read: ({ loading }) => loading?.keysTotal || null,
  },
  {
    name: 'loading_bytes',
    help: 'Bytes that have come of what is being loaded; absent while nothing is.',
    read: ({ loading }) => loading?.bytes ?? null,
  },
  {
    name: 'store_warning',
    help: "1 while settings of the region's Valkey endanger data; the status tells which.",
    read: ({ store }) => said(store.warnings),
  },
  {
    name: 'store_problem',
    help: "1 while something is wrong with the connection to the region's Valkey; the status tells what.",
    read: ({ store }) => said(store.problem),
  },
  {
    name: 'peer_connected',
    help: '1 while the peer is connected.',
    labels: PEER_LABELS,
    read: perPeer(({ connected }) => flag(connected)),
  },
  {
    name: 'peer_refused',
    help: '1 while nothing is taken from the peer, because of other rules for example; the status says why.',
    labels: PEER_LABELS,
    read: perPeer(({ refused }) => flag(refused !== null)),
  },
  {
    name: 'peer_behind_frames',
    help: "The peer's frames that are known of and not applied here yet.",
    labels: PEER_LABELS,
    read: perPeer(({ behindFrames }) => behindFrames),
  },
  {
    name: 'peer_unapplied_frames',
    help: "This node's frames that the peer has not reported as applied yet.",
    labels: PEER_LABELS,
    read: perPeer(({ appliedNumber }, { frames }) => Math.max(0, frames.own - appliedNumber)),
  },
  {
    name: 'peer_silent_seconds',
    help: 'Time since anything was heard of the peer; absent if nothing ever was.',
    labels: PEER_LABELS,
    read: perPeer(({ silentMs }) => seconds(silentMs)),
  },
  {
    name: 'peer_clock_offset_seconds',
    help: "The peer's clock minus this node's; absent while unknown.",
    labels: PEER_LABELS,
    read: perPeer(({ clockOffsetMs }) => seconds(clockOffsetMs)),
  },
];

/** Writes the metrics of a status, and no others. */
export function meshMetrics(status: NodeStatus): Promise<string> {
  const registry = new Registry();
  for (const { name, help, labels = [], read } of METRICS) {
    const found = read(status);
    const samples = typeof found === 'object' && found !== null ? found : [{ value: found }];
    const config = { name: PREFIX + name, help, labelNames: labels, registers: [registry] };
    const isCounter = name.endsWith('_total');
    const metric = isCounter ? new Counter(config) : new Gauge(config);
    // Without labels a metric begins with a value of 0, known or not.
    if (labels.length === 0) metric.remove();
    for (const { labels: given = {}, value } of samples) {
      if (value === null) continue;
      if (metric instanceof Counter) metric.inc(given, value);
      else metric.set(given, value);
    }
  }
  return registry.metrics();
}

/** The metrics of a node and its process. */
export class Metrics {
  readonly #status: () => NodeStatus;
  /** Made by the first scrape: who isn't scraped doesn't pay for watching its event loop. */
  #process: Registry | null = null;
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;

  constructor(status: () => NodeStatus) {
    this.#status = status;
  }

  async scrape(): Promise<string> {
    if (this.#process === null) {
      this.#process = new Registry();
      collectDefaultMetrics({ register: this.#process });
    }
    return (await meshMetrics(this.#status())) + (await this.#process.metrics());
  }
}
