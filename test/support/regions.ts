/**
 * Regions as they run in the world: each a real peer process beside a real Valkey, and between each two a link that can be
 * cut. Peers reach each other through the links' proxies only, so a region that is cut off really is.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cluster, Redis } from 'ioredis';
import { LatencyProxy } from '../../src/demo/latency-proxy.js';
import type { NodeStatus } from '../../src/engine.js';
import { createIdentity, createMeshKey } from '../../src/mesh/identity.js';
import { type LaunchedValkey, launchValkey } from '../../src/valkey-server/launch.js';
import { CliProcess, freePorts } from './process.js';
import { waitFor } from './wait.js';

const NAMES = ['eu', 'us', 'ap', 'sa'];

/** How long a peer or a comparison may take before a test fails; far more than it takes on a busy machine. */
const DEADLINE_MS = 60_000;

/** A Valkey that a test starts by itself, in another shape than a single server. */
export interface RegionStore {
  /** What the peer's `--store` says. */
  readonly url: string;
  /** A client for the keys that are visible in it. */
  client(): Redis | Cluster;
}

/** Options of {@link Regions.start}. */
export interface RegionsOptions {
  /** Default: 3. */
  readonly count?: number;
  /** Delay of each direction of each link. Default: 3. */
  readonly oneWayMs?: number;
  /** More arguments of each valkey-server. */
  readonly valkeyArgs?: readonly string[];
  /** Keep data over restarts of Valkey. Default: true. */
  readonly appendonly?: boolean;
  /** Stores to use instead of a Valkey of the region's own, by the region's place; the test ends them. */
  readonly stores?: readonly RegionStore[];
  /** Nodes that use the Valkey of another one, and are of its region: place → place of that one. Default: none. */
  readonly shares?: Readonly<Record<number, number>>;
  /** How many of the last ones have their Valkey, but no peer until `start` is called. Default: 0. */
  readonly late?: number;
  /** Flags of every peer, besides those that join them. */
  readonly flags?: readonly string[];
  /** Environment of the peers, such as NODE_OPTIONS. */
  readonly env?: NodeJS.ProcessEnv;
}

/** The answer of MESH DIGEST, and who gave it. */
export interface RegionDigest {
  readonly region: string;
  readonly digest: string;
}

/** A client that says no word about lost connections, and doesn't come back by itself. */
export function connectTo(port: number): Redis {
  const client = new Redis({
    host: '127.0.0.1',
    port,
    retryStrategy: null,
    enableReadyCheck: false,
    // A refused connection rejects the first command, not this.
    lazyConnect: false,
  });
  client.on('error', () => {});
  return client;
}

/** One region: its peer, its Valkey, and a client for each. */
export class Region {
  readonly name: string;
  readonly valkey: LaunchedValkey;
  /** Straight to the region's Valkey; it survives restarts of the server. */
  readonly reader: Redis | Cluster;
  readonly #storeUrl: string;
  readonly #flags: readonly string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly #clients: Redis[] = [];
  #peer: CliProcess | null = null;
  #door: Redis | null = null;
  #respPort = 0;
  #httpPort = 0;

  /** @internal */
  constructor(
    name: string,
    valkey: LaunchedValkey,
    flags: readonly string[],
    env: NodeJS.ProcessEnv,
    store?: RegionStore,
  ) {
    this.name = name;
    this.valkey = valkey;
    this.#flags = flags;
    this.#env = env;
    this.#storeUrl = store?.url ?? valkey.url;
    this.reader =
      store?.client() ??
      new Redis({
        host: '127.0.0.1',
        port: valkey.port,
        retryStrategy: () => 20,
        maxRetriesPerRequest: null,
      });
    this.reader.on('error', () => {});
  }

  /** The same, of a region with a single server. */
  get native(): Redis {
    assert(this.reader instanceof Redis, `the region ${this.name} has a cluster`);
    return this.reader;
  }

