/** The in-memory document: against plain models, an oracle of concurrency, loss, repetition, restarts and bad input. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ByteString,
  createDocument,
  type Document,
  type DocumentChange,
  type Integer,
  MeshError,
  NotReadyError,
  type SetOp,
  type StringOp,
  utf8,
} from '../crdts/index.js';
import { MEMBERS, STEPS } from './support/crdt-keys.js';
import { expectedMembers, expectedString } from './support/crdt-oracle.js';
import { check, Random } from './support/crdt-runs.js';
import { anyTree, disturb } from './support/crdt-trees.js';
import { carry, DocumentWorld, START } from './support/document-world.js';

const KEYS = ['k', 'other', '\xff\x00'] as ByteString[];
const VALUES = ['', '7', '-12', 'abc', '\x80\xff'] as ByteString[];
const k = KEYS[0]!;
const v = (value: string) => value as ByteString;
const doc = (replica: string, options: Partial<Parameters<typeof createDocument>[0]> = {}) =>
  createDocument({ replica, now: () => START, ...options });

/** Sends all that one document has done to another. */
function send(from: Document, to: Document): void {
  for (const delta of from.takeDeltas()) to.merge(carry(delta));
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof MeshError, String(error));
    return error.code;
  }
  return 'none';
}

// --- taking turns ---------------------------------------------------------------------------------------------------

interface Plain {
  value: string | Set<string>;
  deadline: number | null;
}

/** What a single map of plain values would do: the same calls as the document's. */
class Model {
  readonly keys = new Map<string, Plain>();

  live(key: string, now: number): Plain | undefined {
    const plain = this.keys.get(key);
    if (plain === undefined || (plain.deadline !== null && plain.deadline <= now)) return undefined;
    return plain;
  }
}

/** Does one operation on a document and on the model, and compares what they tell. */
function turn(document: Document, model: Model, now: number, random: Random): void {
  const key = random.pick(KEYS);
  const plain = model.live(key, now);
  const wrongFor = (type: 'string' | 'set') =>
    plain !== undefined && (typeof plain.value === 'string') !== (type === 'string');
  const choice = random.below(9);
  if (choice === 0) {
    const value = random.pick(VALUES);
    const expiry = random.pick(['clear', 'keep', now + 40] as const);
    document.set(key, value, expiry);
    const deadline = expiry === 'keep' ? (plain?.deadline ?? null) : expiry === 'clear' ? null : expiry;
    model.keys.set(key, { value, deadline });
  } else if (choice === 1) {
    assert.equal(document.delete(key), plain !== undefined);
    model.keys.delete(key);
  } else if (choice <= 3) {
    const by: Integer = random.pick(STEPS.slice(0, 5));
    const base = plain?.value ?? '0';
    const text = typeof base === 'string' && !/^-?\d+$/.test(base);
    const expected = wrongFor('string') ? 'WRONGTYPE' : text ? 'NOT_AN_INTEGER' : 'none';
    const next = () => document.increment(key, by);
    if (expected !== 'none') {
      assert.equal(codeOf(next), expected);
      return;
    }
    const value = String(BigInt(base as string) + BigInt(by));
    assert.equal(String(next()), value);
    model.keys.set(key, { value, deadline: plain?.deadline ?? null });
  } else if (choice <= 5) {
    const members = random.some(MEMBERS, 3);
    const run = () => document.add(key, ...members);
    if (wrongFor('set')) {
      assert.equal(codeOf(run), 'WRONGTYPE');
      return;
    }
    const next = new Set(plain?.value as Set<string> | undefined);
    const before = next.size;
    for (const member of members) next.add(member);
    assert.equal(run(), next.size - before);
    model.keys.set(key, { value: next, deadline: plain?.deadline ?? null });
  } else if (choice <= 7) {
    const members = random.some(MEMBERS, 3);
    const run = () => document.remove(key, ...members);
    if (wrongFor('set')) {
      assert.equal(codeOf(run), 'WRONGTYPE');
      return;
    }
    const set = (plain?.value ?? new Set()) as Set<string>;
    let removed = 0;
    for (const member of members) if (set.delete(member)) removed += 1;
    assert.equal(run(), removed);
    if (set.size === 0) model.keys.delete(key);
  } else {
    const deadline = random.pick([null, now - 1, now + 10, now + 40]);
    assert.equal(document.expire(key, deadline), plain !== undefined);
    if (plain === undefined) return;
    if (deadline !== null && deadline <= now) model.keys.delete(key);
    else plain.deadline = deadline;
  }
}

