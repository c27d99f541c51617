/**
 * Random histories on three replicas that hear of each other by frames, some of them lost, and by transfers, some of them cut, while
 * operations and frames go on. In the end all must hold the join of all frames. SYNC_RUNS=n runs more, SYNC_SEED=n one alone.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { keyDigest } from '../crdts/digest.js';
import { emptyKeyState, type KeyState, mergeKeyState } from '../crdts/key-state.js';
import { covers } from '../crdts/version-vector.js';
import { CausalDelivery } from '../src/replica/causal-delivery.js';
import { decodeFrame, type Frame, keysOf } from '../src/replica/frame.js';
import type { RemoteItem } from '../src/replica/remote-batch.js';
import { missingSince, readStates, totalDigest } from '../src/sync/state-transfer.js';
import { TouchedKeys } from '../src/sync/touched-keys.js';
import { Random } from './support/crdt-runs.js';
import { add, increment, on, type ReplicaWorld, remove, replicaWorld, set } from './support/replica-world.js';
import { transfer } from './support/transfer-world.js';

const RUNS = Number(process.env.SYNC_RUNS ?? 20);
const ONLY = process.env.SYNC_SEED;
const IDS = ['a.1', 'b.1', 'c.1'];
const KEYS = ['s1', 's2', 't', 'n', 'm'];
const MEMBERS = Array.from({ length: 40 }, (_, i) => `member ${i}`);

class Region {
  readonly delivery = new CausalDelivery(1 << 20, () => false);
  readonly touched = new TouchedKeys();
  /** Frames of others on their way here. */
  readonly inbox: Frame[] = [];

  constructor(readonly world: ReplicaWorld) {}

  drain(): void {
    const frames = this.delivery.take(1 << 20);
    if (frames.length === 0) return;
    this.touched.note(frames);
    this.world.replica.merge({ frames, states: [], marks: [] });
  }
}

/** Says whether an add is no more. */
function isRemoved(state: KeyState | undefined, member: ByteString, replica: string, stamp: number): boolean {
  const dots = state?.set?.entries.get(member) ?? [];
  return !dots.some((dot) => dot.replica === replica && dot.stamp === stamp);
}

class World {
  readonly #random: Random;
  readonly #regions: Region[] = [];
  readonly #frames: Frame[] = [];

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  async start(): Promise<void> {
    for (const id of IDS) this.#regions.push(new Region(await replicaWorld({ id })));
  }

