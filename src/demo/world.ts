/**
 * The demo's world: for each region a Valkey and a peer, and between each two regions a link with latency that can be cut.
 *
 * Peers only ever dial each other through the links' proxies, and announce no other address: a region that is cut off
 * is really cut off.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Address } from '../cli/address.js';
import { StartError } from '../cli/start-error.js';
import type { NodeStatus } from '../engine.js';
import { createIdentity, createMeshKey } from '../mesh/identity.js';
import { type LaunchedValkey, launchValkey } from '../valkey-server/launch.js';
import type { ValkeyBinaries } from '../valkey-server/obtain.js';
import { LatencyProxy } from './latency-proxy.js';
import { PeerProcess } from './peer-process.js';
import { freePorts } from './ports.js';

/** Names of the regions, in order. */
export const REGION_NAMES = ['eu', 'us', 'ap', 'sa', 'af', 'me', 'oc', 'in'] as const;

export interface WorldOptions {
  readonly regions: number;
  /** RESP port of the first region. */
  readonly basePort: number;
  /** HTTP port of the first region. */
  readonly httpPort: number;
  /** Delay of each direction of each link. */
  readonly oneWayMs: number;
  /** The server to start for each region; null = keep the values in the peers' memory. */
  readonly binaries: ValkeyBinaries | null;
}

/** One region that runs. */
export interface DemoRegion {
  readonly name: string;
  readonly resp: Address;
  readonly http: Address;
  /** Port of the region's own Valkey; null on the memory store. */
  readonly valkeyPort: number | null;
  readonly logPath: string;
  status(): Promise<NodeStatus>;
}

/** A link's proxy, as the region `from` dials it. */
interface Link {
  readonly from: number;
  readonly to: number;
  readonly proxy: LatencyProxy;
}

/** Everything that the demo started. `stop` ends all of it, whatever state it is in. */
export class World {
  readonly #options: WorldOptions;
  readonly #folder: string;
  readonly #links: Link[] = [];
  readonly #valkeys: LaunchedValkey[] = [];
  readonly #peers: PeerProcess[] = [];
  /** Resolves with a message when a peer is gone although nobody asked it to. */
  readonly lost: Promise<string>;
  #tellLost: (message: string) => void = () => {};
  #starting: Promise<unknown> = Promise.resolve();
  #stopping = false;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-demo-'));
    // When a second Ctrl-C ends this process before `stop` is done.
    process.once('exit', () => rmSync(this.#folder, { recursive: true, force: true }));
    this.lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
  }

  /** Starts everything. Rejects with StartError; then, and at the end, call {@link stop}. */
  start(): Promise<DemoRegion[]> {
    const started = this.#start();
    this.#starting = started.catch(() => {});
    return started;
  }

  /** Breaks every link of a region, and refuses new connections until {@link heal}. */
  cut(region: number): void {
    for (const link of this.#links) if (link.from === region || link.to === region) link.proxy.cut();
  }

  /** Lets connections through every link again. */
  heal(): void {
    for (const link of this.#links) link.proxy.heal();
  }

  /** Ends every process, frees every port and removes every file. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#peers.map((peer) => peer.stop()));
    await this.#starting;
    // What was started while the start was on its way out.
    await Promise.all(this.#peers.map((peer) => peer.stop()));
    await Promise.all([
      ...this.#valkeys.map((valkey) => valkey.stop()),
      ...this.#links.map((link) => link.proxy.stop()),
    ]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #start(): Promise<DemoRegion[]> {
    const regions = Array.from({ length: this.#options.regions }, (_, index) => index);
    const file = (name: string, bytes: Uint8Array) => {
      const path = join(this.#folder, name);
      writeFileSync(path, bytes, { mode: 0o600 });
      return path;
    };
    chmodSync(this.#folder, 0o700);
    const meshKey = file('mesh.key', createMeshKey());
    const identities = regions.map(() => createIdentity());
    for (const from of regions) {
      for (const to of regions) {
        if (from !== to)
          this.#links.push({ from, to, proxy: await LatencyProxy.listen(this.#options.oneWayMs) });
      }
    }
    const { binaries } = this.#options;
    if (binaries !== null) {
      const launched = await Promise.allSettled(regions.map(() => launchValkey({ binaries })));
      for (const each of launched) if (each.status === 'fulfilled') this.#valkeys.push(each.value);
      for (const each of launched) if (each.status === 'rejected') throw each.reason;
    }
    // The links lead to ports of our choice: a peer that announces no address doesn't say where it listens.
    const meshPorts = await freePorts(regions.length);
    for (const { to, proxy } of this.#links) proxy.forwardTo({ host: '127.0.0.1', port: meshPorts[to]! });
    if (this.#stopping) throw new StartError('stopped while starting');
    for (const region of regions) {
      const identity = file(`${REGION_NAMES[region]}.key`, identities[region]!.bytes);
      const links = this.#links.filter((link) => link.from === region);
      const flags = [
        ...['--region', REGION_NAMES[region]!, '--identity', identity, '--mesh-key', meshKey],
        ...['--store', this.#valkeys[region]?.url ?? 'memory'],
        ...['--listen', `/ip4/127.0.0.1/tcp/${meshPorts[region]}`, '--announce', 'none'],
        ...['--resp', `127.0.0.1:${this.#options.basePort + region}`],
        ...['--http', `127.0.0.1:${this.#options.httpPort + region}`],
        ...links.flatMap(({ to, proxy }) => [
          '--peer',
          `/ip4/127.0.0.1/tcp/${proxy.port}/p2p/${identities[to]!.peerId}`,
        ]),
        ...identities.flatMap(({ peerId }) => ['--allow', peerId]),
      ];
      this.#startPeer(REGION_NAMES[region]!, flags);
    }
    const ready = await Promise.all(this.#peers.map((peer) => peer.ready));
    return regions.map((region) => this.#describe(region, ready[region]!.resp, ready[region]!.http!));
  }

  #startPeer(name: string, flags: readonly string[]): void {
    const peer = new PeerProcess(flags, join(this.#folder, `${name}.log`));
    this.#peers.push(peer);
    void peer.gone.then(() => {
      if (this.#stopping) return;
      this.#tellLost(`the peer of ${name} ended unexpectedly; its log ends with:\n${peer.lastWords()}`);
    });
  }

  #describe(region: number, resp: Address, http: Address): DemoRegion {
    return {
      name: REGION_NAMES[region]!,
      resp,
      http,
      valkeyPort: this.#valkeys[region]?.port ?? null,
      logPath: join(this.#folder, `${REGION_NAMES[region]}.log`),
      status: async () => {
        const answer = await fetch(`http://127.0.0.1:${http.port}/api/status`, {
          signal: AbortSignal.timeout(5_000),
        });
        return (await answer.json()) as NodeStatus;
      },
    };
  }
}
