/**
 * Forgetting: a table of what may be forgotten when, and a randomized model of members that forget at different times. The model
 * keeps a shadow of each member that never forgets: what lives must be the same in both, always. Weaker rules must show.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  addMembers,
  type ByteString,
  deleteKey,
  emptyKeyState,
  expireKey,
  HybridClock,
  isExpired,
  isForgettable,
  isSweepable,
  type KeyEdit,
  type KeyState,
  keyDigest,
  lastSetWrite,
  mergeKeyState,
  type ReplicaId,
  removeMembers,
  type Site,
  STAMP_EPOCH_MS,
  type Stamp,
  setString,
  stableStamp,
  stampAt,
  stringType,
  stringValue,
  visibleType,
  winningType,
} from '../crdts/index.js';
import { Random } from './support/crdt-runs.js';

const KEY = 'k' as ByteString;
const MEMBERS = ['a', 'b'] as ByteString[];
const START = STAMP_EPOCH_MS + 1_000_000;

type Rule = (state: KeyState, stable: Stamp, nowMs: number) => boolean;

/** When to forget, and when to sweep. */
interface Policy {
  readonly forget: Rule;
  readonly sweep: Rule;
}

const RIGHT: Policy = { forget: isForgettable, sweep: isSweepable };

interface Frame {
  readonly origin: number;
  readonly stamp: Stamp;
  readonly delta: KeyState | null;
  /** Frames of each member that its origin had applied. */
  readonly after: readonly number[];
  /** What its origin has applied, this frame included. */
  readonly report: ReadonlyMap<ReplicaId, Stamp>;
}

interface Member {
  readonly id: ReplicaId;
  readonly clock: HybridClock;
  state: KeyState;
  /** Merges the same, and never forgets. */
  readonly shadow: KeyState;
  counts: number[];
  applied: Map<ReplicaId, Stamp>;
  /** The last report of each member that counts here. */
  reports: Map<number, ReadonlyMap<ReplicaId, Stamp>>;
}

/** What clients do, one list for each kind of run: rare histories are found only where nothing else goes on. */
const KINDS = [
  'add remove',
  'count count delete',
  'add remove expire',
  'set delete expire',
  'count delete set',
  'add add remove expire count count delete set',
];

/** A difference between members, or between a member and its shadow. */
class Diverged extends Error {}

/** Three members, one key, time in steps of up to a few milliseconds, clocks apart by as much. */
class Model {
  readonly random: Random;
  readonly policy: Policy;
  readonly members: Member[];
  readonly frames: Frame[][] = [[], [], []];
  forgotten = 0;
  swept = 0;
  readonly #kinds: readonly string[];
  #now = START;

  constructor(seed: number, policy: Policy) {
    this.random = new Random(seed);
    this.policy = policy;
    this.#kinds = KINDS[seed % KINDS.length]!.split(' ');
    this.members = ['b.1', 'a.1', 'c.1'].map((id, i) => ({
      id,
      clock: new HybridClock(() => this.#now + 3 * i, { maxDriftMs: 1e9 }),
      state: emptyKeyState(),
      shadow: emptyKeyState(),
      counts: [0, 0, 0],
      applied: new Map(),
      reports: new Map(),
    }));
  }

  /** Makes a frame of a delta; of null, an empty one. */
  #frame(at: number, stamp: Stamp, delta: KeyState | null): void {
    const member = this.members[at]!;
    member.applied.set(member.id, stamp);
    const after = [...member.counts];
    member.counts[at]! += 1;
    if (delta !== null) delta.touched = stamp;
    const frame = { origin: at, stamp, delta, after, report: new Map(member.applied) };
    this.frames[at]!.push(frame);
    this.#merge(member, delta);
  }

