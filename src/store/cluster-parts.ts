/**
 * The parts of a cluster: for each server that serves slots a conversation with it, and a hash of facts that stands in one of its
 * slots, the *anchor*: who writes there, what was applied there, and which commits took effect. So each server tells by itself
 * whether it has what it acknowledged, also after a failover.
 *
 * A conversation belongs to the anchor, not to the server: it goes with the slot. When an anchor's slot is moved, the server that it leaves
 * gets another one, and one of the two that the other server has now is *retired*: kept, because logs stand there, but not used.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { StoreResetError, StoreUnavailableError } from '../errors.js';
import type { Logger } from '../options.js';
import { Arrivals } from './cluster-arrivals.js';
import { PART } from './cluster-scripts.js';
import { type ClusterAccess, ClusterTopology, linkTo } from './cluster-topology.js';
import { partMetaKey, slotHashKey } from './layout.js';
import type { AppliedMark } from './store.js';
import { type HostPort, placeLabel } from './valkey-address.js';
import { ValkeyConnection } from './valkey-connection.js';
import { SLOTS_PER_CALL, ValkeyContent } from './valkey-content.js';
import { listOf, numberOf } from './valkey-link.js';
import { ValkeyReads } from './valkey-reads.js';

/** What the parts need of their surroundings. */
export interface PartsOptions {
  readonly access: ClusterAccess;
  readonly random: () => number;
  readonly logger: Logger;
  /** The writer that commits to all parts. */
  readonly writer: ByteString;
}