  async operate(region: Region): Promise<void> {
    const { world } = region;
    const random = this.#random;
    const key = random.pick(KEYS);
    const kind = random.below(10);
    const names = random.some(MEMBERS, 8);
    if (kind < 4) await world.submit(add(key, ...names));
    else if (kind < 7) await world.submit(remove(key, ...names));
    else if (kind === 7) await world.submit(increment('n'));
    else if (kind === 8) await world.submit(set(random.pick(['t', 'm']), `text ${random.below(100)}`));
    else if (random.chance(40)) await world.submit(on(key, (tx, name) => tx.delete(name)));
    for (const { bytes } of world.frames.splice(0)) {
      const frame = decodeFrame(bytes, 1000);
      this.#frames.push(frame);
      region.delivery.raise([frame]);
      // Some are lost on the way: only a transfer will bring what they did.
      for (const other of this.#regions)
        if (other !== region && random.chance(75)) other.inbox.push(decodeFrame(frame.bytes, 1000));
    }
  }

  /** A frame arrives somewhere, not always in order. */
  arrive(region: Region): void {
    const at = this.#random.below(Math.min(3, region.inbox.length));
    const [frame] = region.inbox.splice(at, 1);
    if (frame !== undefined) region.delivery.offer(frame);
    region.drain();
  }

  async something(): Promise<void> {
    const region = this.#random.pick(this.#regions);
    if (this.#random.chance(50)) await this.operate(region);
    else this.arrive(region);
  }

  async transfer(calm = false): Promise<void> {
    const random = this.#random;
    const [from, to] = random.some(this.#regions, 2) as [Region, Region];
    if (from === undefined || to === undefined || from === to) return;
    const { error } = await transfer(from.world, this.#asker(to), {
      bigSetMembers: random.pick([2, 4, 1024]),
      touched: to.touched,
      since: (marks) => missingSince(marks, to.world.replica.applied),
      raise: (item: RemoteItem) => {
        to.world.replica.merge(item);
        to.delivery.raise(item.marks);
        to.drain();
      },
      ...(random.chance(40) && !calm ? { cutAfter: 20 + random.below(1500) } : {}),
      meanwhile: async () => {
        for (let i = calm ? 0 : random.below(3); i > 0; i -= 1) await this.something();
      },
    });
    if (error !== null) assert.equal((error as { code?: string }).code, 'PEER', error.stack);
    await to.world.settle();
    await this.#checkMarks(to);
  }

  #asker({ world }: Region) {
    return { store: world.store, replica: world.replica };
  }

  #join(upTo: (frame: Frame) => boolean): Map<ByteString, KeyState> {
    const states = new Map<ByteString, KeyState>();
    for (const frame of [...this.#frames].sort((a, b) => a.stamp - b.stamp)) {
      if (!upTo(frame)) continue;
      for (const [key, delta] of keysOf(frame)) {
        const state = states.get(key) ?? emptyKeyState();
        states.set(key, state);
        mergeKeyState(state, delta);
      }
    }
    return states;
  }

  /** No member lives that one of the frames removed that count as applied, and none is missing that only they have added. */
  async #checkMarks({ world }: Region): Promise<void> {
    const { applied } = world.replica;
    const all = this.#join(() => true);
    const known = this.#join(({ replica, number }) => number <= (applied.get(replica)?.number ?? 0));
    for (const [key, state] of await readStates(world.store, KEYS.map(utf8))) {
      const wanted = known.get(key)?.set;
      if (state.set === null || wanted == null) continue;
      for (const [member, dots] of state.set.entries) {
        for (const { replica, stamp } of dots) {
          // A transfer that broke off may have brought an add whose frame isn't known, and own frames then tell of it.
          if (stamp > (applied.get(replica)?.stamp ?? 0)) continue;
          const live = wanted.entries
            .get(member)
            ?.some((dot) => dot.stamp === stamp && dot.replica === replica);
          assert.ok(live || !covers(wanted.context, replica, stamp), `${key} ${member} was removed`);
        }
      }
      for (const [member, dots] of wanted.entries) {
        const here = state.set.entries.get(member) ?? [];
        for (const { replica, stamp } of dots) {
          const live = here.some((dot) => dot.stamp === stamp && dot.replica === replica);
          assert.ok(live || isRemoved(all.get(key), member, replica, stamp), `${key} ${member} is missing`);
        }
      }
    }
  }

  async check(): Promise<void> {
    for (let round = 0; round < 200; round += 1) {
      await this.transfer(true);
      const totals = await Promise.all(
        this.#regions.map(async ({ world }) => totalDigest(await world.store.digests())),
      );
      const marks = this.#regions.map(({ world }) =>
        IDS.map((id) => world.replica.applied.get(id)?.number ?? 0).join(),
      );
      if (new Set(totals).size === 1 && new Set(marks).size === 1) break;
    }
    const joined = this.#join(() => true);
    let digest = 0;
    for (const [key, state] of joined) digest = (digest + keyDigest(key, state)) % 2 ** 48;
    for (const { world } of this.#regions) {
      assert.equal(totalDigest(await world.store.digests()), digest, 'digest');
      for (const [key, state] of await readStates(world.store, KEYS.map(utf8))) {
        const wanted = joined.get(key)?.set?.entries ?? new Map();
        assert.deepEqual([...(state.set?.entries.keys() ?? [])].sort(), [...wanted.keys()].sort(), key);
      }
    }
  }

  async run(): Promise<void> {
    await this.start();
    for (let step = 0; step < 80; step += 1) {
      if (this.#random.chance(12)) await this.transfer();
      else await this.something();
    }
    await this.check();
  }
}

test('three replicas end with the join of all frames, whatever is lost, cut, or written during transfers', async () => {
  const seeds = ONLY === undefined ? Array.from({ length: RUNS }, (_, i) => i + 1) : [Number(ONLY)];
  for (const seed of seeds) {
    try {
      await new World(seed).run();
    } catch (error) {
      throw new Error(`seed ${seed} (run it alone with SYNC_SEED=${seed}): ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
});
