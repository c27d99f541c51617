/** A Valkey as people run it for failover: a primary, a replica, and three sentinels that watch them, all real processes. */
import { Redis } from 'ioredis';
import { type LaunchedValkey, launchValkey } from '../../src/valkey-server/launch.js';
import type { RegionStore } from './regions.js';
import { waitFor } from './wait.js';

const NAME = 'main';
const DEADLINE_MS = 60_000;

/** Two servers under three sentinels. */
export class SentinelGroup implements RegionStore {
  readonly servers: readonly [LaunchedValkey, LaunchedValkey];
  readonly sentinels: readonly LaunchedValkey[];
  readonly #asking: readonly Redis[];

  private constructor(
    servers: readonly [LaunchedValkey, LaunchedValkey],
    sentinels: readonly LaunchedValkey[],
  ) {
    this.servers = servers;
    this.sentinels = sentinels;
    this.#asking = sentinels.map(({ port }) => {
      const client = new Redis({ host: '127.0.0.1', port, enableReadyCheck: false });
      client.on('error', () => {});
      return client;
    });
  }

  /** Starts everything; resolves when the replica is in step and the sentinels know of each other. */
  static async start(): Promise<SentinelGroup> {
    const launched: LaunchedValkey[] = [];
    const launch = async (...[options]: Parameters<typeof launchValkey>) => {
      const one = await launchValkey(options);
      launched.push(one);
      return one;
    };
    try {
      const args = ['--repl-diskless-sync-delay', '0', '--repl-ping-replica-period', '1'];
      const primary = await launch({ appendonly: true, args });
      const replica = await launch({
        appendonly: true,
        args: [...args, '--replicaof', '127.0.0.1', String(primary.port)],
      });
      const sentinel = [
        `sentinel monitor ${NAME} 127.0.0.1 ${primary.port} 2`,
        `sentinel down-after-milliseconds ${NAME} 1000`,
        `sentinel failover-timeout ${NAME} 6000`,
      ];
      const sentinels = await Promise.all([0, 1, 2].map(() => launch({ sentinel })));
      const group = new SentinelGroup([primary, replica], sentinels);
      await group.settled().catch(async (error: unknown) => {
        for (const client of group.#asking) client.disconnect();
        throw error;
      });
      return group;
    } catch (error) {
      await Promise.all(launched.map((one) => one.stop()));
      throw error;
    }
  }

  get url(): string {
    return `redis+sentinel://${this.sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${NAME}`;
  }

  client(): Redis {
    const client = new Redis({
      sentinels: this.sentinels.map(({ port }) => ({ host: '127.0.0.1', port })),
      name: NAME,
      retryStrategy: () => 20,
      sentinelRetryStrategy: () => 20,
      maxRetriesPerRequest: null,
    });
    client.on('error', () => {});
    return client;
  }

  /** The server that most sentinels call the primary, and the other one. */
  async roles(): Promise<{ primary: LaunchedValkey; other: LaunchedValkey }> {
    const ports = await Promise.all(
      this.#asking.map(async (client) => {
        const answer = (await client.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME)) as [string, string];
        return Number(answer[1]);
      }),
    );
    const [one, two] = this.servers;
    return ports.filter((port) => port === one.port).length >= 2
      ? { primary: one, other: two }
      : { primary: two, other: one };
  }

  /**
   * Waits until the other server replicates the primary, and every sentinel could make it the primary. Tells it to
   * replicate, as the sentinels would, some ten seconds later.
   */
  async settled(): Promise<void> {
    const { primary, other } = await this.roles();
    const client = new Redis({ host: '127.0.0.1', port: other.port });
    try {
      await client.replicaof('127.0.0.1', String(primary.port));
      await waitFor(
        async () => {
          const views = await Promise.all(this.#asking.map((asked) => this.#view(asked, other)));
          return views.every(Boolean) && (await client.info('replication')).includes('master_link_status:up');
        },
        { deadlineMs: DEADLINE_MS, what: 'the sentinels see a primary and a replica in step' },
      );
    } finally {
      client.disconnect();
    }
  }

  async #view(client: Redis, replica: LaunchedValkey): Promise<boolean> {
    const fields = (flat: string[]) =>
      new Map(flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1]] as const] : [])));
    const primary = fields((await client.call('SENTINEL', 'MASTER', NAME)) as string[]);
    if (primary.get('flags') !== 'master' || primary.get('num-other-sentinels') !== '2') return false;
    const replicas = (await client.call('SENTINEL', 'REPLICAS', NAME)) as string[][];
    return replicas
      .map(fields)
      .some((one) => one.get('port') === String(replica.port) && one.get('flags') === 'slave');
  }

  /** Waits until the sentinels call another server the primary than before. */
  async failedOver(before: LaunchedValkey): Promise<void> {
    await waitFor(async () => (await this.roles()).primary !== before, {
      deadlineMs: DEADLINE_MS,
      what: 'the sentinels make the replica the primary',
    });
  }

  /** Asks for a failover in good order; resolves when it is under way. */
  async switchOver(): Promise<void> {
    await waitFor(
      () =>
        this.#asking[0]!.call('SENTINEL', 'FAILOVER', NAME).then(
          () => true,
          () => false,
        ),
      { deadlineMs: DEADLINE_MS, what: 'the sentinel takes the order' },
    );
  }

  async stop(): Promise<void> {
    for (const client of this.#asking) client.disconnect();
    await Promise.all([...this.sentinels, ...this.servers].map((one) => one.stop()));
  }
}
