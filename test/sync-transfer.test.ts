/** State transfer: whole states from a peer that may break off, lie, or send what isn't a state. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { emptyKeyState, type KeyState } from '../crdts/key-state.js';
import { stringType } from '../crdts/string-key.js';
import { PeerError } from '../src/errors.js';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import type { Mesh } from '../src/mesh/mesh.js';
import { pack } from '../src/replica/msgpack.js';
import type { RemoteItem } from '../src/replica/remote-batch.js';
import { MemoryStore } from '../src/store/memory.js';
import type { AppliedMark, Store } from '../src/store/store.js';
import { encodeKeyChunk } from '../src/sync/key-chunk.js';
import { marksToWire } from '../src/sync/messages.js';
import { toPieces } from '../src/sync/pieces.js';
import { giveState, pullState, readStates, totalDigest } from '../src/sync/state-transfer.js';
import { add, type ReplicaWorld, replicaWorld, set } from './support/replica-world.js';

const FUTURE = 1_000_000;

function meshThat(answer: (body: Uint8Array) => AsyncIterable<Uint8Array>): Mesh {
  const mesh = new LoopbackNetwork().mesh('me');
  mesh.request = (_peer, _protocol, body) => toPieces(answer(body));
  return mesh;
}

interface Pulled {
  readonly items: RemoteItem[];
  readonly error: (Error & { code?: string }) | null;
}

/** Pulls from a mesh into nothing; gives what would have been merged. */
async function pull(answer: (body: Uint8Array) => AsyncIterable<Uint8Array>, fail = -1): Promise<Pulled> {
  const store = new MemoryStore();
  await store.open();
  const items: RemoteItem[] = [];
  const options = {
    mesh: meshThat(answer),
    peer: 'you',
    store,
    maxValueBytes: 1000,
    isAhead: (stamp: number) => stamp >= FUTURE,
    merge(item: RemoteItem) {
      items.push(item);
      item.done?.(items.length === fail ? new Error('the store is lost') : null);
    },
    signal: new AbortController().signal,
  };
  try {
    await pullState(options);
    return { items, error: null };
  } catch (error) {
    return { items, error: error as Error };
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

const MARKS: AppliedMark[] = [{ replica: 'a.1', number: 9, stamp: 90 }];
const HEAD = pack([marksToWire(MARKS), 2]);
const CHUNK = encodeKeyChunk([[utf8('k'), state(50)]]);

test('marks are raised last, after every chunk was merged', async () => {
  const { items, error } = await pull(async function* () {
    yield HEAD;
    yield CHUNK;
    yield CHUNK;
  });
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

test('a transfer that breaks off, is empty, or can not be merged raises no marks', async () => {
  const broken: [what: string, answer: () => AsyncGenerator<Uint8Array>, fail?: number][] = [
    [
      'it breaks off',
      async function* () {
        yield HEAD;
        yield CHUNK;
        throw new PeerError('the connection broke');
      },
    ],
    ['it is empty', async function* () {}],
    [
      'the store is lost at the first chunk',
      async function* () {
        yield HEAD;
        yield CHUNK;
        yield CHUNK;
      },
      1,
    ],
  ];
  for (const [what, answer, fail] of broken) {
    const { items, error } = await pull(answer, fail);
    assert.notEqual(error, null, what);
    assert.ok(
      items.every(({ marks }) => marks.length === 0),
      what,
    );
  }
});

test('what is no transfer is a DecodeError, and nothing of it is merged', async () => {
  const hostile: [what: string, chunks: Uint8Array[]][] = [
    ['states before the head', [CHUNK, HEAD]],
    ['another head', [HEAD, HEAD]],
    ['a head without slots', [pack([marksToWire(MARKS)])]],
    ['marks that are none', [pack([['a.1', 1], 0])]],
    ['a chunk that is no list', [HEAD, pack('k')]],
    ['a state without a stamp', [HEAD, pack([[0, ['a.1'], 'k']])]],
    ['a part of a set', [HEAD, pack([[10, ['a.1'], 'k', 2, [[0, 0], [[0, 0], ['m']], 0]]])]],
    ['an array that lies', [HEAD, Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)]],
    ['a value over the limit', [HEAD, pack([[10, ['a.1'], 'k', 1, [[0, 0, 'v'.repeat(1001)]]]])]],
  ];
  for (const [what, chunks] of hostile) {
    const { items, error } = await pull(async function* () {
      yield* chunks;
    });
    assert.equal(error?.code, 'DECODE', what);
    assert.deepEqual(items, [], what);
  }
});

test('stamps from the future, in a state or a mark, end the transfer', async () => {
  const early = await pull(async function* () {
    yield HEAD;
    yield encodeKeyChunk([[utf8('k'), state(FUTURE)]]);
  });
  assert.equal(early.error?.code, 'PEER');
  assert.deepEqual(early.items, []);
  const marks = await pull(async function* () {
    yield pack([marksToWire([{ replica: 'a.1', number: 1, stamp: FUTURE }]), 0]);
  });
  assert.equal(marks.error?.code, 'PEER');
  assert.deepEqual(marks.items, []);
});

async function transfer(from: ReplicaWorld, to: ReplicaWorld): Promise<number> {
  const mesh = meshThat((body) => giveState(from.store, () => from.replica.applied.values(), body));
  const outcome = await pullState({
    mesh,
    peer: 'from',
    store: to.store,
    maxValueBytes: 1 << 20,
    isAhead: () => false,
    merge: (item) => to.replica.merge(item),
    signal: new AbortController().signal,
  });
  return outcome.keys;
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
  assert.ok((await transfer(from, to)) >= 302);
  assert.equal(await digestOf(to.store), await digestOf(from.store));
  assert.equal(to.replica.applied.get('from.1')?.number, 302);
  assert.equal(await transfer(from, to), 0);
  await to.submit(set('mine', 'm'));
  await from.submit(set('key 7', 'new'));
  assert.ok((await transfer(from, to)) < 10, 'only differing slots travel');
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

test('digests that are none are refused', async () => {
  const world = await replicaWorld();
  for (const tree of ['x', [1, -1], [99_999, 1], [1, 'x'], Array.from({ length: 40_000 }, () => 0)]) {
    await assert.rejects(
      async () => {
        for await (const _chunk of giveState(world.store, () => [], pack(tree))) break;
      },
      { code: 'DECODE' },
    );
  }
});
