/**
 * Simulation: a whole mesh in one process, the real node code on a network that loses, duplicates, reorders and splits,
 * with members that crash and start again. A seed reproduces a run exactly (on memory stores and virtual time).
 *
 * The answer that all regions must give comes from an oracle: every frame that was ever committed, joined in the order of
 * the stamps into plain in-memory states, with none of the replica, sync or store code involved.
 */
import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { type ByteString, utf8 } from '../../crdts/bytes.js';
import { keyDigest } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { deadlineOf } from '../../crdts/expiry.js';
import {
  emptyKeyState,
  type KeyState,
  mergeKeyState,
  visibleType,
  winningPart,
} from '../../crdts/key-state.js';
import { membersOf } from '../../crdts/or-set.js';
import { resolve, siblingsOf } from '../../crdts/policy.js';
import { type RuleOptions, Rules } from '../../crdts/rules.js';
import { stampAt } from '../../crdts/stamp.js';
import { stringValue } from '../../crdts/string-key.js';
import { type MeshError, StoreResetError } from '../../src/errors.js';
import type { LoopbackNetwork } from '../../src/mesh/loopback.js';
import type { Mesh } from '../../src/mesh/mesh.js';
import { createNode, type MeshNode } from '../../src/node.js';
import type { NodeOptions } from '../../src/options.js';
import { decodeFrame, type Frame, keysOf } from '../../src/replica/frame.js';
import { readHeader } from '../../src/replica/key-record.js';
import type { Operation, Transaction } from '../../src/replica/operation.js';
import { keySlot } from '../../src/store/slots.js';
import type { AppliedMark, Store } from '../../src/store/store.js';
import { dueStamp } from '../../src/sync/forgetter.js';
import { isHeartbeat } from '../../src/sync/messages.js';
import { readStates, totalDigest } from '../../src/sync/state-transfer.js';
import type { Timers } from '../../src/timers.js';
import type { Random } from './crdt-runs.js';

const MAX_VALUE_BYTES = 8 * 1024 * 1024;

/** What a simulation needs of its surroundings. */
export interface SimulationOptions {
  /** The nodes; where nothing else is said, each is a region of its own, with its own store. */
  readonly regions: readonly string[];
  /** The region of a node, when several nodes of a region use one store. Default: as the node. */
  readonly regionOf?: (node: string) => string;
  readonly network: LoopbackNetwork;
  readonly timers: Timers;
  readonly random: Random;
  /** The clock of a region's machines. Default: `timers`. */
  readonly timersOf?: (region: string) => Timers;
  /** Data may be lost for good: regions must agree, whatever is left, and nothing may count twice. Default: false. */
  readonly lossy?: boolean;
  /** Opens the store of a region: the same data again after a crash. */
  readonly openStore: (region: string) => Store;
  /** A second store on the data of a region, to read its logs whatever state its node's own is in. */
  readonly readStore: (region: string) => Store;
  /** Draws the life of an expiring key, in milliseconds. Default: up to 4 s. */
  readonly drawTtlMs?: (random: Random) => number;
  /** More options for the nodes. */
  readonly node?: Partial<NodeOptions>;
}

/** What became of an operation. */
type Fate = 'acknowledged' | 'refused' | 'unknown';

interface Member {
  readonly name: string;
  node: MeshNode;
  mesh: Mesh;
  store: Store;
}

const COUNTERS = ['n1', 'n2'].map(utf8);
const REGISTERS = ['r1', 'r2', 'r3'].map(utf8);
const SETS = ['s1', 's2'].map(utf8);
const MIXED = ['m1', 'm2'].map(utf8);
/** Keys under a policy: the greatest value, the first one, the longest one. */
const POLICIES = ['max:1', 'fww:1', 'longest:1'].map(utf8);
export const KEYS: readonly ByteString[] = [...COUNTERS, ...REGISTERS, ...SETS, ...MIXED, ...POLICIES];
const MEMBERS = ['a', 'b', 'c', 'd', 'e'].map(utf8);