function compare(document: Document, model: Model, now: number): void {
  for (const key of KEYS) {
    const plain = model.live(key, now);
    const type = plain === undefined ? 'none' : typeof plain.value === 'string' ? 'string' : 'set';
    assert.equal(document.type(key), type);
    if (type !== 'set') assert.equal(document.get(key), plain?.value ?? null);
    if (type !== 'string') assert.deepEqual(new Set(document.members(key)), plain?.value ?? new Set());
    assert.equal(document.deadline(key), plain?.deadline);
  }
  const live = KEYS.filter((key) => model.live(key, now) !== undefined);
  assert.deepEqual(new Set(document.keys()), new Set(live));
}

test('documents that take turns are one plain map, whoever restarts in between', () => {
  check(
    300,
    fc.property(fc.array(fc.nat(), { maxLength: 40, size: 'max' }), (seeds) => {
      const world = new DocumentWorld(2, { now: () => world.now });
      const model = new Model();
      for (const seed of seeds) {
        const random = new Random(seed);
        world.now += random.below(15);
        const at = random.below(2);
        turn(world.documents[at]!, model, world.now, random);
        send(world.documents[at]!, world.documents[1 - at]!);
        if (random.chance(15)) world.documents[at] = world.make(at, carry(world.documents[at]!.snapshot()));
        for (const document of world.documents) compare(document, model, world.now);
      }
      assert.equal(world.documents[0]!.digest(), world.documents[1]!.digest());
    }),
  );
});

// --- concurrency ----------------------------------------------------------------------------------------------------

const STRINGS = ['s1', 's2'] as ByteString[];
const SETS = ['m1', 'm2'] as ByteString[];

/** An operation on a key that only ever holds one type, so that an oracle of that type tells its value. */
function operate(world: DocumentWorld, at: number, random: Random): void {
  const document = world.documents[at]!;
  const choice = random.below(8);
  if (choice < 4) {
    const key = random.pick(STRINGS);
    if (choice === 0 && document.delete(key)) world.note(at, key, { op: 'delete' });
    if (choice === 1) {
      const value = random.pick(VALUES);
      document.set(key, value);
      world.note(at, key, { op: 'write', value });
    }
    if (choice >= 2) {
      const by = random.pick(STEPS.slice(0, 5));
      if (codeOf(() => document.increment(key, by)) === 'none') world.note(at, key, { op: 'add', by });
    }
    return;
  }
  const key = random.pick(SETS);
  const members = random.some(MEMBERS, 3);
  if (choice === 4 && document.delete(key)) world.note(at, key, { op: 'clear' });
  if (choice === 5) {
    const present = members.filter((member) => document.has(key, member));
    if (document.remove(key, ...members) > 0) world.note(at, key, { op: 'remove', members: present });
  }
  if (choice >= 6) {
    document.add(key, ...members);
    world.note(at, key, { op: 'add', members });
  }
}

function compareWithOracle(world: DocumentWorld): void {
  for (const [at, document] of world.documents.entries()) {
    for (const key of STRINGS)
      assert.equal(document.get(key), expectedString(world.pastOf<StringOp>(at, key)));
    for (const key of SETS) {
      assert.deepEqual(document.members(key).sort(), expectedMembers(world.pastOf<SetOp>(at, key)));
    }
  }
}

