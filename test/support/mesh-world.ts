/** Whole nodes on a loopback network and virtual time, with a look at what they ask each other. */

import { LoopbackNetwork, type LoopbackOptions } from '../../src/mesh/loopback.js';
import type { Mesh } from '../../src/mesh/mesh.js';
import { createNode, type MeshNode } from '../../src/node.js';
import type { NodeOptions } from '../../src/options.js';
import type { Timers } from '../../src/timers.js';
import { VirtualTimers } from '../../src/virtual-timers.js';
import { GatedStore } from './gated-store.js';

/** What a node is started with, besides the options of {@link createNode}. */
export interface StartOptions extends Omit<Partial<NodeOptions>, 'store'> {
  /** How far the node's clock is ahead of the others. Default: 0. */
  readonly aheadMs?: number;
  /** The same, for a clock that is set while the node runs. */
  readonly clock?: { readonly aheadMs: number };
  readonly store?: GatedStore;
}

export class MeshWorld {
  readonly timers = new VirtualTimers();
  readonly network: LoopbackNetwork;
  /** Every request: 'asker protocol responder'. */
  readonly requests: string[] = [];
  readonly stores = new Map<string, GatedStore>();
  readonly nodes = new Map<string, MeshNode>();
  readonly meshes = new Map<string, Mesh>();
  /** May answer a request in the place of whom it was meant for; `given` is what that one would answer. */
  intercept: (
    from: string,
    protocol: string,
    to: string,
    body: Uint8Array,
    given: AsyncIterable<Uint8Array>,
  ) => AsyncIterable<Uint8Array> = (_from, _protocol, _to, _body, given) => given;

  constructor(options: LoopbackOptions = {}) {
    this.network = new LoopbackNetwork({ timers: this.timers, random: () => 0.5, latencyMs: 5, ...options });
  }

  /** Starts a node; its name is its region and its PeerId. One that was started before goes on with its store's data. */
  async start(
    region: string,
    { aheadMs = 0, clock = { aheadMs }, ...options }: StartOptions = {},
  ): Promise<MeshNode> {
    const timers: Timers = {
      now: () => this.timers.now() + clock.aheadMs,
      after: (delayMs, fn) => this.timers.after(delayMs, fn),
    };
    const before = this.stores.get(region);
    const store =
      options.store ?? new GatedStore({ timers: this.timers, ...(before && { dataset: before.dataset }) });
    this.stores.set(region, store);
    const mesh = this.network.mesh(region);
    const request = mesh.request.bind(mesh);
    mesh.request = (peer, protocol, body, more) => {
      this.requests.push(`${region} ${protocol} ${peer}`);
      return this.intercept(region, protocol, peer, body, request(peer, protocol, body, more));
    };
    this.meshes.set(region, mesh);
    const node = await this.timers.runToEnd(
      createNode({ region, mesh, timers, random: () => 0.5, ...options, store }),
    );
    this.nodes.set(region, node);
    return node;
  }

  /** Starts several nodes alike, and lets them meet. */
  async startAll(regions: readonly string[], options: StartOptions = {}): Promise<MeshNode[]> {
    const nodes: MeshNode[] = [];
    for (const region of regions) nodes.push(await this.start(region, options));
    await this.until('all have met', () =>
      nodes.every(
        (node) => node.status().peers.filter((peer) => peer.connected).length === regions.length - 1,
      ),
    );
    return nodes;
  }

  run<T>(promise: Promise<T>): Promise<T> {
    return this.timers.runToEnd(promise);
  }

  /** Waits for a condition, in virtual time. */
  until(what: string, condition: () => boolean | Promise<boolean>, withinMs = 60_000): Promise<void> {
    return this.timers.runUntil(condition, what, { withinMs });
  }

  /** Waits until all running nodes have the same digest, nothing is missing, and none is loading. */
  equal(withinMs = 60_000): Promise<void> {
    return this.until(
      'all regions are equal',
      async () => {
        const nodes = [...this.nodes.values()];
        const digests = await Promise.all(nodes.map((node) => node.digest()));
        return (
          new Set(digests).size === 1 &&
          nodes
            .map((node) => node.status())
            .every(({ loading, peers }) => loading === null && peers.every((peer) => peer.behindFrames === 0))
        );
      },
      withinMs,
    );
  }

  /** How often one has asked another. */
  asked(asker: string, protocol: string): number {
    return this.requests.filter((request) => request.startsWith(`${asker} ${protocol} `)).length;
  }

  async stop(): Promise<void> {
    for (const node of this.nodes.values()) await this.run(node.stop());
  }
}
