/** Sets of which only the members that an operation names are loaded: the same deltas, the same results as the whole. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ByteString,
  dominates,
  dotsOf,
  emptyKeyState,
  hasMember,
  InvariantError,
  isSetLive,
  membersOf,
  mergeKeyState,
  type SetOp,
  type SetState,
  setType,
} from '../crdts/index.js';
import { anySteps, play } from './support/crdt-history.js';
import { commandDelta, keySubject, MEMBERS } from './support/crdt-keys.js';
import { check, Random } from './support/crdt-runs.js';
import { setSubject } from './support/crdt-subjects.js';

/** What a store loads of a big set: its context, its size, and the members that an operation names. */
function partOf(state: SetState, named: readonly ByteString[]): SetState {
  return {
    context: new Map(state.context),
    entries: new Map(named.map((member) => [member, dotsOf(state, member)])),
    whole: false,
    size: state.size,
  };
}

test('set: partly loaded, it makes the same deltas and becomes the same as the whole', () => {
  check(
    400,
    fc.property(anySteps, fc.nat(), (steps, seed) => {
      const random = new Random(seed);
      const history = play(setSubject, steps);
      const whole = history.replicas[0]!.state;
      for (let ready = history.ready(0); ready.length > 0; ready = history.ready(0)) {
        const entry = random.pick(ready);
        const { delta } = entry;
        const named = [...new Set([...delta.entries.keys(), ...random.some(MEMBERS, 2)])];
        const loaded = partOf(whole, named);

        const op = setSubject.generate(whole, random)!;
        const site = { replica: 'other', stamp: 2 ** 49 };
        if (op.op === 'clear' || op.members.every((member) => named.includes(member))) {
          const made = setSubject.encode(setType.mutate(loaded, op, site));
          assert.equal(made, setSubject.encode(setType.mutate(whole, op, site)), 'the same delta');
        }

        if (delta.whole && !dominates(delta.context, whole.context)) {
          const before = setSubject.encode(loaded);
          assert.throws(() => setType.merge(loaded, delta), InvariantError);
          assert.equal(setSubject.encode(loaded), before, 'a refused merge changes nothing');
          history.deliver(0, entry);
          continue;
        }
        const grew = setType.merge(loaded, delta);
        const wasWhole = setSubject.encode(whole);
        history.deliver(0, entry);
        assert.ok(grew || setSubject.encode(whole) === wasWhole);
        assert.equal(loaded.size, whole.size);
        assert.equal(isSetLive(loaded), isSetLive(whole));
        assert.deepEqual(new Map([...loaded.context].sort()), new Map([...whole.context].sort()));
        for (const member of named) assert.deepEqual(dotsOf(loaded, member), dotsOf(whole, member));
        if (loaded.whole) assert.equal(setSubject.encode(loaded), setSubject.encode(whole));
      }
    }),
  );
});

test('set: a whole state is refused where a member that it names was not loaded and may have been removed', () => {
  const site = { replica: 'A', stamp: 5 };
  const whole = setType.empty();
  setType.merge(whole, setType.mutate(whole, { op: 'add', members: ['m' as ByteString] }, site));
  const loaded = partOf(whole, []);
  assert.throws(() => setType.merge(loaded, whole), InvariantError);
  assert.equal(loaded.size, 1);
  assert.ok(!loaded.whole);
  const named = partOf(whole, ['m' as ByteString]);
  setType.merge(named, whole);
  assert.deepEqual(membersOf(named), ['m']);
});

test('set: what was not loaded is not guessed', () => {
  const loaded: SetState = { context: new Map([['A', 5]]), entries: new Map(), whole: false, size: 1 };
  assert.throws(() => hasMember(loaded, 'm' as ByteString), InvariantError);
  assert.throws(() => membersOf(loaded), InvariantError);
  for (const op of ['add', 'remove'] as const) {
    const site = { replica: 'A', stamp: 6 };
    assert.throws(() => setType.mutate(loaded, { op, members: ['m' as ByteString] }, site), InvariantError);
  }
});

test('key: a delta that its set refuses changes nothing of the key', () => {
  const state = emptyKeyState();
  state.touched = 5;
  state.set = { context: new Map([['A', 5]]), entries: new Map(), whole: false, size: 1 };
  const remote = emptyKeyState();
  const site = { replica: 'B', stamp: 7 };
  mergeKeyState(remote, commandDelta(remote, { op: 'SADD', members: ['m' as ByteString] }, site));
  const delta = commandDelta(remote, { op: 'SET', value: 'v' as ByteString }, { replica: 'B', stamp: 8 });
  const before = keySubject.encode(state);
  assert.throws(() => mergeKeyState(state, delta), InvariantError);
  assert.equal(keySubject.encode(state), before);
});

test('set: a delta speaks only of what it replaces, however many replicas and members there are', () => {
  const state = setType.empty();
  for (let i = 0; i < 50; i += 1) {
    const members = [`m${i}`, 'shared'] as ByteString[];
    setType.merge(state, setType.mutate(state, { op: 'add', members }, { replica: `r${i}`, stamp: i + 1 }));
  }
  const site = { replica: 'A', stamp: 100 };
  const context = (op: SetOp) => [...setType.mutate(state, op, site).context].sort();
  assert.deepEqual(context({ op: 'add', members: ['new' as ByteString] }), [['A', 100]]);
  assert.deepEqual(context({ op: 'add', members: ['m7' as ByteString] }), [
    ['A', 100],
    ['r7', 8],
  ]);
  assert.deepEqual(context({ op: 'remove', members: ['m7' as ByteString] }), [['r7', 8]]);
  assert.deepEqual(context({ op: 'remove', members: ['absent' as ByteString] }), []);
  assert.equal(context({ op: 'clear' }).length, 50);
});

test('set: a whole state that still names a removed member leaves none behind where that was known to be absent', () => {
  const member = 'gone' as ByteString;
  const dot = { replica: 'a', stamp: 1 };
  // Removed here; the other side, which has seen everything else, has not heard of it. (Seed 58 of the simulation.)
  const into: SetState = {
    context: new Map([['a', 1]]),
    entries: new Map([[member, []]]),
    whole: false,
    size: 0,
  };
  const state: SetState = {
    context: new Map([
      ['a', 1],
      ['b', 2],
    ]),
    entries: new Map([[member, [dot]]]),
    whole: true,
    size: 1,
  };
  setType.merge(into, state);
  assert.equal(isSetLive(into), false);
  assert.deepEqual(membersOf(into), []);
});
