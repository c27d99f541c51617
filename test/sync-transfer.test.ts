/** State transfer: whole states from a peer that may break off, lie, send without end, or send what isn't a state. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { emptyKeyState, type KeyState } from '../crdts/key-state.js';
import type { Dots } from '../crdts/or-set.js';
import { stringType } from '../crdts/string-key.js';
import { PeerError } from '../src/errors.js';
import { pack } from '../src/replica/msgpack.js';
import type { RemoteItem } from '../src/replica/remote-batch.js';
import { MemoryStore } from '../src/store/memory.js';
import { keySlot } from '../src/store/slots.js';
import type { AppliedMark, Store } from '../src/store/store.js';
import { COARSE, fineBucket } from '../src/sync/member-buckets.js';
import { marksToWire } from '../src/sync/messages.js';
import { encodeStateAnswer, type StateAnswer } from '../src/sync/state-answers.js';
import { giveState } from '../src/sync/state-giver.js';
import {
  decodeStateRequest,
  encodeSlotDigests,
  encodeStateHead,
  encodeStateRequest,
} from '../src/sync/state-messages.js';
import { pullState, readStates, totalDigest } from '../src/sync/state-transfer.js';
import { add, type ReplicaWorld, replicaWorld, set } from './support/replica-world.js';
import { meshThat, transfer as transferred } from './support/transfer-world.js';

const FUTURE = 1_000_000;

interface Pulled {
  /** What would have been merged; items without anything in them are left out. */
  readonly items: RemoteItem[];
  readonly requests: number;
  readonly error: (Error & { code?: string }) | null;
}

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Pulls into nothing from a peer that answers each kind of request as it is told. */
async function pull(
  answers: { digests?: () => Chunks; keys?: () => Chunks; members?: () => Chunks },
  fail = -1,
  store: Store = new MemoryStore(),
): Promise<Pulled> {
  if (store instanceof MemoryStore && !(await store.ping())) await store.open();
  const items: RemoteItem[] = [];
  let requests = 0;
  const options = {
    mesh: meshThat(async function* (body) {
      requests += 1;
      const { kind } = decodeStateRequest(body);
      yield* answers[kind]?.() ?? (kind === 'digests' ? [HEAD, DIGESTS] : []);
    }),
    peer: 'you',
    store,
    maxValueBytes: 1000,
    bigSetMembers: 2,
    isAhead: (stamp: number) => stamp >= FUTURE,
    merge(item: RemoteItem) {
      if (item.states.length > 0 || item.marks.length > 0) items.push(item);
      item.done?.(items.length === fail ? new Error('the store is lost') : null);
    },
    signal: new AbortController().signal,
  };
  try {
    await pullState(options);
    return { items, requests, error: null };
  } catch (error) {
    return { items, requests, error: error as Error };
  }
}

function state(stamp: number): KeyState {
  const string = stringType.mutate(
    stringType.empty(),
    { op: 'write', value: utf8('v') },
    { replica: 'a.1', stamp },
  );
  return { ...emptyKeyState(), touched: stamp, string };
}

const K = utf8('k');
const MARKS: AppliedMark[] = [{ replica: 'a.1', number: 9, stamp: 90 }];
const HEAD = encodeStateHead({ marks: MARKS, keys: 2, token: 't' });
const DIGESTS = encodeSlotDigests(new Map([[keySlot(K), 7]]));
const keys = (slotsDone: number, ...states: [ByteString, KeyState][]) =>
  encodeStateAnswer({ kind: 'keys', slotsDone, states });
const CHUNK = keys(0, [K, state(50)]);
const LAST = keys(1);

const dots = (stamp: number): Dots => [{ replica: 'a.1', stamp }];
const begin = (more: Partial<Extract<StateAnswer, { kind: 'begin' }>> = {}, upTo = 60) => {
  const context = new Map([['a.1', upTo]]);
  const part = {
    ...emptyKeyState(),
    touched: 60,
    set: { context, entries: new Map(), whole: false, size: 0 },
  };
  return encodeStateAnswer({ kind: 'begin', key: K, size: 3, fine: null, state: part, ...more });
};
const members = (...entries: [string, Dots][]) =>
  encodeStateAnswer({
    kind: 'members',
    touched: 60,
    entries: new Map(entries.map(([name, list]) => [utf8(name), list])),
  });