test('concurrent documents are what the oracle says at every time, and equal at the end', () => {
  check(
    400,
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 60, size: 'max' }), (seeds) => {
      const world = new DocumentWorld();
      for (const seed of seeds) {
        const random = new Random(seed);
        const at = random.below(3);
        world.now += random.below(3);
        const choice = random.below(12);
        if (choice < 6) operate(world, at, random);
        else if (choice === 6) world.take(at);
        else if (choice < 10 && world.sent.length > 0) {
          // What is open ends here: which of a document's deltas holds an operation must be known to the oracle.
          world.take(at);
          world.deliver(at, random.pick(world.sent));
        } else if (choice === 10) {
          world.take(at);
          world.transfer(random.below(3), at);
        } else if (choice === 11) {
          world.take(at);
          world.documents[at] = world.make(at, carry(world.documents[at]!.snapshot()));
        }
        compareWithOracle(world);
      }
      world.settle(new Random(seeds[0]!));
      compareWithOracle(world);
      world.requireEqual();
    }),
  );
});

// --- deltas ---------------------------------------------------------------------------------------------------------

test('one batch is one delta, a merge in between makes two, and nothing done makes none', () => {
  const [a, b] = [doc('a'), doc('b')];
  assert.deepEqual(a.takeDeltas(), []);
  a.set(k, v('1'));
  a.increment(k, 4);
  a.add(v('set'), v('m'));
  b.set(v('other'), v('x'));
  const [delta, ...others] = a.takeDeltas();
  assert.deepEqual(others, []);
  assert.deepEqual(a.takeDeltas(), []);
  b.merge(carry(delta));
  assert.equal(b.get(k), '5');
  b.increment(k);
  assert.equal(b.takeDeltas().length, 2);
});

test('a delta that comes too early waits for what it depends on', () => {
  const [a, b, c] = [doc('a'), doc('b'), doc('c')];
  a.add(k, v('m'));
  const [added] = a.takeDeltas();
  b.merge(carry(added));
  b.remove(k, v('m'));
  const [removed] = b.takeDeltas();
  b.add(k, v('n'));
  const [next] = b.takeDeltas();
  assert.equal(c.merge(carry(next)), 'held');
  assert.equal(c.merge(carry(removed)), 'held');
  assert.equal(c.merge(carry(next)), 'known');
  assert.equal(c.held, 2);
  assert.deepEqual(c.keys(), []);
  assert.equal(c.merge(carry(added)), 'merged');
  assert.equal(c.held, 0);
  assert.deepEqual(c.members(k), ['n']);
  for (const delta of [added, removed, next]) assert.equal(c.merge(carry(delta)), 'known');
});

test('holds back no more than allowed, and takes what it refused when it comes again', () => {
  const [a, b] = [doc('a'), doc('b', { maxHeld: 2 })];
  const deltas = Array.from({ length: 5 }, (_, i) => {
    a.set(k, v(String(i)));
    return carry(a.takeDeltas()[0]);
  });
  assert.equal(b.merge(deltas[4]), 'held');
  assert.equal(b.merge(deltas[3]), 'held');
  assert.throws(() => b.merge(deltas[2]), NotReadyError);
  assert.equal(b.merge(deltas[0]), 'merged');
  assert.equal(b.merge(deltas[1]), 'merged');
  assert.equal(b.merge(deltas[2]), 'merged');
  assert.equal(b.get(k), '4');
  assert.equal(b.held, 0);
});

test('holds back what is stamped too far in the future, and merges it when its time has come', () => {
  let now = START;
  const [a, b] = [doc('a', { now: () => START + 3_600_000 }), doc('b', { now: () => now })];
  a.set(k, v('early'));
  const [delta] = a.takeDeltas();
  assert.equal(b.merge(carry(delta)), 'held');
  assert.throws(() => b.mergeSnapshot(carry(a.snapshot())), { code: 'STAMP_RANGE' });
  b.set(k, v('now'));
  assert.equal(b.get(k), 'now');
  now += 3_600_000;
  assert.equal(b.merge(carry(delta)), 'merged');
  assert.equal(b.held, 0);
  assert.equal(b.get(k), 'early');
});

