/** The text of INFO: Valkey's form and field names where they mean the same, and a section of our own. */
import process from 'node:process';
import { type ByteString, utf8 } from '../../../crdts/bytes.js';
import type { Session } from '../session.js';
import { COMPATIBLE_REDIS_VERSION, COMPATIBLE_VERSION } from './version.js';

type Fields = readonly (readonly [string, string | number])[];

const mebi = (bytes: number): string => `${(bytes / (1024 * 1024)).toFixed(2)}M`;

const SECTIONS: Readonly<Record<string, (session: Session) => Fields | Promise<Fields>>> = {
  server: ({ door, engine }) => {
    const uptimeSeconds = Math.floor((Date.now() - door.startedAtMs) / 1000);
    return [
      ['redis_version', COMPATIBLE_REDIS_VERSION],
      ['server_name', 'valkey'],
      ['valkey_version', COMPATIBLE_VERSION],
      ['valkey_mesh_version', engine.status().version],
      ['redis_mode', 'standalone'],
      ['os', `${process.platform} ${process.arch}`],
      ['arch_bits', 64],
      ['node_version', process.versions.node],
      ['process_id', process.pid],
      ['tcp_port', door.port],
      ['server_time_usec', engine.now() * 1000],
      ['uptime_in_seconds', uptimeSeconds],
      ['uptime_in_days', Math.floor(uptimeSeconds / 86_400)],
    ];
  },
  clients: ({ door }) => {
    const sessions = [...door.sessions()];
    return [
      ['connected_clients', sessions.length],
      ['maxclients', door.maxClients],
      ['client_recent_max_input_buffer', Math.max(0, ...sessions.map(({ unreadBytes }) => unreadBytes))],
      ['client_recent_max_output_buffer', Math.max(0, ...sessions.map(({ unsentBytes }) => unsentBytes))],
      ['blocked_clients', 0],
    ];
  },
  memory: () => {
    const { rss, heapUsed, external } = process.memoryUsage();
    return [
      ['used_memory', heapUsed + external],
      ['used_memory_human', mebi(heapUsed + external)],
      ['used_memory_rss', rss],
      ['used_memory_rss_human', mebi(rss)],
      ['maxmemory', 0],
      ['maxmemory_human', '0B'],
      ['maxmemory_policy', 'noeviction'],
    ];
  },
  persistence: ({ engine }) => {
    const { loading } = engine.status();
    // Client libraries that wait for a server to be ready look at `loading`.
    if (loading === null || engine.refusal() === null) return [['loading', 0]];
    return [
      ['loading', 1],
      ['loading_start_time', Math.floor(loading.sinceMs / 1000)],
      ['loading_loaded_bytes', loading.bytes],
      ['loading_loaded_keys', loading.keys],
      ['loading_total_keys', loading.keysTotal],
      ['loading_eta_seconds', loading.secondsLeft ?? 1],
    ];
  },
  stats: ({ door: { stats } }) => [
    ['total_connections_received', stats.connectionsReceived],
    ['total_commands_processed', stats.commandsProcessed],
    ['total_net_input_bytes', stats.bytesIn],
    ['total_net_output_bytes', stats.bytesOut],
    ['rejected_connections', stats.connectionsRejected],
  ],
  replication: ({ engine }) => {
    const { peers, frames } = engine.status();
    return [
      ['role', 'master'],
      // Regions are equals, not replicas: a client that sends reads to replicas must not look for any here.
      ['connected_slaves', 0],
      ['master_repl_offset', frames.own],
      ['mesh_peers_connected', peers.filter(({ connected }) => connected).length],
    ];
  },
  mesh: ({ engine }) => {
    const status = engine.status();
    return [
      ['mesh_region', status.region],
      ['mesh_state', status.state],
      ['mesh_peer_id', status.peerId],
      ['mesh_replica', status.replica],
      ['mesh_peers', status.peers.length],
      ['mesh_peers_connected', status.peers.filter(({ connected }) => connected).length],
      ['mesh_frames_own', status.frames.own],
      ['mesh_frames_applied', status.frames.applied],
      ['mesh_frames_held_back', status.frames.heldBack],
      ['mesh_frames_skewed', status.frames.skewed],
      ['mesh_frames_repaired', status.frames.repaired],
      ['mesh_frames_refused', status.frames.refused],
      ['mesh_queue_operations', status.queue.operations],
      ['mesh_queue_bytes', status.queue.bytes],
      ['mesh_conflicts', status.conflicts],
      ['mesh_clock_offset_ms', status.clock.offsetMs],
      ['mesh_clock_off', status.clock.off ? 1 : 0],
      ['mesh_clock_warning', status.clock.warning ?? ''],
      ['mesh_forgetting_stable_ms', status.forgetting.stableMs ?? 0],
      ['mesh_forgetting_members', status.forgetting.members.length],
      ['mesh_forgetting_waiting_for', status.forgetting.waitingFor.join(',')],
      ['mesh_forgotten_keys', status.forgetting.forgotten],
      ['mesh_swept_keys', status.forgetting.swept],
      ...status.peers.map(
        (peer, i) =>
          [
            `mesh_peer${i}`,
            `id=${peer.peerId},region=${peer.region},connected=${peer.connected ? 1 : 0},applied=${peer.appliedNumber},behind=${peer.behindFrames},clock_offset_ms=${peer.clockOffsetMs ?? 'unknown'}`,
          ] as const,
      ),
    ];
  },
  keyspace: async ({ engine }) => {
    try {
      const keys = await engine.reads.count();
      return keys === 0 ? [] : [['db0', `keys=${keys},expires=0,avg_ttl=0`]];
    } catch {
      // INFO is what an operator asks when the store is away, so it must answer then too.
      return [];
    }
  },
};

/** Gives the asked-for sections; none asked for, `default`, `all` and `everything` give all. Unknown ones give nothing. */
export async function infoText(session: Session, asked: readonly ByteString[]): Promise<ByteString> {
  const names = new Set(asked.map((name) => name.toLowerCase()));
  const all = names.size === 0 || ['default', 'all', 'everything'].some((name) => names.has(name));
  const parts: string[] = [];
  for (const [name, fieldsOf] of Object.entries(SECTIONS)) {
    if (!all && !names.has(name)) continue;
    const fields = await fieldsOf(session);
    const title = `# ${name[0]?.toUpperCase()}${name.slice(1)}\r\n`;
    parts.push(title + fields.map(([field, value]) => `${field}:${value}\r\n`).join(''));
  }
  return utf8(parts.join('\r\n'));
}
