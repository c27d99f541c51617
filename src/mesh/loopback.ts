/**
 * The loopback mesh: nodes of one process, joined by a network that misbehaves as it is told.
 *
 * Broadcasts may be lost, come twice, late and out of order; requests are reliable, but break when their link is cut.
 * Everything happens on the given timers and every choice comes from the given random source, so with virtual timers
 * the same seed gives exactly the same run. Broadcasts travel directly: nobody relays them, which is harder on the
 * layers above than gossip is. A link that is cut in one direction only still carries broadcasts in the other, but
 * neither end counts as reachable.
 */
import { LimitError, PeerError } from '../errors.js';
import type { Timers } from '../timers.js';
import { LoopbackRequest } from './loopback-request.js';
import type { Mesh, MeshHandlers, PeerId, RequestOptions } from './mesh.js';

/** How the network behaves; all of it may be changed while it runs. */
export interface LoopbackFaults {
  /** Time that a message takes, or the bounds between which it is drawn. Default: 0. */
  latencyMs: number | readonly [min: number, max: number];
  /** Probability that a broadcast doesn't reach a member. Default: 0. */
  loss: number;
  /** Probability that a broadcast reaches a member twice. Default: 0. */
  duplication: number;
  /** Probability that a broadcast is held up, so that later ones overtake it. Otherwise broadcasts on a link keep their order. Default: 0. */
  reordering: number;
  /** Longest time that a reordered broadcast is held up. Default: 100. */
  reorderingMs: number;
}

export interface LoopbackOptions extends Partial<LoopbackFaults> {
  /** Default: the machine's clock, where a message under way keeps the process alive, as a socket does. */
  readonly timers?: Timers;
  /** Source of randomness, 0 ≤ x < 1. Default: Math.random. */
  readonly random?: () => number;
  /** The largest broadcast. Default: 256 KiB. */
  readonly maxBroadcastBytes?: number;
}

const socketLikeTimers: Timers = {
  now: () => Date.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    return () => clearTimeout(timer);
  },
};

/** What the network did so far. */
export interface LoopbackCounts {
  sent: number;
  delivered: number;
  lost: number;
  duplicated: number;
  reordered: number;
}

/** Joins the meshes of one process. */
export class LoopbackNetwork {
  /** Loss, latency and the rest; assign to its fields to change them. */
  readonly faults: LoopbackFaults;
  /** Broadcasts, counted once for each member that they are meant for. */
  readonly counts: LoopbackCounts = { sent: 0, delivered: 0, lost: 0, duplicated: 0, reordered: 0 };
  readonly timers: Timers;
  readonly maxBroadcastBytes: number;
  readonly #random: () => number;
  readonly #meshes = new Map<PeerId, LoopbackMesh>();
  /** Links that are cut, as `from\nto`. */
  readonly #cut = new Set<string>();
  /** When the last broadcast in order arrives, for each `from\nto`. */
  readonly #lastArrivalMs = new Map<string, number>();

  constructor(options: LoopbackOptions = {}) {
    const { timers, random, maxBroadcastBytes, ...faults } = options;
    this.timers = timers ?? socketLikeTimers;
    this.#random = random ?? Math.random;
    this.maxBroadcastBytes = maxBroadcastBytes ?? 256 * 1024;
    this.faults = { latencyMs: 0, loss: 0, duplication: 0, reordering: 0, reorderingMs: 100, ...faults };
  }

