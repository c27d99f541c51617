/** A Valkey Cluster as people run it: primaries with or without replicas, all real processes, and the ways to disturb it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Cluster, Redis } from 'ioredis';
import { type LaunchedValkey, launchValkey } from '../../src/valkey-server/launch.js';
import type { ValkeyBinaries } from '../../src/valkey-server/obtain.js';
import type { Certificate } from './certificates.js';
import { freePorts } from './process.js';
import type { RegionStore } from './regions.js';
import { waitFor } from './wait.js';

const SLOTS = 16384;
const DEADLINE_MS = 60_000;
/** How long a node may be silent before the others fail it over. */
const NODE_TIMEOUT_MS = 1500;

/** Options of {@link ValkeyCluster.start}. */
export interface ClusterOptions {
  /** Default: 3. */
  readonly primaries?: number;
  /** Replicas in all; the n-th one follows the n-th primary. Default: 0. */
  readonly replicas?: number;
  /** Default: true. */
  readonly appendonly?: boolean;
  /** Data folder of some servers, by their place; see LaunchOptions.dir. Default: temporary ones. */
  readonly dirs?: Readonly<Record<number, string>>;
  /** More arguments of each server. */
  readonly args?: readonly string[];
  readonly binaries?: ValkeyBinaries;
  /** Files of the certificate that every server shows at its TLS port, see {@link ValkeyCluster.tlsUrl}. Default: no TLS. */
  readonly tls?: { readonly ca: string } & Certificate;
}

function tlsArgs(port: number, { ca, cert, key }: { ca: string } & Certificate): string[] {
  return [
    ...['--tls-port', String(port), '--tls-ca-cert-file', ca, '--tls-auth-clients', 'no'],
    ...['--tls-cert-file', cert, '--tls-key-file', key],
  ];
}

/** A cluster. */
export class ValkeyCluster implements RegionStore {
  /** The servers that began as primaries, then those that began as replicas. */
  readonly servers: LaunchedValkey[];
  readonly #primaries: number;

  private constructor(servers: LaunchedValkey[], primaries: number) {
    this.servers = servers;
    this.#primaries = primaries;
  }

  /** Starts everything; resolves when every server sees the whole cluster and the replicas are in step. */
  static async start(options: ClusterOptions = {}): Promise<ValkeyCluster> {
    const { primaries = 3, replicas = 0, appendonly = true, dirs = {}, args = [], binaries, tls } = options;
    const count = primaries + replicas;
    const launched: LaunchedValkey[] = [];
    try {
      // The bus port is usually 10,000 higher, which the system's free ports don't leave room for.
      const first = await freePorts(3 * count);
      const launches = Array.from({ length: count }, (_, at) =>
        launchValkey({
          port: first + 3 * at,
          appendonly,
          ...(dirs[at] === undefined ? {} : { dir: dirs[at] }),
          ...(binaries === undefined ? {} : { binaries }),
          args: [
            ...['--cluster-enabled', 'yes', '--cluster-port', String(first + 3 * at + 1)],
            ...['--cluster-node-timeout', String(NODE_TIMEOUT_MS), '--repl-diskless-sync-delay', '0'],
            ...['--cluster-replica-validity-factor', '0', ...args],
            ...(tls === undefined ? [] : tlsArgs(first + 3 * at + 2, tls)),
          ],
        }),
      );
      for (const each of await Promise.allSettled(launches))
        if (each.status === 'fulfilled') launched.push(each.value);
      await Promise.all(launches);
      const cluster = new ValkeyCluster(launched, primaries);
      await cluster.#join();
      return cluster;
    } catch (error) {
      await Promise.all(launched.map((one) => one.stop()));
      throw error;
    }
  }