const END = encodeStateAnswer({ kind: 'end' });
const BIG = encodeStateAnswer({
  kind: 'big set',
  key: K,
  size: 3,
  coarse: Array.from({ length: COARSE }, () => 0),
});

test('marks are raised last, after everything was merged', async () => {
  const { items, error } = await pull({ keys: () => [CHUNK, CHUNK, LAST] });
  assert.equal(error, null);
  assert.deepEqual(
    items.map(({ states, marks }) => [states.length, marks.length]),
    [
      [1, 0],
      [1, 0],
      [0, 1],
    ],
  );
  assert.deepEqual(items[2]!.marks, MARKS);
});

test('a big set is merged in one piece, whose context comes with all of its members', async () => {
  const answer = [begin(), members(['x', dots(10)]), members(['y', dots(60)]), END, LAST];
  const { items, error } = await pull({ keys: () => answer });
  assert.equal(error, null);
  assert.deepEqual([...items[0]!.states[0]![1].set!.entries.keys()], ['x', 'y']);
  assert.deepEqual([items[0]!.states[0]![1].set!.whole, items.length], [true, 2]);
  for (let cut = 1; cut < answer.length - 1; cut += 1) {
    const part = await pull({ keys: () => answer.slice(0, cut) });
    assert.equal(part.error?.code, 'PEER');
    assert.deepEqual(part.items, [], 'nothing of it is merged before its end');
  }
});

test('a set that begins again is what came after that', async () => {
  const { items } = await pull({
    keys: () => [begin(), members(['x', dots(10)]), begin(), members(['y', dots(60)]), END, LAST],
  });
  assert.deepEqual([...items[0]!.states[0]![1].set!.entries.keys()], ['y']);
});

test('a transfer that breaks off, is empty, stops early, or can not be merged raises no marks', async () => {
  const broken: [what: string, answers: Parameters<typeof pull>[0], fail?: number][] = [
    [
      'it breaks off',
      {
        keys: async function* () {
          yield CHUNK;
          throw new PeerError('the connection broke');
        },
      },
    ],
    ['it is empty', { digests: () => [] }],
    ['it has no digests', { digests: () => [HEAD] }],
    ['it has no keys', { keys: () => [] }],
    ['it stops before its slots are done', { keys: () => [CHUNK] }],
    ['it announces a set and does not send it', { keys: () => [BIG, LAST], members: () => [] }],
    ['the store is lost at the first chunk', { keys: () => [CHUNK, CHUNK, LAST] }, 1],
  ];
  for (const [what, answers, fail] of broken) {
    const { items, error } = await pull(answers, fail);
    assert.notEqual(error, null, what);
    assert.ok(
      items.every((item) => item.marks.length === 0),
      what,
    );
  }
});