test('a snapshot replaces deltas that were lost, and frees what waited for them', () => {
  const [a, b] = [doc('a'), doc('b')];
  a.set(k, v('1'));
  a.takeDeltas();
  a.add(v('set'), v('m'));
  const [second] = a.takeDeltas();
  a.remove(v('set'), v('m'));
  b.set(v('mine'), v('kept'));
  assert.equal(b.merge(carry(second)), 'held');
  b.mergeSnapshot(carry(a.snapshot()));
  assert.equal(b.held, 0);
  assert.equal(b.get(k), '1');
  assert.equal(b.get(v('mine')), 'kept');
  assert.equal(b.type(v('set')), 'none');
  send(b, a);
  send(a, b);
  assert.equal(a.digest(), b.digest());
});

test('a restored document goes on where it was; a stale one with the same name is found out', () => {
  const [a, b] = [doc('a'), doc('b')];
  a.increment(k, 5);
  const stale = carry(a.snapshot());
  a.increment(k, 2);
  send(a, b);
  const restored = doc('a', { snapshot: carry(a.snapshot()) });
  assert.deepEqual(restored.takeDeltas(), []);
  assert.equal(restored.increment(k, 1), 8);
  send(restored, b);
  assert.equal(b.get(k), '8');

  const amnesiac = doc('a', { snapshot: stale });
  assert.equal(
    codeOf(() => amnesiac.mergeSnapshot(carry(b.snapshot()))),
    'INVARIANT',
  );
  restored.increment(k, 1);
  assert.equal(
    codeOf(() => amnesiac.merge(carry(restored.takeDeltas()[0]))),
    'INVARIANT',
  );

  const renamed = doc('a2', { snapshot: stale });
  renamed.mergeSnapshot(carry(b.snapshot()));
  assert.equal(renamed.increment(k, 1), 9);
  send(renamed, b);
  assert.equal(b.get(k), '9');
});

test('equal documents have equal snapshots', () => {
  check(
    100,
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 20 }), (seeds) => {
      const world = new DocumentWorld();
      for (const seed of seeds) operate(world, seed % 3, new Random(seed));
      world.settle(new Random(seeds[0]!));
      const restored = world.documents.map((document, at) =>
        world.make(at, carry(document.snapshot()), `new${at}`),
      );
      const bytes = restored.map((document) => JSON.stringify(document.snapshot().slice(2)));
      // The clocks stand apart, so compare after each has seen all stamps.
      for (const document of restored)
        for (const other of restored) document.mergeSnapshot(carry(other.snapshot()));
      const after = restored.map((document) => JSON.stringify(document.snapshot()));
      assert.deepEqual(after, [after[0], after[0], after[0]]);
      assert.ok(bytes.every((text) => text.length > 0));
    }),
  );
});

// --- what a caller is told ------------------------------------------------------------------------------------------

test('tells of each changed key once, with who changed it, and of nothing that was known', () => {
  const changes: DocumentChange[] = [];
  const a = doc('a');
  const b = doc('b', { onChange: (change) => changes.push(change) });
  const told = () => changes.splice(0).map(({ key, replica }) => `${key} ${replica}`);
  a.set(k, v('1'));
  a.increment(k);
  a.add(v('set'), v('m'));
  const [delta] = a.takeDeltas();
  b.merge(carry(delta));
  assert.deepEqual(told(), ['k a', 'set a']);
  b.merge(carry(delta));
  b.delete(v('nothing'));
  b.remove(v('set'), v('absent'));
  assert.deepEqual(told(), []);
  b.set(k, v('2'));
  assert.deepEqual(told(), ['k b']);
  const c = doc('c');
  c.set(v('far'), v('away'));
  b.mergeSnapshot(carry(c.snapshot()));
  assert.deepEqual(told(), ['far null']);
});

test('keeps a change whose listener throws', () => {
  const a = doc('a', {
    onChange: () => {
      throw new Error('mine');
    },
  });
  assert.throws(() => a.set(k, v('1')), { message: 'mine' });
  assert.equal(a.get(k), '1');
  const b = doc('b');
  send(a, b);
  assert.equal(b.get(k), '1');
});

// --- bad input ------------------------------------------------------------------------------------------------------

