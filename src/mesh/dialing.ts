/**
 * Dialing: reaches every known member, and reaches it again after each loss, for as long as the node runs.
 *
 * Known are the configured addresses, which are never given up, and the members that others told us of, which are
 * forgotten when they can't be reached for long. Waiting times double from 250 ms to 10 s, with ±50 % of jitter.
 */
import type { Logger } from '../options.js';
import type { Cancel, Timers } from '../timers.js';
import type { PeerId } from './mesh.js';

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 10_000;
/** A member that others told us of is forgotten when it wasn't reached for this long. */
const FORGET_AFTER_MS = 300_000;
/** Members that are remembered because others told us of them. */
export const MAX_LEARNED_MEMBERS = 256;
/** Addresses that are remembered of one member. */
export const MAX_ADDRESSES_PER_MEMBER = 8;

/** Thrown by a dial that leads back to this node. */
export class SelfDialError extends Error {}

/** What dialing needs from the network. */
export interface DialPort {
  readonly self: PeerId;
  /** Connects to one of the addresses and returns who is there. Throws when none can be reached. */
  dial(addresses: readonly string[]): Promise<PeerId>;
  isConnected(peer: PeerId): boolean;
  isAllowed(peer: PeerId): boolean;
}

interface Target {
  readonly key: string;
  readonly configured: boolean;
  addresses: readonly string[];
  /** Known from the address, from others, or since the first connection. */
  peer: PeerId | undefined;
  failures: number;
  /** When it was last seen or first heard of. */
  sinceMs: number;
  dialing: boolean;
  cancel: Cancel | undefined;
  /** What the log said last, so that it says it only once. */
  logged: string;
}

/** Keeps dialing members until it is stopped. */
export class Dialing {
  readonly #targets = new Map<string, Target>();
  #stopped = false;

  constructor(
    private readonly port: DialPort,
    private readonly timers: Timers,
    private readonly random: () => number,
    private readonly logger: Logger,
  ) {}

  /** Starts to dial a configured address; `peer` when the address names it. */
  configure(address: string, peer: PeerId | undefined): void {
    if (peer === this.port.self) {
      this.logger.warn({ address }, 'a configured peer is this node itself: it is not dialed');
      return;
    }
    this.#add(address, true, [address], peer, 0);
  }

  /** Starts to dial a member that another one told us of. */
  learn(peer: PeerId, addresses: readonly string[]): void {
    if (peer === this.port.self || !this.port.isAllowed(peer)) return;
    const key = `/p2p/${peer}`;
    const known = this.#targets.get(key);
    // With its PeerId, an address that has changed hands leads nowhere instead of to someone else.
    const bounded = addresses
      .map((address) => (address.includes('/p2p/') ? address : address + key))
      .filter((address) => address.endsWith(key))
      .slice(0, MAX_ADDRESSES_PER_MEMBER);
    if (bounded.length === 0) return;
    if (known !== undefined) {
      known.addresses = bounded;
      return;
    }
    const learned = [...this.#targets.values()].filter((target) => !target.configured).length;
    if (learned >= MAX_LEARNED_MEMBERS) return;
    // Both ends may hear of each other at once: one waits a little, so that there is one connection and not two.
    this.#add(key, false, bounded, peer, this.port.self < peer ? 0 : 2 * FIRST_RETRY_MS);
  }

  /** Says that a member is reachable: its next loss is dialed without delay. */
  reached(peer: PeerId): void {
    for (const target of this.#of(peer)) {
      target.failures = 0;
      target.logged = '';
    }
  }

  /** Says that the last connection to a member is gone. */
  lost(peer: PeerId): void {
    for (const target of this.#of(peer)) {
      target.sinceMs = this.timers.now();
      this.#retryLater(target);
    }
  }

  /** Ends all dialing. */
  stop(): void {
    this.#stopped = true;
    for (const target of this.#targets.values()) target.cancel?.();
    this.#targets.clear();
  }

  #of(peer: PeerId): Target[] {
    return [...this.#targets.values()].filter((target) => target.peer === peer);
  }

  #add(
    key: string,
    configured: boolean,
    addresses: readonly string[],
    peer: PeerId | undefined,
    delayMs: number,
  ) {
    const sinceMs = this.timers.now();
    const target: Target = {
      ...{ key, configured, addresses, peer, sinceMs },
      failures: 0,
      dialing: false,
      cancel: undefined,
      logged: '',
    };
    this.#targets.set(key, target);
    if (delayMs === 0) void this.#dial(target);
    else target.cancel = this.timers.after(delayMs, () => void this.#dial(target));
  }

  #remove(target: Target): void {
    target.cancel?.();
    this.#targets.delete(target.key);
  }

  #retryLater(target: Target): void {
    if (this.#stopped || this.#targets.get(target.key) !== target || target.dialing) return;
    if (!target.configured && this.timers.now() - target.sinceMs > FORGET_AFTER_MS) {
      this.#remove(target);
      return;
    }
    const backoffMs = Math.min(FIRST_RETRY_MS * 2 ** target.failures, LAST_RETRY_MS);
    target.failures = Math.min(target.failures + 1, 20);
    target.cancel?.();
    target.cancel = this.timers.after(backoffMs * (0.5 + this.random()), () => void this.#dial(target));
  }

  async #dial(target: Target): Promise<void> {
    if (this.#stopped || target.dialing) return;
    // While it is connected nothing is to do; `lost` comes when it no longer is.
    if (target.peer !== undefined && this.port.isConnected(target.peer)) return;
    target.dialing = true;
    try {
      const peer = await this.port.dial(target.addresses);
      target.dialing = false;
      target.peer = peer;
      if (peer === this.port.self) this.#giveUpSelf(target);
      else if (!this.port.isConnected(peer)) this.#retryLater(target);
    } catch (error) {
      target.dialing = false;
      if (this.#stopped) return;
      if (isSelfDial(error)) this.#giveUpSelf(target);
      else {
        this.#logFailure(target, error);
        this.#retryLater(target);
      }
    }
  }

  #giveUpSelf(target: Target): void {
    this.#remove(target);
    this.logger.warn({ address: target.key }, 'a configured peer is this node itself: it is not dialed');
  }

  /** Warns of configured addresses, and only when the reason is a new one. */
  #logFailure(target: Target, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    const fields = { address: target.key, reason };
    if (!target.configured || reason === target.logged) {
      this.logger.debug(fields, 'a peer can not be reached, trying again');
      return;
    }
    target.logged = reason;
    this.logger.warn(
      fields,
      'a peer can not be reached, trying again for as long as it takes: ' +
        'check the address, the PeerId in it, the mesh key and its allow-list',
    );
  }
}

function isSelfDial(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isSelfDial);
  return error instanceof SelfDialError;
}