  /** Creates the mesh of a new member; one that has stopped is replaced. Throws PeerError when the name is in use. */
  mesh(peer: PeerId): Mesh {
    if (this.#meshes.has(peer)) throw new PeerError(`the loopback network has a member ${peer} already`);
    const mesh = new LoopbackMesh(this, peer);
    this.#meshes.set(peer, mesh);
    return mesh;
  }

  /** Splits the network: only members of one group reach each other. Who is in no group is alone. Replaces earlier cuts. */
  partition(groups: readonly (readonly PeerId[])[]): void {
    const groupOf = new Map(groups.flatMap((group, index) => group.map((peer) => [peer, index] as const)));
    this.#cut.clear();
    for (const from of this.#names(groups.flat())) {
      for (const to of this.#names(groups.flat())) {
        if (from !== to && (!groupOf.has(from) || groupOf.get(from) !== groupOf.get(to)))
          this.#cut.add(link(from, to));
      }
    }
    this.#refresh();
  }

  /** Cuts one link: what `from` sends no longer reaches `to`, and with `oneWay: false` (the default) nor the other way. */
  cut(from: PeerId, to: PeerId, options: { readonly oneWay?: boolean } = {}): void {
    this.#cut.add(link(from, to));
    if (options.oneWay !== true) this.#cut.add(link(to, from));
    this.#refresh();
  }

  /** Mends the link between two members, or without arguments all links. */
  heal(a?: PeerId, b?: PeerId): void {
    if (a === undefined || b === undefined) this.#cut.clear();
    else {
      this.#cut.delete(link(a, b));
      this.#cut.delete(link(b, a));
    }
    this.#refresh();
  }

  /** Draws the time that one message takes. */
  latency(): number {
    const { latencyMs } = this.faults;
    if (typeof latencyMs === 'number') return latencyMs;
    return latencyMs[0] + this.#random() * (latencyMs[1] - latencyMs[0]);
  }

  /** @internal */
  carries(from: PeerId, to: PeerId): boolean {
    const [sender, receiver] = [this.#meshes.get(from), this.#meshes.get(to)];
    if (sender?.handlers === undefined || receiver?.handlers === undefined) return false;
    return !this.#cut.has(link(from, to));
  }

  /** @internal */
  member(peer: PeerId): LoopbackMesh | undefined {
    return this.#meshes.get(peer);
  }

  /** @internal */
  broadcast(from: LoopbackMesh, bytes: Uint8Array): void {
    for (const to of this.#meshes.keys()) {
      if (to === from.self || !this.carries(from.self, to)) continue;
      this.counts.sent += 1;
      if (this.#happens(this.faults.loss)) {
        this.counts.lost += 1;
        continue;
      }
      this.#deliver(from, to, bytes);
      if (this.#happens(this.faults.duplication)) {
        this.counts.duplicated += 1;
        this.#deliver(from, to, bytes);
      }
    }
  }

  /** @internal Tells members who has become reachable and who no longer is. */
  joined(): void {
    this.#refresh();
  }

  /** @internal */
  left(mesh: LoopbackMesh): void {
    if (this.#meshes.get(mesh.self) === mesh) this.#meshes.delete(mesh.self);
    this.#refresh();
  }

  #deliver(from: LoopbackMesh, to: PeerId, bytes: Uint8Array): void {
    const receiver = this.#meshes.get(to);
    const key = link(from.self, to);
    let arrivalMs = this.timers.now() + this.latency();
    if (this.#happens(this.faults.reordering)) {
      this.counts.reordered += 1;
      arrivalMs += this.#random() * this.faults.reorderingMs;
    } else {
      arrivalMs = Math.max(arrivalMs, this.#lastArrivalMs.get(key) ?? 0);
      this.#lastArrivalMs.set(key, arrivalMs);
    }
    const copy = bytes.slice();
    this.timers.after(arrivalMs - this.timers.now(), () => {
      // A member that was replaced meanwhile (a restart) is not the one that this was sent to.
      if (this.#meshes.get(to) !== receiver || !this.carries(from.self, to)) return;
      this.counts.delivered += 1;
      receiver?.handlers?.onBroadcast(from.self, copy);
    });
  }

  #happens(probability: number): boolean {
    return probability > 0 && this.#random() < probability;
  }

  #names(more: readonly PeerId[]): Set<PeerId> {
    return new Set([...this.#meshes.keys(), ...more]);
  }

  #refresh(): void {
    for (const mesh of this.#meshes.values()) mesh.refresh(this.#meshes.keys());
  }
}

class LoopbackMesh implements Mesh {
  readonly maxBroadcastBytes: number;
  /** Set while the mesh runs. */
  handlers: MeshHandlers | undefined;
  readonly #network: LoopbackNetwork;
  readonly #reachable = new Set<PeerId>();
  readonly #requests = new Set<LoopbackRequest>();
  #stopped = false;

  constructor(
    network: LoopbackNetwork,
    readonly self: PeerId,
  ) {
    this.#network = network;
    this.maxBroadcastBytes = network.maxBroadcastBytes;
  }

  addresses(): string[] {
    return this.handlers === undefined ? [] : [`/memory/${this.self}`];
  }

  async start(handlers: MeshHandlers): Promise<void> {
    if (this.#stopped || this.handlers !== undefined) throw new PeerError('a mesh can be started only once');
    this.handlers = handlers;
    this.#network.joined();
  }

  broadcast(bytes: Uint8Array): void {
    if (bytes.byteLength > this.maxBroadcastBytes) {
      throw new LimitError(
        `a broadcast of ${bytes.byteLength} bytes is over the limit of ${this.maxBroadcastBytes}`,
      );
    }
    if (this.handlers !== undefined) this.#network.broadcast(this, bytes);
  }

  async *request(
    peer: PeerId,
    protocol: string,
    body: Uint8Array,
    options: RequestOptions = {},
  ): AsyncGenerator<Uint8Array> {
    const responder = this.#network.member(peer);
    if (peer === this.self || responder?.handlers === undefined || !this.#isUp(peer)) {
      throw new PeerError(`peer ${peer} is not reachable`);
    }
    const request = new LoopbackRequest(
      this.#network,
      { asker: this.self, responder: peer, protocol, body: body.slice() },
      options,
      responder.handlers,
    );
    this.#requests.add(request);
    responder.#requests.add(request);
    try {
      for (;;) {
        const chunk = await request.next();
        if (chunk === undefined) return;
        yield chunk;
      }
    } finally {
      request.end(new PeerError(`the asker ${this.self} went away`));
      this.#requests.delete(request);
      responder.#requests.delete(request);
    }
  }

  peers(): PeerId[] {
    return [...this.#reachable];
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.handlers = undefined;
    this.#reachable.clear();
    for (const request of this.#requests) request.end(new PeerError(`${this.self} has stopped`));
    this.#network.left(this);
  }

  /** Compares who is reachable with who was: a loss is reported at once, a gain after one latency. */
  refresh(names: Iterable<PeerId>): void {
    for (const peer of [...this.#reachable]) {
      if (this.#isUp(peer)) continue;
      this.#reachable.delete(peer);
      this.#later(0, () => {
        if (!this.#reachable.has(peer)) this.handlers?.onDisconnect(peer);
      });
    }
    for (const request of [...this.#requests]) {
      const { asker, responder } = request.parties;
      const other = asker === this.self ? responder : asker;
      if (!this.#isUp(other))
        request.end(new PeerError(`the connection between ${asker} and ${responder} broke`));
    }
    for (const peer of names) {
      if (peer === this.self || this.#reachable.has(peer) || !this.#isUp(peer)) continue;
      this.#later(this.#network.latency(), () => {
        if (this.#reachable.has(peer) || !this.#isUp(peer)) return;
        this.#reachable.add(peer);
        this.handlers?.onConnect(peer);
      });
    }
  }

  #isUp(peer: PeerId): boolean {
    return this.#network.carries(this.self, peer) && this.#network.carries(peer, this.self);
  }

  #later(delayMs: number, fn: () => void): void {
    this.#network.timers.after(delayMs, fn);
  }
}

function link(from: PeerId, to: PeerId): string {
  return `${from}\n${to}`;
}