test('what is no transfer is a DecodeError, and nothing of it is merged', async () => {
  const other = utf8('other');
  const hostile: [what: string, answers: Parameters<typeof pull>[0]][] = [
    ['states before the head', { digests: () => [CHUNK, HEAD] }],
    ['another head', { digests: () => [HEAD, HEAD] }],
    ['more than digests', { digests: () => [HEAD, DIGESTS, DIGESTS] }],
    ['a head without a number of keys', { digests: () => [pack([marksToWire(MARKS)])] }],
    ['a head without a token', { digests: () => [pack([marksToWire(MARKS), 1, ''])] }],
    ['marks that are none', { digests: () => [pack([['a.1', 1], 0, 't'])] }],
    ['half a digest', { digests: () => [HEAD, pack(Buffer.alloc(9))] }],
    ['a slot twice', { digests: () => [HEAD, pack(Buffer.alloc(16))] }],
    ['a slot that does not exist', { digests: () => [HEAD, pack(Buffer.alloc(8, 0xff))] }],
    ['a chunk that is no list', { keys: () => [pack('k')] }],
    ['an unknown kind', { keys: () => [pack([9])] }],
    ['a state without a stamp', { keys: () => [pack([1, 0, [[0, ['a.1'], 'k']]])] }],
    [
      'a part of a set',
      { keys: () => [pack([1, 0, [[10, ['a.1'], 'k', 2, [[0, 0], [[0, 0], ['m']], 0]]]])] },
    ],
    ['an array that lies', { keys: () => [Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)] }],
    [
      'a value over the limit',
      { keys: () => [pack([1, 0, [[10, ['a.1'], 'k', 1, [[0, 0, 'v'.repeat(1001)]]]]])] },
    ],
    ['a key of another slot', { keys: () => [keys(0, [other, state(50)])] }],
    ['a set of another slot', { keys: () => [begin({ key: other })] }],
    ['more slots than were asked for', { keys: () => [keys(2)] }],
    ['members of no set', { keys: () => [members(['x', dots(1)])] }],
    ['the end of no set', { keys: () => [END] }],
    ['two sets at once', { keys: () => [begin(), BIG, begin({ key: other })] }],
    ['members that the context does not cover', { keys: () => [begin({}, 5), members(['x', dots(6)])] }],
    [
      'more members than announced',
      { keys: () => [begin({ size: 1 }), members(['x', dots(1)], ['y', dots(1)])] },
    ],
    ['a set that begins for ever', { keys: () => Array.from({ length: 20 }, () => begin()) }],
    ['buckets that nobody asked for', { keys: () => [begin({ fine: [1] })] }],
    [
      'other buckets than asked for',
      { keys: () => [BIG, LAST], members: () => [begin({ fine: [fineBucket(K)] })] },
    ],
    ['an announcement among members', { keys: () => [BIG, LAST], members: () => [BIG] }],
  ];
  for (const [what, answers] of hostile) {
    const { items, error } = await pull(answers);
    assert.equal(error?.code, 'DECODE', `${what}: ${error?.message}`);
    assert.deepEqual(items, [], what);
  }
});

test('a stream without end is cut: nothing that says nothing, and no more keys than were announced', async () => {
  const silent = await pull({
    keys: function* () {
      for (;;) yield keys(0);
    },
  });
  assert.equal(silent.error?.code, 'DECODE');
  let sent = 0;
  const endless = await pull({
    keys: function* () {
      for (;;) {
        sent += 100;
        yield keys(0, ...Array.from({ length: 100 }, (): [ByteString, KeyState] => [K, state(50)]));
      }
    },
  });
  assert.equal(endless.error?.code, 'PEER');
  assert.match(endless.error!.message, /more keys than it announced/);
  assert.ok(sent < 20_000);
});

test('a peer that says different for ever is asked three times at most, one that says equal once', async () => {
  const store = new MemoryStore();
  await store.open();
  const same = await pull({ keys: () => [LAST] }, -1, store);
  assert.deepEqual([same.error, same.requests, same.items.length], [null, 2, 1]);
  const equal = await pull({ digests: () => [HEAD, encodeSlotDigests(new Map())] });
  assert.deepEqual([equal.error, equal.requests, equal.items.length], [null, 1, 1]);
});

test('stamps from the future, in a state, a set or a mark, end the transfer', async () => {
  const early = await pull({ keys: () => [keys(0, [K, state(FUTURE)])] });
  assert.equal(early.error?.code, 'PEER');
  assert.deepEqual(early.items, []);
  const future = { ...emptyKeyState(), touched: FUTURE };
  const part = { context: new Map([['a.1', 5]]), entries: new Map(), whole: false, size: 0 };
  const early2 = await pull({ keys: () => [begin({ state: { ...future, set: part } })] });
  assert.equal(early2.error?.code, 'PEER');
  const marks = await pull({
    digests: () => [
      encodeStateHead({ marks: [{ replica: 'a.1', number: 1, stamp: FUTURE }], keys: 0, token: 't' }),
      encodeSlotDigests(new Map()),
    ],
  });
  assert.equal(marks.error?.code, 'PEER');
  assert.deepEqual(marks.items, []);
});