  #merge(member: Member, delta: KeyState | null): void {
    if (delta !== null) for (const state of [member.state, member.shadow]) mergeKeyState(state, delta);
    this.#compare(member);
  }

  #compare({ id, state, shadow }: Member): void {
    if (keyDigest(KEY, state) !== keyDigest(KEY, shadow))
      throw new Diverged(`${id} shows something else than if it had forgotten nothing`);
  }

  #operate(at: number): void {
    const { random } = this;
    const { id, clock, state } = this.members[at]!;
    const site: Site = { replica: id, stamp: clock.next() };
    const nowMs = Math.max(this.#now + 3 * at, Math.floor(site.stamp / 4096) + STAMP_EPOCH_MS);
    const visible = visibleType(state, nowMs);
    let edit: KeyEdit<unknown>;
    const kind = this.#kinds[random.below(this.#kinds.length)];
    try {
      if (kind === 'remove') edit = removeMembers(state, visible, [random.pick(MEMBERS)], site);
      else if (kind === 'add') edit = addMembers(state, visible, [random.pick(MEMBERS)], site);
      else if (kind === 'set') edit = setString(state, visible, KEY, 'clear', site);
      else if (kind === 'expire') edit = expireKey(state, visible, this.#now + random.below(40), nowMs, site);
      else if (kind === 'delete') edit = deleteKey(state, visible, site);
      else edit = this.#increment(at, visible, site);
    } catch {
      return;
    }
    this.#frame(at, site.stamp, edit.delta);
  }

  #increment(at: number, visible: string, site: Site): KeyEdit<unknown> {
    const { state } = this.members[at]!;
    if (visible === 'set') return { delta: null, result: null };
    const delta = (visible === 'none' ? deleteKey(state, 'string', site).delta : null) ?? emptyKeyState();
    const string = stringType.clone(state.string ?? stringType.empty());
    if (delta.string !== null) stringType.merge(string, delta.string);
    const added = stringType.mutate(string, { op: 'add', by: 1 }, site);
    if (delta.string === null) delta.string = added;
    else stringType.merge(delta.string, added);
    return { delta, result: null };
  }

  #deliver(at: number, frame: Frame): void {
    const member = this.members[at]!;
    member.clock.observe(frame.stamp);
    member.counts[frame.origin]! += 1;
    member.applied.set(this.members[frame.origin]!.id, frame.stamp);
    member.reports.set(frame.origin, frame.report);
    this.#merge(member, frame.delta);
  }

  #ready(at: number): Frame[] {
    const { counts } = this.members[at]!;
    const next = this.frames.map((frames, origin) => frames[counts[origin]!]);
    return next.filter((frame) => frame?.after.every((count, i) => count <= counts[i]!)) as Frame[];
  }

  /** Merges one member's whole state into another, and all that it had applied. */
  #transfer(from: number, to: number): void {
    const [source, target] = [this.members[from]!, this.members[to]!];
    target.clock.observe(source.clock.last);
    target.counts = target.counts.map((count, i) => Math.max(count, source.counts[i]!));
    for (const [id, stamp] of source.applied) {
      if (stamp > (target.applied.get(id) ?? 0)) target.applied.set(id, stamp);
    }
    // What it applied last of each is what that one reported last.
    for (const [origin, count] of target.counts.entries()) {
      const last = this.frames[origin]![count - 1];
      if (origin !== to && last !== undefined) target.reports.set(origin, last.report);
    }
    mergeKeyState(target.shadow, source.shadow);
    mergeKeyState(target.state, source.state);
    this.#compare(target);
  }

  #collect(at: number): void {
    const member = this.members[at]!;
    if (member.reports.size < 2) return;
    const stable = stableStamp([member.applied, ...member.reports.values()]);
    const nowMs = this.#now + 3 * at;
    if (member.state.touched > 0 && this.policy.forget(member.state, stable, nowMs)) {
      member.state = emptyKeyState();
      this.forgotten += 1;
    } else if (this.policy.sweep(member.state, stable, nowMs)) {
      const site = { replica: member.id, stamp: member.clock.next() };
      this.#frame(at, site.stamp, deleteKey(member.state, 'string', site).delta);
      this.swept += 1;
    }
    this.#compare(member);
  }

  step(): void {
    const { random } = this;
    this.#now += random.below(4);
    const at = random.below(3);
    const choice = random.below(20);
    // More deliveries than frames need: with a backlog, nothing would ever be stable.
    if (choice < 2) this.#operate(at);
    else if (choice < 12) {
      const ready = this.#ready(at);
      if (ready.length > 0) this.#deliver(at, random.pick(ready));
    } else if (choice < 14) this.#frame(at, this.members[at]!.clock.next(), null);
    else if (choice < 16) this.#transfer((at + 1 + random.below(2)) % 3, at);
    else this.#collect(at);
  }

  /** Delivers everything: then all members must show the same. */
  settle(): void {
    for (let at = 0; at < 3; at += 1) {
      for (let ready = this.#ready(at); ready.length > 0; ready = this.#ready(at))
        this.#deliver(at, this.random.pick(ready));
    }
    const digests = this.members.map(({ state }) => keyDigest(KEY, state));
    if (digests.some((digest) => digest !== digests[0]))
      throw new Diverged('the members show different things');
  }

  /** Lets every member hear of everything and collect: then nothing that is dead is left. */
  quiet(): void {
    this.#now += 1000;
    for (let round = 0; round < 4; round += 1) {
      for (let at = 0; at < 3; at += 1) this.#frame(at, this.members[at]!.clock.next(), null);
      this.settle();
      for (let at = 0; at < 3; at += 1) this.#collect(at);
      this.settle();
    }
  }
}