  async #join(): Promise<void> {
    const clients = this.servers.map((server) => this.admin(server));
    try {
      const busOf = (server: LaunchedValkey) => String(server.port + 1);
      const each = SLOTS / this.#primaries;
      await Promise.all(
        clients.map(async (client, at) => {
          await client.call('CLUSTER', 'SET-CONFIG-EPOCH', String(at + 1));
          if (at >= this.#primaries) return;
          const [from, to] = [Math.round(at * each), Math.round((at + 1) * each) - 1];
          await client.call('CLUSTER', 'ADDSLOTSRANGE', String(from), String(to));
        }),
      );
      for (const server of this.servers.slice(1)) {
        await clients[0]!.call('CLUSTER', 'MEET', '127.0.0.1', String(server.port), busOf(server));
      }
      await this.#knowEachOther(clients);
      for (const [at, client] of clients.slice(this.#primaries).entries()) {
        const primary = (await clients[at]!.call('CLUSTER', 'MYID')) as string;
        await client.call('CLUSTER', 'REPLICATE', primary);
      }
      await this.settled();
    } finally {
      for (const client of clients) client.disconnect();
    }
  }

  async #knowEachOther(clients: readonly Redis[]): Promise<void> {
    await waitFor(
      async () => {
        const infos = await Promise.all(
          clients.map((client) => client.call('CLUSTER', 'INFO') as Promise<string>),
        );
        return infos.every((info) => info.includes(`cluster_known_nodes:${clients.length}`));
      },
      { deadlineMs: DEADLINE_MS, what: 'the servers know each other' },
    );
  }

  /** Waits until every server that runs says that all slots are served, and every replica is in step. */
  async settled(servers: readonly LaunchedValkey[] = this.servers): Promise<void> {
    const clients = servers.map((server) => this.admin(server));
    try {
      await waitFor(
        async () => {
          const infos = await Promise.all(
            clients.map(async (client) => {
              try {
                return `${await client.call('CLUSTER', 'INFO')}${await client.info('replication')}`;
              } catch {
                return '';
              }
            }),
          );
          return infos.every(
            (info) =>
              info.includes('cluster_state:ok') &&
              (info.includes('role:master') || info.includes('master_link_status:up')),
          );
        },
        { deadlineMs: DEADLINE_MS, what: 'the cluster is whole' },
      );
    } finally {
      for (const client of clients) client.disconnect();
    }
  }

  get url(): string {
    return `redis+cluster://${this.servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
  }

  /** The same with TLS; the CA's file belongs behind it. */
  get tlsUrl(): string {
    return `rediss+cluster://${this.servers.map(({ port }) => `127.0.0.1:${port + 2}`).join(',')}`;
  }

  client(enableAutoPipelining = false): Cluster {
    const made = new Cluster(
      this.servers.map(({ port }) => ({ host: '127.0.0.1', port })),
      {
        clusterRetryStrategy: () => 50,
        retryDelayOnFailover: 50,
        slotsRefreshTimeout: 5000,
        enableAutoPipelining,
      },
    );
    made.on('error', () => {});
    return made;
  }

  /** A client of one server, that comes back by itself. */
  admin(server: LaunchedValkey): Redis {
    const client = new Redis({
      host: '127.0.0.1',
      port: server.port,
      retryStrategy: () => 50,
      maxRetriesPerRequest: null,
      enableReadyCheck: false,
    });
    client.on('error', () => {});
    return client;
  }

  /** Runs a command on every server that is a primary now. */
  async onPrimaries(...command: [string, ...string[]]): Promise<unknown[]> {
    const answers: unknown[] = [];
    for (const server of this.servers) {
      const client = this.admin(server);
      try {
        if ((await client.info('replication')).includes('role:master'))
          answers.push(await client.call(...command));
      } finally {
        client.disconnect();
      }
    }
    return answers;
  }

  /** Removes every key. */
  async flush(): Promise<void> {
    await this.onPrimaries('FLUSHALL');
  }

  /** The id of a server in the cluster. */
  async idOf(server: LaunchedValkey): Promise<string> {
    const client = this.admin(server);
    try {
      return (await client.call('CLUSTER', 'MYID')) as string;
    } finally {
      client.disconnect();
    }
  }