/** Finds anchors. ARGV: names of slot hashes, each of ARGV[2] bytes. Gives index and '0' (in use), '1' (retired) for each, flat, and at last the index of a slot that could be one; -1 = none. */
const SCAN_SCRIPT = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
local names, length, out, free = ARGV[1], tonumber(ARGV[2]), {}, -1
for i = 0, #names / length - 1 do
  local meta = string.sub(names, i * length + 1, (i + 1) * length - 1) .. 'm'
  if type(redis.pcall('EXISTS', meta .. '?')) ~= 'table' then
    if redis.call('EXISTS', meta) == 1 then
      out[#out + 1] = i
      out[#out + 1] = redis.call('HGET', meta, '${PART.retired}') and 1 or 0
    else
      free = i
    end
  end
end
out[#out + 1] = free
return out
`;

/** One server's part. */
export class Part {
  readonly anchor: number;
  readonly meta: ByteString;
  readonly connection: ValkeyConnection;
  readonly reads: ValkeyReads;
  readonly content: ValkeyContent;
  /** Marks that hold, and that its hash of facts doesn't know yet. */
  readonly behind = new Map<string, AppliedMark>();
  /** Label of the server that it is on. */
  server: string;
  /** The run id of the server where the slots that it has were last looked at; empty = nowhere. */
  lookedAt = '';

  constructor(
    anchor: number,
    server: HostPort,
    topology: ClusterTopology,
    options: PartsOptions,
    dataset: () => ByteString | null,
  ) {
    this.anchor = anchor;
    this.meta = partMetaKey(anchor);
    this.server = placeLabel(server);
    const { access, random, logger, writer } = options;
    const find = async (): Promise<HostPort> => {
      await topology.refresh();
      const place = topology.owner(anchor);
      if (place === null) throw new Error(topology.problem() ?? `no server serves slot ${anchor}`);
      return place;
    };
    this.connection = new ValkeyConnection(
      {
        at: { meta: this.meta, writer, find, dataset },
        login: access.login,
        tls: access.tls,
        db: 0,
        label: `slot ${anchor} of ${access.label}`,
      },
      { timers: access.timers, random, logger, answerTimeoutMs: access.timeoutMs },
    );
    this.reads = new ValkeyReads(this.connection);
    this.content = new ValkeyContent(this.connection, this.reads, true);
  }
}

export class ClusterParts {
  readonly topology: ClusterTopology;
  readonly #options: PartsOptions;
  /** Those in use, by their server. */
  readonly #parts = new Map<string, Part>();
  /** All anchors that are known, retired ones too. */
  readonly anchors = new Set<number>();
  readonly #retired: Part[] = [];
  /** Those whose server has another one, and that are not marked as retired yet. */
  readonly #surplus: Part[] = [];
  /** The run id that each server had when a part was last there. */
  readonly #runIds = new Map<string, string>();
  readonly #arrivals = new Arrivals();
  /** Who had each slot when all that had come was certain to be there: only those are used. */
  #owners: readonly (HostPort | null)[] = [];
  #partsThen: ReadonlyMap<string, Part> = new Map();
  /** Parts have come or gone, and nobody was told yet. */
  #changed = false;
  #version = -1;
  #adapting: Promise<void> | null = null;
  /** Told of a part that is used from now on. */
  onPart: (part: Part) => void = () => {};
  /** Told when parts have come or gone. */
  onChange: () => void = () => {};

  constructor(options: PartsOptions) {
    this.#options = options;
    this.topology = new ClusterTopology(options.access);
  }

  /** The parts in use. */
  all(): Part[] {
    return [...this.#parts.values()];
  }

  /** The part with the lowest anchor; null = there is none. What must stand once stands there. */
  first(): Part | null {
    return this.all().reduce<Part | null>(
      (one, two) => (one !== null && one.anchor < two.anchor ? one : two),
      null,
    );
  }

  /** The part that has a slot now; null while that isn't known. */
  of(slot: number): Part | null {
    const place = this.topology.owner(slot);
    if (place === null) return null;
    const server = placeLabel(place);
    if (this.topology.owners !== this.#owners) {
      const known = this.#owners[slot];
      if (!known || placeLabel(known) !== server) return null;
    }
    return this.#parts.get(server) ?? null;
  }

  /** The part that is anchored in a slot, also when it isn't used any more. Throws as a connection's open() does. */
  async anchored(anchor: number): Promise<Part> {
    for (const part of [...this.#parts.values(), ...this.#surplus, ...this.#retired])
      if (part.anchor === anchor) return part;
    const place = this.topology.owner(anchor);
    if (place === null) throw new StoreUnavailableError(`no server has the anchor slot ${anchor}`);
    const part = new Part(anchor, place, this.topology, this.#options, () => null);
    this.#retired.push(part);
    await part.connection.open();
    return part;
  }

  /** Asks the cluster anew, and adapts to what has changed. Throws as ClusterTopology.refresh and StoreResetError do. */
  async refresh(): Promise<void> {
    await this.topology.refresh();
    await this.adapt();
  }

  /** Has one part for each server. */
  adapt(): Promise<void> {
    this.#adapting ??= this.#adapt().finally(() => {
      this.#adapting = null;
    });
    return this.#adapting;
  }

  async #adapt(): Promise<void> {
    const { version } = this.topology;
    for (const part of this.#parts.values()) {
      const runId = part.connection.session?.info.runId;
      if (runId !== undefined && part.connection.place === part.server) this.#runIds.set(part.server, runId);
    }
    const { owners, askedMs } = this.topology;
    if (version === this.#version) {
      await this.#lookAtRestarted();
      this.#arrivals.looked(askedMs);
      return;
    }
    const before = [...this.#parts.values()];
    this.#parts.clear();
    for (const stays of [true, false]) {
      for (const part of before) {
        const place = this.topology.owner(part.anchor);
        // Its slot is served by nobody at the moment: it stays where it was.
        const server = place === null ? part.server : placeLabel(place);
        if ((server === part.server) !== stays) continue;
        part.server = server;
        if (this.#parts.has(server)) this.#surplus.push(part);
        else this.#parts.set(server, part);
      }
    }
    const found = this.topology.servers();
    const bare = [...found].filter(([server]) => !this.#parts.has(server));
    // The first one names the data, if they are new.
    const [first, ...others] = bare.sort(([, one], [, two]) => one.slots[0]! - two.slots[0]!);
    if (first !== undefined) await this.#add(first[0], first[1].place, first[1].slots);
    await Promise.all(others.map(([server, { place, slots }]) => this.#add(server, place, slots)));
    if (bare.length > 0 || this.#surplus.length > 0) this.#changed = true;
    for (const part of this.#surplus) await this.#retire(part);
    this.#retired.push(...this.#surplus.splice(0));
    await this.#receive(owners);
    await this.#lookAtRestarted();
    this.#arrivals.looked(askedMs);
    this.#owners = owners;
    this.#partsThen = new Map(this.#parts);
    this.#version = version;
    if (!this.#changed) return;
    this.#changed = false;
    this.onChange();
  }

  /** Has every part count what has come to it, and makes sure that it came whole. Throws StoreResetError when nobody can tell. */
  async #receive(owners: readonly (HostPort | null)[]): Promise<void> {
    const come = new Map<Part, number[]>();
    const left = new Set<Part>();
    for (const [slot, place] of owners.entries()) {
      const part = place === null ? undefined : this.#parts.get(placeLabel(place));
      if (part === undefined) continue;
      const last = this.#owners[slot];
      const from = last ? this.#partsThen.get(placeLabel(last)) : undefined;
      if (from === part) continue;
      if (from !== undefined) left.add(from);
      const slots = come.get(part);
      if (slots === undefined) come.set(part, [slot]);
      else slots.push(slot);
    }
    // Should one that they left have lost its end before, they came without it.
    await Promise.all(
      [...left].map(async ({ connection }) => {
        await connection.probe();
        connection.check();
      }),
    );
    await Promise.all([...come].map(([part, slots]) => this.#arrivals.look(part, slots)));
  }

  /** Learns of servers that were restarted or failed over since their slots were last looked at. */
  async #lookAtRestarted(): Promise<void> {
    const restarted = this.all().filter((part) => part.connection.session?.info.runId !== part.lookedAt);
    await Promise.all(restarted.map((part) => this.#arrivals.look(part, [])));
  }

  /** Makes the part of a server that has none. */
  async #add(server: string, place: HostPort, slots: readonly number[]): Promise<void> {
    const anchor = await this.#anchorOn(place, slots);
    if (anchor === null) throw new StoreUnavailableError(`all slots of ${server} are being moved`);
    const named = () => this.first()?.connection.dataset ?? null;
    const part = new Part(anchor, place, this.topology, this.#options, named);
    try {
      const session = await part.connection.open();
      if (session.facts.has(PART.retired)) await part.connection.call('HDEL', [part.meta, PART.retired]);
      if (part.connection.place !== server)
        throw new StoreUnavailableError(`slot ${anchor} left ${server} just now`);
      const known = this.#runIds.get(server);
      if (known !== undefined && known !== session.info.runId) {
        // Its anchor went to another server, and then it was restarted or failed over: nobody can tell what it has lost.
        throw new StoreResetError(`${server} was restarted while its slots were being moved`);
      }
      this.#runIds.set(server, session.info.runId);
    } catch (error) {
      await part.connection.close();
      throw error;
    }
    this.anchors.add(anchor);
    this.#parts.set(server, part);
    this.onPart(part);
  }

  /** Looks for the anchors of a server, and gives the one to use; null = there is none, and none can be. */
  async #anchorOn(place: HostPort, slots: readonly number[]): Promise<number | null> {
    const link = await linkTo(this.#options.access, place);
    try {
      const used: number[] = [];
      const retired: number[] = [];
      let free: number | null = null;
      for (let first = 0; first < slots.length; first += SLOTS_PER_CALL) {
        const some = slots.slice(first, first + SLOTS_PER_CALL);
        const names = some.map(slotHashKey);
        const flat = listOf(
          await link.send('EVAL', [SCAN_SCRIPT, '0', names.join(''), String(names[0]!.length)]),
        ).map(numberOf);
        const at = flat.pop()!;
        // The last one: operators and tools move the first slots first.
        if (at >= 0) free = some[at]!;
        for (let i = 0; i < flat.length; i += 2) (flat[i + 1] === 1 ? retired : used).push(some[flat[i]!]!);
      }
      for (const anchor of [...used, ...retired]) this.anchors.add(anchor);
      return used[0] ?? retired[0] ?? free;
    } finally {
      link.close();
    }
  }

  /** Uses a part no more, because its server has another one. */
  async #retire(part: Part): Promise<void> {
    this.#options.logger.info({ anchor: part.anchor, server: part.server }, 'an anchor slot was moved');
    await part.connection.call('HSET', [part.meta, PART.retired, '1']);
  }

  /** Closes all conversations. */
  async close(): Promise<void> {
    const parts = [...this.#parts.values(), ...this.#surplus, ...this.#retired];
    await Promise.all(parts.map((part) => part.connection.close()));
  }
}
