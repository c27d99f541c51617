/** Under which id a node makes dots, and how long it keeps its frames. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STAMP_EPOCH_MS } from '../crdts/stamp.js';
import { FrameLog } from '../src/frame-log.js';
import { replicaHash } from '../src/mesh/identity.js';
import { encodeFrame } from '../src/replica/frame.js';
import { isIntact, newReplicaId, startReplicaId } from '../src/replica-identity.js';
import { MemoryStore } from '../src/store/memory.js';
import type { StoredIdentity, StoreFacts } from '../src/store/store.js';

const PEER = 'me';
const HASH = replicaHash(PEER);
const NOW = Date.UTC(2025, 0, 1);

function facts(identity: StoredIdentity | null, applied: Record<string, number> = {}): StoreFacts {
  const marks = Object.entries(applied).map(([replica, number]) => ({ replica, number, stamp: number }));
  const identities = identity === null ? [] : [identity];
  const place = { dataset: 'd', place: 'd@1', dropped: null };
  return { ...place, identities, applied: marks, notes: null, server: {} };
}

function identity(replica: string, clean: boolean, peerId = PEER): StoredIdentity {
  return { peerId, replica, born: 1, clean };
}

test('after a clean shutdown the replica id is kept', () => {
  assert.equal(startReplicaId(PEER, facts(identity(`${HASH}.5`, true)), NOW), `${HASH}.5`);
});

test('an unclean start, another peer’s store, or a foreign id begins a new epoch', () => {
  for (const [what, stored] of [
    ['unclean', identity(`${HASH}.5`, false)],
    ['another peer', identity(`${replicaHash('you')}.5`, true, 'you')],
    ['a foreign id', identity(`${replicaHash('you')}.5`, true)],
    ['nothing', null],
  ] as const) {
    const id = startReplicaId(PEER, facts(stored), NOW);
    assert.notEqual(id, stored?.replica, what);
    assert.ok(id.startsWith(`${HASH}.`), what);
  }
});

test('a store that was wiped does not make an epoch come again: epochs are times', () => {
  const first = startReplicaId(PEER, facts(null), NOW);
  const second = startReplicaId(PEER, facts(null), NOW + 1);
  assert.notEqual(first, second);
  assert.equal(first, `${HASH}.${(NOW - STAMP_EPOCH_MS).toString(36)}`);
});

test('a clock that went backwards does not make an epoch come again that the store has heard of', () => {
  const first = newReplicaId(PEER, facts(null), NOW);
  const applied: Record<string, number> = { [first]: 3 };
  for (const now of [NOW, NOW - 1, NOW - 86_400_000, STAMP_EPOCH_MS - 5]) {
    const id = newReplicaId(PEER, facts(identity(first, false), applied), now);
    assert.equal(applied[id], undefined, `${id} at ${now}`);
    applied[id] = 1;
  }
  // Known from the applied marks alone, or from the running node alone.
  assert.notEqual(newReplicaId(PEER, facts(null, { [first]: 1 }), NOW), first);
  assert.notEqual(newReplicaId(PEER, facts(null), NOW, first), first);
});

test('a store is intact when it knows this very replica as running, with all frames that it acknowledged', () => {
  const id = `${HASH}.5`;
  assert.equal(isIntact(facts(identity(id, false), { [id]: 7 }), PEER, id, 7), true);
  assert.equal(isIntact(facts(identity(id, false), { [id]: 8 }), PEER, id, 7), true, 'one more took effect');
  assert.equal(isIntact(facts(identity(id, false), { [id]: 6 }), PEER, id, 7), false, 'the tail is lost');
  assert.equal(
    isIntact(facts(identity(id, true), { [id]: 7 }), PEER, id, 7),
    false,
    'an old clean mark is back',
  );
  assert.equal(
    isIntact(facts(identity(`${HASH}.4`, false), { [id]: 7 }), PEER, id, 7),
    false,
    'an old identity',
  );
  assert.equal(isIntact(facts(null), PEER, id, 0), false, 'nothing is left');
  assert.equal(isIntact(facts(identity(id, false)), PEER, id, 0), true, 'nothing was there to lose');
});

async function logged(maxBytes: number, sizes: readonly number[]): Promise<number[]> {
  const store = new MemoryStore();
  await store.open();
  const log = new FrameLog(store, maxBytes);
  for (const [i, size] of sizes.entries()) {
    const content = { replica: 'a.1', number: i + 1, stamp: i + 1, deps: new Map(), full: false, keys: [] };
    const frame = { ...encodeFrame(content), bytes: new Uint8Array(size) };
    await store.commit({ writes: [], frame });
    log.add(frame, 0);
  }
  return (await store.readFrames('a.1', 1, 1 << 30)).map(({ number }) => number);
}

test('the log is bounded by bytes: the oldest frames go, in large steps, and the newest stays', async () => {
  assert.deepEqual(await logged(100, [30, 30, 30]), [1, 2, 3]);
  assert.deepEqual(await logged(100, [30, 30, 30, 30]), [3, 4]);
  assert.deepEqual(await logged(100, [30, 500]), [2], 'one that is over the bound alone is kept');
  const kept = await logged(
    1000,
    Array.from({ length: 500 }, () => 10),
  );
  assert.equal(kept.at(-1), 500);
  assert.ok(kept.length * 10 <= 1000 && kept.length * 10 >= 700, `${kept.length} frames are kept`);
});

test('a new epoch’s log is counted from nothing', async () => {
  const store = new MemoryStore();
  await store.open();
  const trims: [string, number][] = [];
  store.trimLog = async (replica, through) => void trims.push([replica, through]);
  const log = new FrameLog(store, 100);
  const frame = (replica: string, number: number) => ({
    ...encodeFrame({ replica, number, stamp: number, deps: new Map(), full: false, keys: [] }),
    bytes: new Uint8Array(60),
  });
  log.add(frame('a.1', 1), 0);
  log.restart();
  log.add(frame('a.2', 1), 0);
  assert.deepEqual(trims, []);
  log.add(frame('a.2', 2), 0);
  assert.deepEqual(trims, [['a.2', 1]]);
});

test('what every member has leaves the log when it is old enough', async () => {
  const store = new MemoryStore();
  await store.open();
  const trims: number[] = [];
  store.trimLog = async (_replica, through) => void trims.push(through);
  const log = new FrameLog(store, 1000);
  for (let number = 1; number <= 5; number += 1) {
    const content = { replica: 'a.1', number, stamp: number, deps: new Map(), full: false, keys: [] };
    log.add(encodeFrame(content), number * 1_000);
  }
  log.everyoneHas('a.1', 0, 10_000);
  assert.deepEqual(trims, [], 'one has nothing');
  log.everyoneHas('a.1', 4, 2_500);
  assert.deepEqual(trims, [2], 'the later ones are too young');
  log.everyoneHas('a.1', 4, 10_000);
  log.everyoneHas('a.1', 4, 10_000);
  assert.deepEqual(trims, [2, 4], 'and nothing is dropped twice');
});

test('a log that can not be trimmed now is trimmed further the next time', async () => {
  const store = new MemoryStore();
  await store.open();
  store.trimLog = () => Promise.reject(new Error('not now'));
  const log = new FrameLog(store, 100);
  for (let number = 1; number <= 5; number += 1) {
    log.add(
      {
        ...encodeFrame({ replica: 'a.1', number, stamp: number, deps: new Map(), full: false, keys: [] }),
        bytes: new Uint8Array(60),
      },
      0,
    );
  }
  await new Promise((resolve) => setImmediate(resolve));
});