  /** Of the first primary and its replica: which is which now. */
  async roles(): Promise<{ primary: LaunchedValkey; replica: LaunchedValkey }> {
    const [one, two] = [this.servers[0]!, this.servers[this.#primaries]!];
    return (await this.isPrimary(one)) ? { primary: one, replica: two } : { primary: two, replica: one };
  }

  async isPrimary(server: LaunchedValkey): Promise<boolean> {
    const client = this.admin(server);
    try {
      return (await client.info('replication')).includes('role:master');
    } finally {
      client.disconnect();
    }
  }

  /** Moves some slots from one server to another, as an operator does. */
  async reshard(from: LaunchedValkey, to: LaunchedValkey, slots: number): Promise<void> {
    const { cli, env } = from.binaries;
    if (cli === null) throw new Error('there is no valkey-cli beside valkey-server');
    const [source, target] = [await this.idOf(from), await this.idOf(to)];
    await promisify(execFile)(
      cli,
      [
        ...[
          '--cluster',
          'reshard',
          `127.0.0.1:${from.port}`,
          '--cluster-from',
          source,
          '--cluster-to',
          target,
        ],
        ...['--cluster-slots', String(slots), '--cluster-yes'],
      ],
      { env, maxBuffer: 1e8 },
    );
  }

  /** Moves one slot, step by step as valkey-cli does; `whileOpen` is called while its keys are at two places. */
  async moveSlot(
    slot: number,
    from: LaunchedValkey,
    to: LaunchedValkey,
    whileOpen: () => Promise<unknown> = async () => {},
  ): Promise<void> {
    await this.beginMove(slot, from, to);
    await whileOpen();
    await this.#moveKeys(slot, from, to);
    await whileOpen();
    await this.endMove(slot, from, to);
  }

  /** Opens a slot for a move, or once more after a failover, and moves some of its keys. */
  async beginMove(slot: number, from: LaunchedValkey, to: LaunchedValkey, keys = 0): Promise<void> {
    const [sourceId, targetId] = [await this.idOf(from), await this.idOf(to)];
    await this.#tell(to, 'SETSLOT', String(slot), 'IMPORTING', sourceId);
    await this.#tell(from, 'SETSLOT', String(slot), 'MIGRATING', targetId);
    if (keys > 0) await this.#moveKeys(slot, from, to, keys);
  }

  /** Moves what is left of a slot's keys, and closes it. */
  async endMove(slot: number, from: LaunchedValkey, to: LaunchedValkey): Promise<void> {
    await this.#moveKeys(slot, from, to);
    const targetId = await this.idOf(to);
    for (const server of [to, from]) await this.#tell(server, 'SETSLOT', String(slot), 'NODE', targetId);
  }

  async #moveKeys(
    slot: number,
    from: LaunchedValkey,
    to: LaunchedValkey,
    most = Number.POSITIVE_INFINITY,
  ): Promise<void> {
    const source = this.admin(from);
    try {
      for (let left = most; left > 0; ) {
        const count = String(Math.min(10, left));
        const found = (await source.callBuffer('CLUSTER', 'GETKEYSINSLOT', String(slot), count)) as Buffer[];
        if (found.length === 0) return;
        const target = ['127.0.0.1', String(to.port), '', '0', '5000'];
        // After a failover a key may stand at both; nobody has written to it meanwhile.
        await source.call('MIGRATE', ...target, 'REPLACE', 'KEYS', ...found);
        left -= found.length;
      }
    } finally {
      source.disconnect();
    }
  }

  /** Tells a server something of a slot; again while it hasn't heard of a failover that it rests on. */
  async #tell(server: LaunchedValkey, ...command: string[]): Promise<void> {
    const client = this.admin(server);
    let refusal = '';
    const isTaken = () =>
      client.call('CLUSTER', ...command).then(
        () => true,
        (error: Error) => {
          refusal = error.message;
          return false;
        },
      );
    try {
      await waitFor(isTaken, { deadlineMs: 20_000, what: `CLUSTER ${command.join(' ')}` }).catch(
        (error: Error) => {
          throw new Error(`${error.message} (${refusal})`);
        },
      );
    } finally {
      client.disconnect();
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((one) => one.stop()));
  }
}
