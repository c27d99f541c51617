/** Introductions: what members say of themselves to each other, when they connect and at intervals, and who is refused. */
import type { HybridClock } from '../../crdts/stamp.js';
import { DecodeError, type MeshError, PeerError } from '../errors.js';
import { replicaHash } from '../mesh/identity.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { CausalDelivery } from '../replica/causal-delivery.js';
import type { Replica } from '../replica/replica.js';
import type { Timers } from '../timers.js';
import { lastClaimed } from './gap-repair.js';
import type { Members } from './members.js';
import {
  decodeHeartbeat,
  encodeHeartbeat,
  type Heartbeat,
  MAX_MEMBERS,
  PROTOCOL_VERSION,
  PROTOCOLS,
} from './messages.js';
import type { Siblings } from './siblings.js';
import type { Standing } from './standing.js';

export interface IntroductionsOptions {
  readonly mesh: Mesh;
  readonly replica: Replica;
  readonly clock: HybridClock;
  readonly timers: Timers;
  readonly logger: Logger;
  readonly region: string;
  /** Fingerprint of this node's rules. */
  readonly rules: string;
  readonly members: Members;
  readonly siblings: Siblings;
  readonly standing: () => Standing;
  readonly delivery: CausalDelivery;
  readonly stopped: AbortSignal;
  readonly onPeer: (peer: PeerId, connected: boolean, region: string) => void;
  /** A member has more frames of this node's current epoch than the node itself: they are lost here, and their numbers used up. */
  readonly onOvertaken: (peer: PeerId, number: number) => void;
  /** A member has said something that this node can use. */
  readonly onHeard: () => void;
}

/** Attempts to greet a peer that has connected. */
const GREETINGS = 3;

export class Introductions {
  readonly #options: IntroductionsOptions;
  readonly #warned = new Set<string>();
  /** Members that {@link IntroductionsOptions.onPeer} was told of. */
  readonly #announced = new Set<PeerId>();
  /** Messages that were refused. */
  refused = 0;

  constructor(options: IntroductionsOptions) {
    this.#options = options;
  }

  /** What this node says of itself now. */
  self(): Heartbeat {
    const { region, replica, rules, members, siblings, standing, delivery, timers } = this.#options;
    return {
      version: PROTOCOL_VERSION,
      region,
      replica: replica.id,
      rules,
      applied: [...replica.applied.values()],
      atMs: Math.max(0, Math.floor(timers.now())),
      born: standing().born,
      held: delivery.held(replica.applied),
      members: members.counted().map(({ peerId }) => peerId),
      forgotten: members.forgotten(),
      place: replica.available ? siblings.place : '',
      siblings: siblings.named.slice(0, MAX_MEMBERS),
    };
  }

  /** Tells all. */
  sayHello(): void {
    const { mesh } = this.#options;
    const bytes = encodeHeartbeat(this.self());
    if (bytes.length <= mesh.maxBroadcastBytes) mesh.broadcast(bytes);
  }

  connected(peer: PeerId): void {
    this.#options.members.setConnected(peer, true);
    this.announce(peer);
    void this.#greet(peer);
  }

  disconnected(peer: PeerId): void {
    this.#options.members.setConnected(peer, false);
    this.announce(peer);
  }

  /** Tells when a member has come, that is, when it is connected and introduced; and when it has gone. */
  announce(peer: PeerId): void {
    const member = this.#options.members.get(peer);
    const here = member?.connected === true && member.heardAtMs > 0 && member.refused === null;
    if (here === this.#announced.has(peer)) return;
    if (here) this.#announced.add(peer);
    else this.#announced.delete(peer);
    this.#options.onPeer(peer, here, member?.region ?? '');
  }

  async #greet(peer: PeerId): Promise<void> {
    const { mesh, logger, timers, members, stopped } = this.#options;
    for (let attempt = 1; attempt <= GREETINGS && members.get(peer)?.connected === true; attempt += 1) {
      try {
        const askedMs = timers.now();
        const body = encodeHeartbeat(this.self());
        for await (const answer of mesh.request(peer, PROTOCOLS.hello, body, { signal: stopped })) {
          const tookMs = timers.now() - askedMs;
          this.heard(peer, decodeHeartbeat(answer));
          members.get(peer)?.clock.greeted(tookMs);
        }
        this.#options.onHeard();
        return;
      } catch (error) {
        if (stopped.aborted) return;
        if (error instanceof DecodeError) this.refuse(peer, error);
        else logger.debug({ peer, err: error as Error }, 'a peer did not answer the greeting');
      }
    }
  }

  /** Takes in what a member says of itself. Throws DecodeError when it can't be, PeerError when the member is refused. */
  heard(from: PeerId, heartbeat: Heartbeat): void {
    const { mesh, rules, region, timers, members, siblings, replica, standing } = this.#options;
    this.checkOwner(from, heartbeat.replica);
    if (heartbeat.rules !== rules) {
      const reason = `its rules (${heartbeat.rules}) differ from those of ${region} (${rules}): give every member the same rules`;
      members.refuse(from, heartbeat, reason);
      this.announce(from);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    if (members.isFull(from)) {
      const reason = `there are ${MAX_MEMBERS} members already: forget those that are gone, with MESH FORGET`;
      members.refuse(from, heartbeat, reason);
      throw new PeerError(`${from} is refused: ${reason}`);
    }
    standing().hear(from, heartbeat);
    const member = members.heard(from, heartbeat, timers.now(), mesh.self);
    // Who shares the store may have read what this node's own commit is just being told.
    const claimed = siblings.has(from) ? 0 : lastClaimed(member, replica.id);
    if (claimed > replica.lastSent) this.#options.onOvertaken(from, claimed);
    for (const peer of [from, ...heartbeat.members]) if (peer !== mesh.self) members.count(peer);
    this.#checkRegion(from, heartbeat.region);
    this.announce(from);
    this.#options.onHeard();
  }

  #checkRegion(peer: PeerId, region: string): void {
    const { siblings, logger } = this.#options;
    if (region === this.#options.region || !siblings.has(peer)) return;
    this.#once(`region ${peer} ${region}`, (loudly) => {
      const fields = { peer, region, own: this.#options.region };
      const message = 'another node on the same store names another region: give both the same name';
      if (loudly) logger.warn(fields, message);
    });
  }

  /** A replica id begins with the hash of the PeerId that may use it, so a forged frame is seen without any state. */
  checkOwner(from: PeerId, replica: string): void {
    if (!replica.startsWith(`${replicaHash(from)}.`))
      throw new DecodeError(`replica ${replica} does not belong to ${from}`);
  }

  /** Says whether a peer has introduced itself; throws PeerError when it was refused then. */
  isMember(peer: PeerId): boolean {
    const member = this.#options.members.get(peer);
    if (member?.refused != null) throw new PeerError(`${peer} is refused: ${member.refused}`);
    return member !== undefined && member.heardAtMs > 0;
  }

  /** A peer has sent something that can't be used. */
  refuse(from: PeerId, error: unknown): void {
    const { logger } = this.#options;
    this.refused += 1;
    const { code, message } = error as MeshError;
    const fields = { peer: from, code, reason: message };
    this.#once(`${from} ${code} ${message}`, (loudly) => {
      if (loudly) logger.warn(fields, 'refused a message');
      else logger.debug(fields, 'refused a message');
    });
  }

  /** A broken peer sends many: say each thing once loudly. */
  #once(label: string, say: (loudly: boolean) => void): void {
    say(!this.#warned.has(label));
    if (this.#warned.size < 1000) this.#warned.add(label);
  }
}