  /** A client of the region's front door; another one after each start of the peer. */
  get door(): Redis {
    assert(this.#door !== null, `the peer of ${this.name} is not running`);
    return this.#door;
  }

  /** Port of the front door. */
  get respPort(): number {
    return this.#respPort;
  }

  /** Where the peer's HTTP door is. */
  get url(): string {
    return `http://127.0.0.1:${this.#httpPort}`;
  }

  /** What the peer has logged since it was last started. */
  get log(): string {
    return this.#peer?.stderr ?? '';
  }

  /** Says whether the peer has been started, and not ended. */
  get running(): boolean {
    return this.#door !== null;
  }

  /** Process id of the peer. */
  get pid(): number {
    return this.#peer?.child.pid ?? 0;
  }

  /** Another client of the front door, which is gone at the end. */
  connect(): Redis {
    const client = connectTo(this.#respPort);
    this.#clients.push(client);
    return client;
  }

  /** Starts the peer: the same identity and the same Valkey each time. `more`: flags for this time. */
  async start(more: readonly string[] = []): Promise<void> {
    this.#peer = new CliProcess(
      ['peer', '--exit-with-parent', '--store', this.#storeUrl, ...this.#flags, ...more],
      this.#env,
    );
    const ready = await this.#peer.ready();
    this.#respPort = ready.resp.port;
    this.#httpPort = ready.http!.port;
    this.#door = this.connect();
  }

  /** Ends the peer with a signal, and waits until it is gone. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const peer = this.#peer;
    if (peer === null) return;
    await peer.end(signal);
    for (const client of this.#clients.splice(0)) client.disconnect();
    this.#door = null;
  }

  /** Ends the peer with a signal and starts it again. */
  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.kill(signal);
    await this.start();
  }

  /** The status of the answer to GET of a path at the HTTP door. */
  async http(path: string): Promise<number> {
    return (await fetch(`http://127.0.0.1:${this.#httpPort}${path}`)).status;
  }

  /** What the peer says of itself. */
  async status(): Promise<NodeStatus> {
    const answer = await fetch(`http://127.0.0.1:${this.#httpPort}/api/status`);
    return (await answer.json()) as NodeStatus;
  }

  /** The answer of MESH DIGEST. */
  async digest(): Promise<RegionDigest> {
    const [, digest] = (await this.door.call('MESH', 'DIGEST')) as [string, string];
    return { region: this.name, digest };
  }

  /** @internal */
  async stop(): Promise<void> {
    this.reader.disconnect();
    // SIGCONT first: a peer that a test left stopped can't end.
    this.#peer?.child.kill('SIGCONT');
    await this.kill('SIGKILL');
    await this.valkey.stop();
  }
}

interface Link {
  readonly from: number;
  readonly to: number;
  readonly proxy: LatencyProxy;
}

/** Regions that run together. Started by {@link Regions.start}, ended by `stop`. */
export class Regions {
  readonly all: readonly Region[];
  readonly #links: readonly Link[];
  readonly #folder: string;
  #rounds = 0;

  private constructor(all: readonly Region[], links: readonly Link[], folder: string) {
    this.all = all;
    this.#links = links;
    this.#folder = folder;
  }