function run(seed: number, policy: Policy): Model {
  const model = new Model(seed, policy);
  for (let i = 0; i < 200; i += 1) model.step();
  model.settle();
  return model;
}

const RUNS = Number(process.env.LAWS_RUNS ?? '2000');

test('members that forget at different times show what they would if they had forgotten nothing', () => {
  let [forgotten, swept] = [0, 0];
  for (let seed = 1; seed <= RUNS; seed += 1) {
    try {
      const model = run(seed, RIGHT);
      forgotten += model.forgotten;
      swept += model.swept;
      model.quiet();
      for (const { state } of model.members) {
        if (winningType(state) === 'none')
          assert.deepEqual(state, emptyKeyState(), 'what is dead is forgotten in the end');
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(forgotten > RUNS / 10 && swept > RUNS / 100, `${forgotten} forgotten, ${swept} swept`);
});

/** Fails unless a weaker rule diverges within so many seeds. */
function diverges(what: string, policy: Partial<Policy>, within = 2000): void {
  test(`it matters ${what}`, () => {
    for (let seed = 1; seed <= within; seed += 1) {
      try {
        run(seed, { ...RIGHT, ...policy });
      } catch (error) {
        if (error instanceof Diverged) return;
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
    assert.fail(`nothing diverged in ${within} seeds`);
  });
}

const isDead = (state: KeyState) => isForgettable(state, Number.MAX_SAFE_INTEGER);

/** The greatest dot that a state names. */
function greatestDot({ string, set, expiry }: KeyState): Stamp {
  const counts = [...(string?.counter?.counts.values() ?? []), ...(string?.counter?.resets.values() ?? [])];
  return Math.max(
    string?.register.stamp ?? 0,
    ...counts.map(({ since }) => since),
    set === null ? 0 : lastSetWrite(set).stamp,
    ...(expiry?.context.values() ?? []),
  );
}

diverges('that touched is stable', { forget: isDead });
diverges('that touched is stable, and not only dots', {
  forget: (state, stable) => isDead(state) && greatestDot(state) <= stable,
});
diverges('that an expired key is swept, and not just forgotten', {
  forget: (state, stable) => isForgettable(state, stable) || isSweepable(state, stable),
});
diverges('that the deadline is stable too', {
  forget: (state, stable, nowMs) =>
    isForgettable(state, stable) || (state.touched <= stable && isExpired(state, nowMs)),
});
diverges('that an empty set keeps no deadline', {
  forget: (state, stable) => state.touched <= stable && winningType(state) === 'none',
});
const at = (ms: number): Stamp => stampAt(START + ms);
const site = (ms: number): Site => ({ replica: 'a', stamp: at(ms) });

/** A key after edits, each at its millisecond. */
function after(...edits: [ms: number, edit: (state: KeyState, site: Site) => KeyState | null][]): KeyState {
  const state = emptyKeyState();
  for (const [ms, edit] of edits) {
    const delta = edit(state, site(ms));
    if (delta !== null) mergeKeyState(state, { ...delta, touched: at(ms) });
  }
  return state;
}
const add = (state: KeyState, where: Site) => addMembers(state, 'set', [MEMBERS[0]!], where).delta;
const create = (state: KeyState, where: Site) => addMembers(state, 'none', [MEMBERS[0]!], where).delta;
const remove = (state: KeyState, where: Site) => removeMembers(state, 'set', [MEMBERS[0]!], where).delta;
const del = (state: KeyState, where: Site) => deleteKey(state, 'string', where).delta;
const set = (state: KeyState, where: Site) => setString(state, 'none', KEY, 'clear', where).delta;
const expire = (ms: number) => (state: KeyState, where: Site) =>
  expireKey(state, winningType(state), START + ms, 0, where).delta;

for (const [what, state, stable, forget, sweep] of [
  ['a key that was never written', emptyKeyState(), 0, true, false],
  ['a string', after([1, set]), at(9), false, false],
  ['a deleted string', after([1, set], [5, del]), at(5), true, false],
  ['a deleted string, not everywhere yet', after([1, set], [5, del]), at(5) - 1, false, false],
  ['a set', after([1, create]), at(9), false, false],
  ['an empty set', after([1, create], [5, remove]), at(5), true, false],
  [
    'an empty set whose last SREM is not everywhere yet',
    after([1, create], [5, remove]),
    at(4),
    false,
    false,
  ],
  ['a set that was added to again', after([1, create], [5, remove], [6, add]), at(9), false, false],
  ['an empty set with a deadline', after([1, create], [2, expire(50)], [5, remove]), at(9), false, true],
  ['an expired key', after([1, set], [2, expire(5)]), at(5), false, true],
  ['a key whose deadline is not stable', after([1, set], [2, expire(5)]), at(5) - 1, false, false],
  [
    'a deadline that is stable, but not known everywhere',
    after([1, set], [8, expire(5)]),
    at(7),
    false,
    false,
  ],
  ['a swept key', after([1, set], [2, expire(5)], [7, del]), at(7), true, false],
] as [string, KeyState, Stamp, boolean, boolean][]) {
  test(`${what}: ${forget ? 'may be forgotten' : sweep ? 'is to be swept' : 'stays'}`, () => {
    assert.deepEqual([isForgettable(state, stable), isSweepable(state, stable)], [forget, sweep]);
  });
}

test('a report that overtakes a frame makes the stable stamp lie', () => {
  const [x, y, z] = [emptyKeyState(), emptyKeyState(), emptyKeyState()];
  const by = (replica: string, ms: number): Site => ({ replica, stamp: at(ms) });
  const count = (ms: number): KeyState => {
    const string = y.string ?? stringType.empty();
    return {
      ...emptyKeyState(),
      touched: at(ms),
      string: stringType.mutate(string, { op: 'add', by: 1 }, by('y', ms)),
    };
  };
  const first = count(10);
  for (const state of [x, y, z]) mergeKeyState(state, first);
  const deletion = { ...deleteKey(x, 'string', by('x', 20)).delta!, touched: at(20) };
  mergeKeyState(x, deletion);
  // y makes an empty frame at 25, which reaches all, and at 30 an increment, which is late. Then it hears of the DEL.
  const second = count(30);
  mergeKeyState(y, second);
  for (const state of [y, z]) mergeKeyState(state, deletion);

  const vector = (ofX: number, ofY: number, ofZ: number) =>
    new Map([['x', at(ofX)] as const, ['y', at(ofY)] as const, ['z', at(ofZ)] as const]);
  const [hereX, hereZ] = [vector(26, 25, 27), vector(26, 25, 27)];
  const early = stableStamp([hereX, hereZ, vector(26, 30, 27)]);
  assert.ok(isForgettable(x, early), 'the function cannot know');
  const forgot = emptyKeyState();
  for (const state of [forgot, x, z]) mergeKeyState(state, second);
  assert.equal(stringValue(forgot.string!), '2', 'what the DEL cancelled is back');
  for (const state of [x, y, z]) assert.equal(stringValue(state.string!), '1');

  const reportWith25 = new Map([['y', at(25)] as const]);
  assert.equal(
    stableStamp([hereX, hereZ, reportWith25]),
    0,
    'what y reported before 30 counts: it knew nothing of x',
  );
});

test('the stable stamp is the least of all members and all replicas', () => {
  const vector = (...stamps: number[]) =>
    new Map(stamps.flatMap((stamp, i) => (stamp < 0 ? [] : [[`r${i}`, stamp] as const])));
  assert.equal(stableStamp([]), 0);
  assert.equal(stableStamp([vector()]), 0);
  assert.equal(stableStamp([vector(5, 7), vector(6, 4)]), 4);
  assert.equal(stableStamp([vector(5, 7), vector(6, -1)]), 0, 'one has heard nothing of r1');
  assert.equal(
    stableStamp([vector(5, 7, 3), vector(6, 8, 2), vector(9, 9, 9)]),
    2,
    'a retired replica counts',
  );
});
