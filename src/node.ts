/** The embed API: a node of the mesh inside a Node.js application. */
import { EventEmitter } from 'node:events';
import { text, toUint8Array } from '../crdts/bytes.js';
import { winningType } from '../crdts/key-state.js';
import { stampMs } from '../crdts/stamp.js';
import type { Engine, NodeStatus } from './engine.js';
import { ArgumentError } from './errors.js';
import { type Bytes, CounterHandle, RegisterHandle, run, SetHandle, toKey } from './handles.js';
import { NodeCore } from './node-core.js';
import type { NodeOptions } from './options.js';
import type { Conflict, ConflictSide } from './replica/conflicts.js';
import type { VerifyOptions, VerifyReport } from './verify/report.js';

/** A key changed in this region's store. */
export interface ChangeEvent {
  /** The key as text; see `keyBytes` where it may not be UTF-8. */
  readonly key: string;
  readonly keyBytes: Uint8Array;
  /** What the key holds now. */
  readonly type: 'none' | 'string' | 'set';
  /** 'local': this node's own operation; 'remote': merged from another member. */
  readonly origin: 'local' | 'remote';
}

/** One side of a conflict. */
export interface ConflictWrite {
  /** The region that wrote it, or null when it is no longer known. */
  readonly region: string | null;
  readonly replica: string;
  /** When it was written: Unix milliseconds of its stamp. */
  readonly atMs: number;
  /** What was written; null = a deletion, undefined = a set, or not known any more. */
  readonly value: Uint8Array | null | undefined;
}

/** Two regions wrote a key concurrently, and one write lost. */
export interface ConflictEvent {
  readonly key: string;
  readonly keyBytes: Uint8Array;
  readonly winner: ConflictWrite;
  readonly loser: ConflictWrite;
  /**
   * 'later': the winner was written later. 'replica': at the same stamp, the greater replica id wins. 'policy': the
   * key's policy chose; both values are kept until a write has seen them. 'type': one made it a set, the other a string; the type that was
   * written last is visible, the other is kept until the next SET or DEL.
   */
  readonly reason: 'later' | 'replica' | 'policy' | 'type';
}

/** A member came or went. */
export interface PeerEvent {
  readonly peerId: string;
  readonly region: string;
  readonly connected: boolean;
}

interface NodeEvents {
  change: [ChangeEvent];
  conflict: [ConflictEvent];
  peer: [PeerEvent];
}

/** A running node. Made by {@link createNode}. */
export class MeshNode {
  readonly #core: NodeCore;
  readonly #events: EventEmitter<NodeEvents>;

  /** @internal */
  constructor(core: NodeCore, events: EventEmitter<NodeEvents>) {
    this.#core = core;
    this.#events = events;
  }

  /** What front doors (RESP, HTTP) serve. */
  get engine(): Engine {
    return this.#core;
  }

  /** This node's PeerId. */
  get peerId(): string {
    return this.#core.peerId;
  }

  get region(): string {
    return this.#core.region;
  }

  /** Multiaddrs that other members can dial. */
  addresses(): string[] {
    return this.#core.addresses();
  }