async function transfer(from: ReplicaWorld, to: ReplicaWorld): Promise<number> {
  const { outcome, error } = await transferred(from, to);
  if (error !== null) throw error;
  return outcome!.keys;
}

async function digestOf(store: Store): Promise<number> {
  return totalDigest(await store.digests());
}

test('a transfer brings all types across, only what differs, and is idle between equals', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  for (let i = 0; i < 300; i += 1) await from.submit(set(`key ${i}`, 'x'.repeat(i)));
  await from.submit(add('s', ...Array.from({ length: 500 }, (_, i) => `member ${i}`)));
  await from.submit(set('\xff' as ByteString, '\x00'));
  assert.equal(await transfer(from, to), 302);
  assert.equal(await digestOf(to.store), await digestOf(from.store));
  assert.equal(to.replica.applied.get('from.1')?.number, 302);
  assert.equal(await transfer(from, to), 0);
  await to.submit(set('mine', 'm'));
  await from.submit(set('key 7', 'new'));
  assert.equal(await transfer(from, to), 1, 'only the differing key travels');
  await transfer(to, from);
  assert.equal(await digestOf(to.store), await digestOf(from.store));
});

test('what was deleted while away does not come back with a transfer, and a concurrent add stays', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  await from.submit(add('s', 'old', 'gone'));
  await transfer(from, to);
  await from.submit({ needs: [{ key: utf8('s') }], run: (tx) => tx.delete(utf8('s')) });
  await to.submit(add('s', 'new'));
  await transfer(from, to);
  await transfer(to, from);
  assert.deepEqual(await to.store.members(utf8('s')), ['new']);
  assert.deepEqual(await from.store.members(utf8('s')), ['new']);
});

test('keys without a header are left out', async () => {
  const world = await replicaWorld();
  await world.submit(set('k', 'v'));
  const states = await readStates(world.store, [utf8('k'), utf8('none')]);
  assert.deepEqual(
    states.map(([key]) => key),
    ['k'],
  );
});

test('requests that are none are refused, and so are those that go on about other data', async () => {
  const world = await replicaWorld();
  const ask = async (body: Uint8Array): Promise<void> => {
    const giver = { store: world.store, marks: () => [], token: 't', bigSetMembers: 2 };
    for await (const _chunk of giveState(giver, body)) break;
  };
  const two = Buffer.alloc(2);
  const four = Buffer.alloc(4);
  const bad: unknown[] = [
    'x',
    [],
    [9],
    [2],
    [2, 't', 0, Buffer.alloc(3), four, Buffer.alloc(0)],
    [2, 't', 0, Buffer.from([0xff, 0xff]), four, Buffer.alloc(0)],
    [2, 't', 0, Buffer.alloc(4), Buffer.alloc(8), Buffer.alloc(0)],
    [2, 't', 0, two, Buffer.alloc(0), Buffer.alloc(0)],
    [2, 't', 0, two, Buffer.from([0, 0, 0, 1]), Buffer.alloc(0)],
    [2, 't', 0, two, four, Buffer.alloc(10)],
    [2, 't', -1, two, four, Buffer.alloc(0)],
    [2, 't', 0, two, Buffer.alloc(4, 0xff), Buffer.alloc(10)],
    [3, 't', 'k'],
    [3, 't', [5]],
    [3, 't', ['k', 1]],
    [3, 't', ['k', 2 ** 48, two, Buffer.alloc(32 * 6)]],
    [3, 't', ['k', 1, Buffer.from([2, 0]), Buffer.alloc(32 * 6)]],
    [3, 't', ['k', 1, two, Buffer.alloc(31 * 6)]],
    [3, '', ['k']],
    [3, 't', ...Array.from({ length: 1025 }, () => ['k'])],
  ];
  for (const tree of bad) await assert.rejects(ask(pack(tree)), { code: 'DECODE' }, JSON.stringify(tree));
  const other = encodeStateRequest({ kind: 'members', token: 'other', sets: [] });
  await assert.rejects(ask(other), { code: 'PEER' });
});