  /** Starts Valkeys, links and peers; resolves when all peers see each other. On failure nothing is left running. */
  static async start(options: RegionsOptions = {}): Promise<Regions> {
    const {
      count = 3,
      late = 0,
      oneWayMs = 3,
      appendonly = true,
      valkeyArgs = [],
      flags: more = [],
      env = {},
      stores = [],
      shares = {},
    } = options;
    const numbers = Array.from({ length: count }, (_, at) => at);
    const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-regions-'));
    const links: Link[] = [];
    const valkeys: LaunchedValkey[] = [];
    const all: Region[] = [];
    try {
      const file = (name: string, bytes: Uint8Array): string => {
        const path = join(folder, name);
        writeFileSync(path, bytes, { mode: 0o600 });
        return path;
      };
      const meshKey = file('mesh.key', createMeshKey());
      const identities = numbers.map(() => createIdentity());
      const firstPort = await freePorts(count);
      for (const from of numbers) {
        for (const to of numbers) {
          if (from === to) continue;
          const proxy = await LatencyProxy.listen(oneWayMs);
          proxy.forwardTo({ host: '127.0.0.1', port: firstPort + to });
          links.push({ from, to, proxy });
        }
      }
      const launched = await Promise.allSettled(
        numbers
          .filter((at) => shares[at] === undefined)
          .map(() => launchValkey({ appendonly, args: valkeyArgs })),
      );
      for (const each of launched) if (each.status === 'fulfilled') valkeys.push(each.value);
      for (const each of launched) if (each.status === 'rejected') throw each.reason;
      const own = numbers.filter((at) => shares[at] === undefined);
      for (const at of numbers) {
        const home = shares[at] ?? at;
        const flags = [
          ...more,
          ...['--region', NAMES[home]!, '--mesh-key', meshKey],
          ...['--identity', file(`${NAMES[at]}.key`, identities[at]!.bytes)],
          ...['--listen', `/ip4/127.0.0.1/tcp/${firstPort + at}`, '--announce', 'none'],
          ...['--resp', '127.0.0.1:0', '--http', '127.0.0.1:0'],
          ...identities.flatMap(({ peerId }) => ['--allow', peerId]),
          ...links
            .filter(({ from }) => from === at)
            .flatMap(({ to, proxy }) => [
              '--peer',
              `/ip4/127.0.0.1/tcp/${proxy.port}/p2p/${identities[to]!.peerId}`,
            ]),
        ];
        all.push(new Region(NAMES[at]!, valkeys[own.indexOf(home)]!, flags, env, stores[at]));
      }
      await Promise.all(all.slice(0, count - late).map((region) => region.start()));
      const regions = new Regions(all, links, folder);
      await regions.connected();
      return regions;
    } catch (error) {
      await Promise.all(all.map((region) => region.stop()));
      await Promise.all([
        ...valkeys.map((valkey) => valkey.stop()),
        ...links.map(({ proxy }) => proxy.stop()),
      ]);
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Breaks the link between two regions, or, with one alone, all links of that region. */
  cut(a: Region, b?: Region): void {
    for (const { from, to, proxy } of this.#links) {
      const ends = [this.all[from], this.all[to]];
      if (ends.includes(a) && (b === undefined || ends.includes(b))) proxy.cut();
    }
  }

  /** Lets every link carry again. */
  heal(): void {
    for (const { proxy } of this.#links) proxy.heal();
  }

  /** Waits until every peer that runs says that it is ready, and connected with every other one. */
  async connected(): Promise<void> {
    await waitFor(
      async () => {
        const statuses = await Promise.all(
          this.all.filter(({ running }) => running).map((region) => region.status()),
        );
        return statuses.every(
          ({ state, peers }) =>
            state === 'ready' &&
            peers.filter(({ connected, region }) => connected && region !== '').length ===
              statuses.length - 1,
        );
      },
      { deadlineMs: DEADLINE_MS, what: 'every peer is connected with every other one' },
    );
  }

  /**
   * Says whether all regions are equal: no frame is missing anywhere, as far as the peers know of each other, and all
   * digests are the same.
   */
  async converged(): Promise<boolean> {
    const statuses = await Promise.all(this.all.map((region) => region.status()));
    const behind = statuses.some(
      ({ frames, peers }) => frames.heldBack > 0 || peers.some(({ behindFrames }) => behindFrames > 0),
    );
    if (behind) return false;
    const digests = await Promise.all(this.all.map((region) => region.digest()));
    return digests.every(({ digest }) => digest === digests[0]!.digest);
  }

  /**
   * Waits until every region has applied all that every other one had committed when this was called, and all are equal.
   *
   * Frames of a replica are applied in order, so a key that a region writes last is a marker: where it is seen, all that
   * the region wrote before it is there.
   */
  async synchronise(deadlineMs = DEADLINE_MS): Promise<void> {
    this.#rounds += 1;
    const round = String(this.#rounds);
    const markers = this.all.map(({ name }) => `marker:${name}`);
    await Promise.all(this.all.map((region, at) => region.door.set(markers[at]!, round)));
    await waitFor(
      async () => {
        const seen = await Promise.all(
          this.all.map(({ reader }) => Promise.all(markers.map((marker) => reader.get(marker)))),
        );
        return seen.flat().every((value) => value === round);
      },
      { deadlineMs, what: 'what every region wrote is in every Valkey' },
    );
    try {
      await waitFor(() => this.converged(), { deadlineMs });
    } catch (cause) {
      const statuses = await Promise.all(this.all.map((region) => region.status()));
      const digests = await Promise.all(this.all.map((region) => region.digest()));
      throw new Error(`the regions do not converge: ${JSON.stringify({ digests, statuses }, null, 1)}`, {
        cause,
      });
    }
  }

  /** Ends every process, frees every port and removes every file. */
  async stop(): Promise<void> {
    await Promise.all(this.all.map((region) => region.stop()));
    await Promise.all(this.#links.map(({ proxy }) => proxy.stop()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Waits until the machine's clock shows a later millisecond, so that what comes next has a greater stamp. */
export async function laterMoment(): Promise<void> {
  const until = Date.now() + 2;
  await waitFor(() => Date.now() > until, { what: 'a later millisecond' });
}