const RULES: readonly RuleOptions[] = [
  { pattern: 'max:*', type: 'string', policy: 'max' },
  { pattern: 'fww:*', type: 'string', policy: 'fww' },
  {
    pattern: 'longest:*',
    type: 'string',
    policy: {
      name: 'longest',
      resolve: (siblings) =>
        siblings.reduce((best, next) => (next.value.length > best.value.length ? next : best)).value,
    },
  },
];

const rules = new Rules(RULES);

export class Simulation {
  readonly #options: SimulationOptions;
  readonly #members = new Map<string, Member>();
  readonly #frames = new Map<string, Frame>();
  /** Replica and stamp → number of the frame that has it; and what each write of a value was. */
  readonly #stamps = new Map<string, number>();
  readonly #writes = new Map<string, string>();
  /** Replica → number of the frame up to which a region that never loses data had applied it when its maker lost some. */
  readonly #mustStay = new Map<ReplicaId, number>();
  /** Sum of the increments of a pure counter that were acknowledged, and of those whose outcome isn't known. */
  readonly #acknowledged = new Map<ByteString, bigint>();
  readonly #unknown = new Map<ByteString, bigint>();
  /** Sums of all steps of a pure counter, whatever became of them. */
  readonly #asked = new Map<ByteString, { up: bigint; down: bigint }>();
  /** What must never happen. */
  readonly #faults: string[] = [];
  readonly #gone = new Set<string>();
  operations = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
  }

  /** Starts every region. */
  async start(): Promise<void> {
    for (const region of this.#options.regions) await this.revive(region);
  }

  /** Starts a region, on the data that it had. */
  async revive(region: string): Promise<void> {
    if (this.#gone.has(region)) return;
    const { network, timersOf, random, openStore, node } = this.#options;
    const timers = timersOf?.(region) ?? this.#options.timers;
    const mesh = this.#tapped(network.mesh(region));
    const store = this.#remembering(region, openStore(region));
    const options = {
      region: this.#options.regionOf?.(region) ?? region,
      store,
      mesh,
      timers,
      random: () => random.below(1_000_000) / 1_000_000,
      heartbeatMs: 100,
      antiEntropyMs: 2_000,
      // Every set of two is big.
      bigSetMembers: 2,
      rules: RULES,
      ...node,
    };
    this.#members.set(region, { name: region, node: await createNode(options), mesh, store });
  }

  /** Ends a region without a goodbye: what was under way is lost, what was committed stays. */
  async crash(region: string): Promise<void> {
    const member = this.#members.get(region);
    if (member === undefined) return;
    this.#members.delete(region);
    await this.#collectLogs(member);
    await member.mesh.stop();
    await member.store.close();
    // Nothing is left that it could say or store; this only stops its timers.
    void member.node.stop();
  }

  /** Stops a region cleanly. */
  async shutDown(region: string): Promise<void> {
    const member = this.#members.get(region);
    if (member === undefined) return;
    this.#members.delete(region);
    await this.#collectLogs(member);
    await member.node.stop();
  }

  /** Takes note of all frames that a region's store has, before it loses them. */
  async remember(region: string): Promise<void> {
    const member = this.#members.get(region);
    if (member !== undefined) await this.#collectLogs(member);
  }

  /** Trims a region's log, as if it had grown too long, or all of it. */
  async trimLog(region: string): Promise<void> {
    const member = this.#members.get(region);
    if (member === undefined) return;
    await this.#collectLogs(member);
    const { replica, frames } = member.node.status();
    await member.store.trimLog(replica, frames.own).catch(() => {});
  }

  /**
   * A region is about to lose data. What of its current epoch any of the others has applied must stay, if these never
   * lose any.
   */
  expectKept(loser: ReplicaId, others: readonly Iterable<AppliedMark>[]): void {
    for (const marks of others)
      for (const { replica, number } of marks)
        if (replica === loser && number > (this.#mustStay.get(replica) ?? 0))
          this.#mustStay.set(replica, number);
  }

  /** Says whether a node has ended for good. */
  isGone(region: string): boolean {
    return this.#gone.has(region);
  }

  /** Ends a node for good. */
  async end(region: string): Promise<void> {
    this.#gone.add(region);
    await this.crash(region);
  }

  get alive(): string[] {
    return [...this.#members.keys()];
  }

  node(region: string): MeshNode {
    return this.#members.get(region)!.node;
  }

  /** Runs one random operation in a random region; doesn't wait for it. */
  operate(): void {
    const { random } = this.#options;
    const alive = this.alive;
    if (alive.length === 0) return;
    const member = this.#members.get(random.pick(alive))!;
    this.operations += 1;
    const kind = random.below(10);
    if (kind < 3) this.#increment(member, random.pick(COUNTERS), BigInt(random.below(20) - 5));
    else if (random.chance(20)) this.#submit(member, this.#policy(random));
    else
      this.#submit(
        member,
        kind < 5 ? this.#register(random) : kind < 8 ? this.#set(random) : this.#mixed(random),
      );
  }

  #increment(member: Member, key: ByteString, by: bigint): void {
    const asked = this.#asked.get(key) ?? { up: 0n, down: 0n };
    this.#asked.set(key, by > 0n ? { ...asked, up: asked.up + by } : { ...asked, down: asked.down - by });
    this.#submit(member, { needs: [{ key, value: true }], run: (tx) => tx.increment(key, by) }, (fate) => {
      const sums = fate === 'acknowledged' ? this.#acknowledged : fate === 'unknown' ? this.#unknown : null;
      // What isn't known may count either way: only its size bounds the answer.
      const size = fate === 'unknown' && by < 0n ? -by : by;
      sums?.set(key, (sums.get(key) ?? 0n) + size);
    });
  }

  #policy(random: Random): Operation<unknown> {
    const key = random.pick(POLICIES);
    const value = utf8(random.chance(70) ? String(random.below(1_000)) : 'y'.repeat(random.below(10)));
    const [expires, ttlMs] = [random.chance(20), this.#options.drawTtlMs?.(random) ?? 500];
    if (random.chance(15)) return { needs: [{ key }], run: (tx) => tx.delete(key) };
    return {
      needs: [{ key, value: true }],
      run: (tx) => tx.set(key, value, expires ? tx.nowMs + ttlMs : 'clear'),
    };
  }

  #register(random: Random): Operation<unknown> {
    const key = random.pick(REGISTERS);
    const value = utf8(`v${this.operations}-${'x'.repeat(random.below(300))}`);
    if (random.chance(20)) return { needs: [{ key }], run: (tx) => tx.delete(key) };
    return { needs: [{ key }], run: (tx) => tx.set(key, value, 'clear') };
  }

  #set(random: Random): Operation<unknown> {
    const key = random.pick(SETS);
    const members = random.some(MEMBERS, 3);
    if (random.chance(8)) return { needs: [{ key }], run: (tx) => tx.delete(key) };
    if (random.chance(40)) return { needs: [{ key, members }], run: (tx) => tx.remove(key, members) };
    return { needs: [{ key, members }], run: (tx) => tx.add(key, members) };
  }

  /** Any operation on keys that change their type, expire, and are touched together. */
  #mixed(random: Random): Operation<unknown> {
    const [key, other] = [random.pick(MIXED), random.pick(MIXED)];
    const members = random.some(MEMBERS, 2);
    const value = utf8(random.chance(50) ? String(random.below(100)) : `text${this.operations}`);
    const ttlMs = this.#options.drawTtlMs?.(random) ?? 1 + random.below(4_000);
    const needs = [
      { key, value: true, members },
      { key: other, value: true, members },
    ];
    const choice = random.below(9);
    const run = (tx: Transaction): unknown => {
      switch (choice) {
        case 0:
          return tx.set(key, value, 'clear');
        case 1:
          return tx.set(key, value, tx.nowMs + ttlMs);
        case 2:
          return tx.set(key, value, 'keep');
        case 3:
          return tx.add(key, members);
        case 4:
          return tx.remove(key, members);
        case 5:
          return tx.increment(key, 3n);
        case 6:
          return tx.expire(key, random.chance(25) ? null : tx.nowMs + ttlMs);
        case 7:
          return tx.delete(key);
        default:
          // Two keys as one: never seen half.
          tx.set(key, value, 'clear');
          return tx.set(other, value, 'clear');
      }
    };
    return { needs, run };
  }

  #submit(member: Member, operation: Operation<unknown>, then: (fate: Fate) => void = () => {}): void {
    let told = false;
    const tell = (fate: Fate): void => {
      if (!told) then(fate);
      told = true;
    };
    const settled = (error: Error | null): void => {
      if (error === null) tell('acknowledged');
      else {
        const { code } = error as MeshError;
        const refused = [
          'WRONGTYPE',
          'NOT_AN_INTEGER',
          'OVERFLOW',
          'STORE_REFUSED',
          'LIMIT',
          'LOADING',
        ].includes(code);
        const known = refused || ['STORE_UNAVAILABLE', 'STORE_RESET', 'STOPPED'].includes(code);
        if (!known)
          this.#faults.push(
            `an operation failed with ${code}: ${error.message} ${String(error.cause ?? '')}`,
          );
        tell(refused ? 'refused' : 'unknown');
      }
    };
    member.node.engine.submit(operation, { settled });
  }

  /** Says whether every region is alive, has applied everything, and shows the same digests. */
  async converged(): Promise<boolean> {
    if (this.#members.size < this.#options.regions.length - this.#gone.size) return false;
    const views = await Promise.all([...this.#members.values()].map((member) => this.#view(member)));
    return views.every((view) => view === views[0]);
  }

  async #view(member: Member): Promise<string> {
    const status = member.node.status();
    if (status.queue.operations > 0 || status.frames.heldBack > 0) return `busy ${status.region}`;
    for (const other of this.#members.values()) {
      const applied = status.peers.find((peer) => peer.replica === other.node.status().replica);
      if (other !== member && (applied === undefined || applied.behindFrames > 0))
        return `behind ${status.region}`;
    }
    try {
      return String(totalDigest(await member.store.digests()));
    } catch (error) {
      // It has just lost its data, and wasn't opened again yet.
      if (error instanceof StoreResetError) return `reset ${status.region}`;
      throw error;
    }
  }

  /** How many frames are known that tell of any key. */
  get telling(): number {
    let count = 0;
    for (const frame of this.#frames.values()) if (frame.deltas.length > 0) count += 1;
    return count;
  }

  /** Compares what every region's clients see with what the oracle says. Throws with the first difference. */
  async check(): Promise<void> {
    assert.deepEqual(this.#faults, []);
    if (this.#options.lossy === true) return this.#checkAlike();
    for (const member of this.#members.values()) await this.#collectLogs(member);
    const oracle = this.#join();
    let digest = 0;
    for (const [key, state] of oracle) digest = (digest + keyDigest(key, state)) % 2 ** 48;
    for (const [region, { store }] of this.#members) {
      const now = (this.#options.timersOf?.(region) ?? this.#options.timers).now();
      for (const key of KEYS) {
        const wanted = describe(key, oracle.get(key) ?? emptyKeyState(), now);
        assert.deepEqual(await this.#seen(store, key), wanted, `${key} in ${region}`);
      }
      assert.equal(totalDigest(await store.digests()), digest, `digest of ${region}`);
    }
    for (const key of COUNTERS) {
      const value = BigInt(String(describe(key, oracle.get(key) ?? emptyKeyState(), 0).value ?? '0'));
      const [known, unknown] = [this.#acknowledged.get(key) ?? 0n, this.#unknown.get(key) ?? 0n];
      assert.ok(
        value >= known - unknown && value <= known + unknown,
        `${key} is ${value}, acknowledged ${known} ± ${unknown}`,
      );
    }
  }

  /** All regions show the same; and no counter is beyond what was ever added to it, or taken from it. */
  async #checkAlike(): Promise<void> {
    const [first, ...others] = [...this.#members.values()];
    const digest = totalDigest(await first!.store.digests());
    for (const other of others) {
      assert.equal(totalDigest(await other.store.digests()), digest, `digest of ${other.node.region}`);
      for (const key of KEYS)
        assert.deepEqual(
          await this.#seen(other.store, key),
          await this.#seen(first!.store, key),
          `${key} in ${other.node.region}`,
        );
    }
    for (const key of COUNTERS) {
      const value = BigInt((await this.#seen(first!.store, key)).value ?? '0');
      const { up, down } = this.#asked.get(key) ?? { up: 0n, down: 0n };
      assert.ok(
        value <= up && value >= -down,
        `${key} is ${value}, but only +${up} and -${down} were asked for`,
      );
    }
    // All of them joined: what a key's context has seen is no live datum, so it needn't be alike.
    const states = new Map<ByteString, KeyState>();
    for (const { store } of this.#members.values()) {
      for (const [key, state] of await readStates(store, KEYS)) {
        const joined = states.get(key) ?? emptyKeyState();
        mergeKeyState(joined, state);
        states.set(key, joined);
      }
    }
    for (const [replica, through] of this.#mustStay) {
      for (let number = 1; number <= through; number += 1) {
        const frame = this.#frames.get(`${replica} ${number}`);
        assert.ok(frame !== undefined, `frame ${replica} ${number} was applied but never seen`);
        for (const [key, delta] of keysOf(frame)) {
          const state = states.get(key) ?? emptyKeyState();
          assert.ok(
            !mergeKeyState(state, delta),
            `${replica} ${number} was applied elsewhere and is lost: ${key}`,
          );
        }
      }
    }
  }

  /** Crashes a region, and has another one forget it; nothing happens when no other one is there. */
  async castOut(region: string): Promise<void> {
    const others = this.alive.filter((other) => other !== region);
    const peerId = this.#members.get(region)?.mesh.self;
    if (peerId === undefined || others.length === 0) return;
    await this.crash(region);
    const by = this.#options.random.pick(others);
    try {
      this.node(by).forget(peerId);
    } catch (error) {
      // It isn't known there yet, or its connection isn't known to be gone.
      if ((error as MeshError).code !== 'ARGUMENT') throw error;
    }
  }

  /** How many keys, in all regions, are dead or have expired, and are still kept. */
  async remains(): Promise<number> {
    let count = 0;
    for (const [region, { store }] of this.#members) {
      const now = stampAt((this.#options.timersOf?.(region) ?? this.#options.timers).now());
      for (const slot of (await store.digests()).keys())
        for (const [key, header] of (await store.headers([slot], 1))[0]!)
          if (dueStamp(readHeader(key, header).state) <= now) count += 1;
    }
    return count;
  }

  /** The stored states of the keys whose digests differ between regions, for the message of a failure. */
  async differences(): Promise<string[]> {
    const lines: string[] = [];
    for (const key of KEYS) {
      const views: string[] = [];
      for (const [region, { store }] of this.#members) {
        const slot = (await store.digests()).get(keySlot(key)) ?? 0;
        const [state] = await readStates(store, [key]);
        views.push(
          `${region}: slot ${slot} key ${state === undefined ? 0 : keyDigest(key, state[1])} ${inspect(state?.[1], { depth: 9, breakLength: 1000 })}`,
        );
      }
      if (new Set(views.map((view) => view.split(' ')[2])).size > 1) lines.push(`${key}:`, ...views);
    }
    return lines;
  }

  /** Ends every region. */
  async stop(): Promise<void> {
    for (const region of this.alive) await this.shutDown(region);
  }

  async #seen(store: Store, key: ByteString): Promise<Seen> {
    const [type] = await store.types([key]);
    if (type === 'string') {
      const [value] = await store.strings([key]);
      const [deadline] = await store.deadlines([key]);
      return { type, value: value as string, members: [], deadline: deadline ?? null };
    }
    if (type === 'set') {
      const members = (await store.members(key)) as ByteString[];
      const [deadline] = await store.deadlines([key]);
      return { type, value: null, members: members.sort(), deadline: deadline ?? null };
    }
    return NOTHING;
  }

  #join(): Map<ByteString, KeyState> {
    const frames = [...this.#frames.values()].sort(
      (a, b) => a.stamp - b.stamp || (a.replica < b.replica ? -1 : 1),
    );
    const states = new Map<ByteString, KeyState>();
    for (const frame of frames) {
      for (const [key, delta] of keysOf(frame)) {
        let state = states.get(key);
        if (state === undefined) {
          state = emptyKeyState();
          states.set(key, state);
        }
        mergeKeyState(state, delta);
      }
    }
    return states;
  }

  /** Takes note of frames that a node drops from its logs: they may have been told to the others only when they asked. */
  #remembering(region: string, store: Store): Store {
    const trimLog = store.trimLog.bind(store);
    store.trimLog = async (replica, through) => {
      const reader = this.#options.readStore(region);
      await reader.open();
      await this.#collectLog(reader, replica);
      await reader.close();
      return trimLog(replica, through);
    };
    return store;
  }

  /** Frames are seen as they are sent, and in the logs where a crash came between. */
  async #collectLogs(member: Member): Promise<void> {
    // The member's own store may be lost at this moment, and what it can't say now may be trimmed later.
    const store = this.#options.readStore(member.name);
    const { applied } = await store.open();
    for (const { replica } of applied) {
      await this.#collectLog(store, replica);
    }
    await store.close();
  }

  async #collectLog(store: Store, replica: string): Promise<void> {
    for (let from = 1; ; ) {
      const frames = await store.readFrames(replica, from, 1 << 20);
      if (frames.length === 0) return;
      for (const frame of frames) this.#keep(frame.bytes);
      from = frames.at(-1)!.number + 1;
    }
  }

  #keep(bytes: Uint8Array): void {
    const frame = decodeFrame(bytes, MAX_VALUE_BYTES);
    const name = `${frame.replica} ${frame.number}`;
    const known = this.#frames.get(name);
    if (known !== undefined) {
      if (Buffer.compare(known.bytes, bytes) !== 0) this.#fault(`frame number used twice: ${name}`);
      return;
    }
    this.#frames.set(name, { ...frame, bytes: bytes.slice() });
    this.#once(this.#stamps, `${frame.replica} ${frame.stamp}`, frame.number, 'stamp of a frame');
    for (const [key, { string }] of keysOf(frame)) {
      if (string === null || string.register.replica !== frame.replica) continue;
      const { stamp, value } = string.register;
      this.#once(this.#writes, `${frame.replica} ${stamp} ${key}`, inspect(value), 'dot');
    }
  }

  #once<V>(seen: Map<string, V>, name: string, value: V, what: string): void {
    const before = seen.get(name);
    if (before === undefined) seen.set(name, value);
    else if (before !== value) this.#fault(`${what} used twice: ${name}`);
  }

  #fault(text: string): void {
    if (!this.#faults.includes(text)) this.#faults.push(text);
  }

  #tapped(mesh: Mesh): Mesh {
    const broadcast = mesh.broadcast.bind(mesh);
    mesh.broadcast = (bytes) => {
      if (!isHeartbeat(bytes)) this.#keep(bytes);
      broadcast(bytes);
    };
    return mesh;
  }
}

interface Seen {
  readonly type: string;
  readonly value: string | null;
  readonly members: readonly string[];
  readonly deadline: number | null;
}

const NOTHING: Seen = { type: 'none', value: null, members: [], deadline: null };

function describe(key: ByteString, state: KeyState, nowMs: number): Seen {
  const type = visibleType(state, nowMs);
  const deadline = deadlineOf(state.expiry);
  if (type === 'string' && winningPart(state) === 'values') {
    return { type, value: resolve(siblingsOf(state.values!), rules.of(key).resolve), members: [], deadline };
  }
  if (type === 'string') return { type, value: stringValue(state.string!), members: [], deadline };
  if (type === 'set') return { type, value: null, members: membersOf(state.set!).sort(), deadline };
  return NOTHING;
}