  /** A string key as a register. With 'bytes' it reads Uint8Array instead of text. */
  register(key: Bytes): RegisterHandle<'text'>;
  register(key: Bytes, form: 'bytes'): RegisterHandle<'bytes'>;
  register(key: Bytes, form: 'text' | 'bytes' = 'text'): RegisterHandle<'text' | 'bytes'> {
    return new RegisterHandle(this.#core, key, form);
  }

  /** A string key as a counter. */
  counter(key: Bytes): CounterHandle {
    return new CounterHandle(this.#core, key);
  }

  /** A set key. With 'bytes' it reads Uint8Array instead of text. */
  set(key: Bytes): SetHandle<'text'>;
  set(key: Bytes, form: 'bytes'): SetHandle<'bytes'>;
  set(key: Bytes, form: 'text' | 'bytes' = 'text'): SetHandle<'text' | 'bytes'> {
    return new SetHandle(this.#core, key, form);
  }

  /** Removes keys of any type, all in one batch; gives how many were there. */
  async del(...keys: readonly Bytes[]): Promise<number> {
    if (keys.length === 0) throw new ArgumentError('name at least one key');
    const named = keys.map((key) => toKey(this.#core, key));
    const needs = named.map((key) => ({ key }));
    return run(this.#core, {
      needs,
      run: (tx) => named.reduce((count, key) => count + Number(tx.delete(key)), 0),
    });
  }

  /** Listens. Listeners run after the commit; what they throw is logged, and stops nothing. */
  on<E extends keyof NodeEvents>(event: E, listener: (...args: NodeEvents[E]) => void): this {
    (this.#events as EventEmitter).on(event, listener);
    return this;
  }

  /** Stops listening. */
  off<E extends keyof NodeEvents>(event: E, listener: (...args: NodeEvents[E]) => void): this {
    (this.#events as EventEmitter).off(event, listener);
    return this;
  }

  /**
   * Waits until `regions` other regions have applied everything that this node has committed so far; gives how many have
   * at the end. `timeoutMs`: 0 = wait for ever. Default: 10,000. Rejects with ArgumentError when a number isn't usable.
   */
  async waitFor(
    regions: number,
    options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<number> {
    if (!Number.isSafeInteger(regions) || regions < 0)
      throw new ArgumentError('regions must be a whole number, 0 or more');
    const timeoutMs = options.timeoutMs ?? 10_000;
    if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 0)
      throw new ArgumentError('timeoutMs must be a whole number of milliseconds; 0 waits for ever');
    return this.#core.waitFor(regions, this.#core.lastFrame(), timeoutMs, options.signal);
  }

  /**
   * Resolves when this node has caught up with the other members once, and so takes operations; at once, unless its store is
   * empty or has lost its data. Rejects with StoppedError when the node is stopped before.
   */
  whenReady(): Promise<void> {
    return this.#core.whenReady();
  }

  /**
   * Forgets a member that is gone for good, here and on every member that hears of it: what is left of deleted keys no longer waits
   * for it. Should it return, it drops its data, with whatever only it had, and begins anew. Throws ArgumentError when it is
   * this node, not a member, or connected.
   */
  forget(peerId: string): void {
    this.#core.forget(peerId);
  }

  /** The node at a glance. */
  status(): NodeStatus {
    return this.#core.status();
  }

  /** One digest over all keys: equal in two regions that hold the same data. */
  async digest(): Promise<string> {
    return (await this.#core.digest()).digest;
  }

  /**
   * Says whether all regions hold the same, compared at a common cut, and if not, which keys differ. Writes may wait for a moment, at
   * most 2,000 ms; where all members are idle and equal they don't. Rejects with ArgumentError for an option that isn't usable, LimitError
   * while another verification runs on this node.
   */
  verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    return this.#core.verify(options);
  }

  /** Commits what is queued, leaves the mesh and closes the store. Idempotent. */
  stop(): Promise<void> {
    return this.#core.stop();
  }
}

/**
 * Starts a node. Resolves when it runs. It takes operations then, unless its store is empty and it has to be brought up to
 * the other members first: see {@link MeshNode.whenReady}.
 *
 * Rejects with ConfigError (an option, an address, a key is not usable: the message says which and what to do) or
 * StoreUnavailableError (the store doesn't answer); then nothing is left running.
 */
export async function createNode(options: NodeOptions): Promise<MeshNode> {
  const events = new EventEmitter<NodeEvents>();
  // Listeners may be many; and one that throws must not stop replication.
  events.setMaxListeners(0);
  const logger = options?.logger;
  const failed = (event: string, error: unknown): void =>
    logger?.error({ err: error, event }, 'a listener threw');
  const emit = <E extends keyof NodeEvents>(event: E, ...args: NodeEvents[E]): void => {
    // One by one: what one listener throws, at once or later, must not keep the others from being told.
    for (const listener of events.rawListeners(event)) {
      try {
        const result: unknown = (listener as (...given: NodeEvents[E]) => unknown)(...args);
        if (result instanceof Promise) result.catch((error: unknown) => failed(event, error));
      } catch (error) {
        failed(event, error);
      }
    }
  };
  const core: NodeCore = await NodeCore.start(options, {
    wantsChanges: () => events.listenerCount('change') > 0,
    onChanges(records, local) {
      for (const { key, state } of records) {
        emit('change', {
          key: text(key),
          keyBytes: toUint8Array(key),
          type: winningType(state),
          origin: local ? 'local' : 'remote',
        });
      }
    },
    onConflict(conflict: Conflict) {
      if (events.listenerCount('conflict') === 0) return;
      const side = ({ stamp, replica, value }: ConflictSide): ConflictWrite => ({
        region: core.regionOf(replica) ?? null,
        replica,
        atMs: stampMs(stamp),
        value: typeof value === 'string' ? toUint8Array(value) : value,
      });
      emit('conflict', {
        key: text(conflict.key),
        keyBytes: toUint8Array(conflict.key),
        winner: side(conflict.winner),
        loser: side(conflict.loser),
        reason: conflict.reason,
      });
    },
    onPeer: (peerId, connected, region) => emit('peer', { peerId, connected, region }),
  });
  return new MeshNode(core, events);
}