test('operations that are refused change nothing', () => {
  const a = doc('a', { maxValueBytes: 10 });
  a.set(k, v('abc'));
  a.add(v('set'), v('m'));
  a.set(v('n'), v('9223372036'));
  a.takeDeltas();
  const before = JSON.stringify([a.state(k), a.digest(), a.keys()]);
  const cases: [string, () => unknown][] = [
    ['WRONGTYPE', () => a.add(k, v('m'))],
    ['WRONGTYPE', () => a.remove(k, v('m'))],
    ['WRONGTYPE', () => a.members(k)],
    ['WRONGTYPE', () => a.get(v('set'))],
    ['WRONGTYPE', () => a.increment(v('set'))],
    ['NOT_AN_INTEGER', () => a.increment(k)],
    ['NOT_AN_INTEGER', () => a.increment(v('new'), 0.5)],
    ['NOT_AN_INTEGER', () => a.increment(v('new'), Number.NaN)],
    ['NOT_AN_INTEGER', () => a.increment(v('new'), 2n ** 63n)],
    ['OVERFLOW', () => a.increment(v('n'), 9223372036854775807n)],
    ['ARGUMENT', () => a.set(k, 'text €' as ByteString)],
    ['ARGUMENT', () => a.set('ключ' as ByteString, v('1'))],
    ['ARGUMENT', () => a.set(k, 5 as unknown as ByteString)],
    ['ARGUMENT', () => a.set(k, v('01234567890'))],
    ['ARGUMENT', () => a.add(v('set'), v('ok'), v('01234567890'))],
    ['ARGUMENT', () => a.set(k, v('1'), 0.5)],
    ['ARGUMENT', () => a.expire(k, Number.POSITIVE_INFINITY)],
    ['ARGUMENT', () => a.expire(k, Number.NaN)],
  ];
  for (const [code, run] of cases) assert.equal(codeOf(run), code, String(run));
  assert.equal(JSON.stringify([a.state(k), a.digest(), a.keys()]), before);
  assert.deepEqual(a.takeDeltas(), []);
});

test('options that can not be are refused', () => {
  assert.equal(
    codeOf(() => doc('')),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => doc('two words')),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => doc('x'.repeat(65))),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => createDocument({ replica: 'a' } as never)),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => createDocument({ now: () => START } as never)),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => doc('a', { maxHeld: -1 })),
    'ARGUMENT',
  );
  assert.equal(
    codeOf(() => doc('a', { snapshot: {} })),
    'DECODE',
  );
  assert.equal(
    codeOf(() => doc('a', { now: () => 0 }).set(k, v('1'))),
    'STAMP_RANGE',
  );
});

test('a malformed delta or snapshot is a typed error and changes nothing', () => {
  const [a, b] = [doc('a'), doc('b')];
  a.set(k, utf8('é'));
  a.increment(v('n'), 5);
  a.add(v('set'), v('m'), v('\xff'));
  a.expire(k, START + 5000);
  send(a, b);
  b.remove(v('set'), v('m'));
  b.delete(k);
  const delta = carry(b.takeDeltas()[0]);
  const snapshot = carry(b.snapshot());
  const refused = (tree: unknown, merge: (document: Document, tree: unknown) => unknown) => {
    const document = doc('c', { snapshot: carry(a.snapshot()) });
    const before = JSON.stringify([document.snapshot(), document.held]);
    try {
      merge(document, tree);
    } catch (error) {
      assert.ok(error instanceof MeshError, String(error));
      assert.ok(['DECODE', 'STAMP_RANGE', 'INVARIANT'].includes(error.code), error.code);
      assert.equal(JSON.stringify([document.snapshot(), document.held]), before);
    }
  };
  check(
    2000,
    fc.property(fc.nat(), (seed) => {
      refused(disturb(delta, new Random(seed)), (document, tree) => document.merge(tree));
      refused(disturb(snapshot, new Random(seed)), (document, tree) => document.mergeSnapshot(tree));
    }),
  );
  check(
    300,
    fc.property(anyTree, (tree) => {
      refused(tree, (document) => document.merge(tree));
      refused(tree, (document) => document.mergeSnapshot(tree));
    }),
  );
});
