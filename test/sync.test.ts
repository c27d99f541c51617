/** Sync between whole nodes, on virtual time: what happens when frames alone don't bring a member up to date. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { utf8 } from '../crdts/bytes.js';
import { emptyKeyState, type KeyState } from '../crdts/key-state.js';
import { HybridClock, stampAt } from '../crdts/stamp.js';
import { stringType } from '../crdts/string-key.js';
import { replicaHash } from '../src/mesh/identity.js';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import type { PeerEvent } from '../src/node.js';
import { silentLogger } from '../src/options.js';
import { encodeFrame } from '../src/replica/frame.js';
import type { RemoteItem } from '../src/replica/remote-batch.js';
import type { Replica } from '../src/replica/replica.js';
import { MemoryStore } from '../src/store/memory.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import { keySlot } from '../src/store/slots.js';
import type { AppliedMark } from '../src/store/store.js';
import { encodeFrameChunk, encodeHeartbeat, PROTOCOL_VERSION, PROTOCOLS } from '../src/sync/messages.js';
import { toPieces } from '../src/sync/pieces.js';
import { encodeStateAnswer } from '../src/sync/state-answers.js';
import { decodeStateRequest, encodeSlotDigests, encodeStateHead } from '../src/sync/state-messages.js';
import { Sync } from '../src/sync/sync.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { NOTHING_ELSE } from './support/heartbeat.js';
import { MeshWorld } from './support/mesh-world.js';

test('a value that is too large for a broadcast arrives well before the next heartbeat but one', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b'], { heartbeatMs: 10_000 });
  const value = 'x'.repeat(1 << 20);
  await world.run(a!.register('k').set(value));
  const before = world.timers.now();
  await world.until('the value is there', async () => (await b!.register('k').get()) === value);
  assert.ok(world.timers.now() - before < 1000, `it took ${world.timers.now() - before} ms`);
  await world.stop();
});

test('a frame that got lost is fetched as soon as the next one shows the gap', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b'], { heartbeatMs: 10_000 });
  world.network.faults.loss = 1;
  await world.run(a!.counter('n').increment());
  world.network.faults.loss = 0;
  await world.run(a!.counter('n').increment());
  const before = world.timers.now();
  await world.until('both count', async () => (await b!.counter('n').value()) === 2n);
  assert.ok(world.timers.now() - before < 1000, `it took ${world.timers.now() - before} ms`);
  assert.equal(b!.status().frames.repaired, 1);
  await world.stop();
});

test('who was away while logs were trimmed and memory forgot gets whole states', async () => {
  const world = new MeshWorld();
  const [a, b, c] = await world.startAll(['a', 'b', 'c'], { recentFramesBytes: 0 });
  await world.run(a!.set('s').add('early', 'gone'));
  await world.equal();
  world.network.partition([['a', 'b'], ['c']]);
  for (let i = 0; i < 20; i += 1) await world.run(a!.counter('n').increment());
  await world.run(a!.set('s').delete('gone'));
  await world.run(c!.set('s').add('late'));
  await world.run(world.stores.get('a')!.trimLog(a!.status().replica, 15));
  const transfers = world.asked('c', 'state');
  world.network.heal();
  await world.equal();
  assert.ok(world.asked('c', 'state') > transfers, 'c asked for states');
  assert.deepEqual((await c!.set('s').values()).sort(), ['early', 'late']);
  assert.equal(await c!.counter('n').value(), 20n);
  assert.equal(await b!.counter('n').value(), 20n);
  await world.stop();
});

test('the log of a former epoch is trimmed when those present have it; who was absent gets states', async () => {
  const world = new MeshWorld();
  const [a] = await world.startAll(['a', 'b', 'c'], { recentFramesBytes: 0 });
  const old = a!.status().replica;
  world.network.partition([['a', 'b'], ['c']]);
  for (let i = 0; i < 5; i += 1) await world.run(a!.counter('n').increment());
  await world.until('b has it', async () => (await world.nodes.get('b')!.counter('n').value()) === 5n);
  await world.stores.get('a')!.close();
  await world.run(a!.stop());
  world.nodes.delete('a');
  const again = await world.start('a', { recentFramesBytes: 0 });
  assert.notEqual(again.status().replica, old, 'a crash begins a new epoch');
  const log = async () => (await world.stores.get('a')!.readFrames(old, 1, 1000)).length;
  assert.equal(await log(), 5);
  await world.until('the old log is trimmed', async () => (await log()) === 0);
  world.network.heal();
  await world.equal();
  assert.equal(await world.nodes.get('c')!.counter('n').value(), 5n);
  await world.stop();
});

test('frames from the future are held and reported, not fetched again and again, and applied when their time comes', async () => {
  const world = new MeshWorld();
  const hour = 3_600_000;
  const b = await world.start('b');
  const c = await world.start('c');
  const a = await world.start('a', { aheadMs: hour });
  await world.until('b and c have met', () => b.status().peers.length === 2 && c.status().peers.length === 2);
  await world.run(a.register('k').set('from the future'));
  await world.run(b.register('k').set('from b'));
  await world.until('it is reported', () => b.status().frames.skewed === 1 && c.status().frames.skewed === 1);
  assert.equal(b.status().frames.heldBack, 1);
  assert.equal(await b.register('k').get(), 'from b');
  await world.until('others are heard meanwhile', async () => (await c.register('k').get()) === 'from b');
  const [frames, states] = [world.asked('b', 'frames'), world.asked('b', 'state')];
  await world.timers.advance(120_000);
  assert.ok(world.asked('b', 'frames') - frames <= 1, 'what is held is not asked for');
  assert.ok(world.asked('b', 'state') - states < 30, 'no more than digests are compared');
  await world.run(c.register('k').set('from c'));
  await world.until('later writes are seen', async () => (await b.register('k').get()) === 'from c');
  await world.timers.advance(hour);
  await world.until('its time has come', async () => (await b.register('k').get()) === 'from the future');
  assert.equal(b.status().frames.skewed, 0);
  await world.equal();
  await world.stop();
});

test('who comes, goes and comes back is told of each time, and once', async () => {
  const world = new MeshWorld();
  const a = await world.start('a');
  const events: string[] = [];
  a.on('peer', ({ region, connected }: PeerEvent) => events.push(`${region} ${connected}`));
  await world.start('b');
  await world.until('b is there', () => events.length > 0);
  world.network.cut('a', 'b');
  await world.timers.advance(5000);
  world.network.heal();
  await world.timers.advance(5000);
  assert.deepEqual(events, ['b true', 'b false', 'b true']);
  await world.stop();
});

test('an asker whose store loses its data in the middle of a transfer raises no marks over the hole', async () => {
  const world = new MeshWorld({ latencyMs: 50 });
  const a = await world.start('a', { antiEntropyMs: 86_400_000, recentFramesBytes: 0 });
  for (let i = 0; i < 40; i += 1) await world.run(a.register(`key ${i}`).set('x'.repeat(200_000)));
  await world.run(world.stores.get('a')!.trimLog(a.status().replica, 39));
  const b = await world.start('b', {
    recentFramesBytes: 0,
    antiEntropyMs: 86_400_000,
    whileLoading: 'serve',
  });
  const store = world.stores.get('b')!;
  await world.until('a part has come', async () => (await store.count()) > 5);
  assert.ok((await store.count()) < 35, 'the transfer is under way');
  store.loseData();
  await world.run(
    b
      .register('own')
      .set('1')
      .catch(() => {}),
  );
  await world.equal();
  assert.equal(await store.count(), await world.stores.get('a')!.count());
  await world.stop();
});

test('a giver whose store loses its data in the middle of a transfer does not pass it off as complete', async () => {
  const world = new MeshWorld({ latencyMs: 50 });
  const a = await world.start('a', { antiEntropyMs: 86_400_000, recentFramesBytes: 0 });
  for (let i = 0; i < 40; i += 1) await world.run(a.register(`key ${i}`).set('x'.repeat(200_000)));
  const old = a.status().replica;
  await world.run(world.stores.get('a')!.trimLog(old, 39));
  await world.start('b', { antiEntropyMs: 86_400_000 });
  const store = world.stores.get('b')!;
  await world.until('a part has come', async () => (await store.count()) > 5);
  world.stores.get('a')!.loseData();
  await world.run(
    a
      .register('own')
      .set('1')
      .catch(() => {}),
  );
  await world.timers.advance(30_000);
  const mark = store.dataset.applied.get(old)?.number ?? 0;
  assert.equal(mark, 0, 'what never came is not marked as applied');
  await world.stop();
});

test('waitFor means the same before and after an epoch begins', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  for (let i = 0; i < 10; i += 1) await world.run(a!.counter('n').increment());
  assert.equal(await world.run(a!.waitFor(1)), 1);
  const ticket = a!.engine.lastFrame();
  const before = a!.status().replica;
  world.stores.get('a')!.loseData();
  await world.run(
    a!
      .counter('n')
      .increment()
      .catch(() => 0n),
  );
  await world.until('a new epoch', () => a!.status().replica !== before && a!.status().state === 'ready');
  assert.equal(await world.run(a!.engine.waitFor(1, ticket, 2000)), 1, 'frames of the old epoch');
  await world.run(a!.counter('n').increment());
  assert.equal(await world.run(a!.waitFor(1, { timeoutMs: 2000 })), 1, 'frames of the new one');
  await world.equal();
  assert.equal(await b!.counter('n').value(), await a!.counter('n').value());
  await world.stop();
});

test('stopping leaves no timer behind', async () => {
  const world = new MeshWorld();
  await world.startAll(['a', 'b', 'c']);
  await world.run(world.nodes.get('a')!.counter('n').increment());
  await world.stop();
  // Messages under way arrive.
  await world.timers.advance(50);
  assert.equal(world.timers.pending, 0);
});

test('what a store lost while its node lived comes back from memory and from the others', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  for (let i = 0; i < 10; i += 1) await world.run(a!.counter('n').increment());
  await world.equal();
  world.network.cut('a', 'b');
  for (let i = 0; i < 10; i += 1) await world.run(a!.counter('n').increment());
  // Of the last ten, only a's memory knows once its store has lost them.
  world.stores.get('a')!.loseData(new MemoryDataset());
  await world.run(
    a!
      .counter('x')
      .increment()
      .catch(() => 0n),
  );
  world.network.heal();
  await world.equal();
  assert.equal(await a!.counter('n').value(), 20n);
  assert.equal(await b!.counter('n').value(), 20n);
  await world.stop();
});

test('a store that loses its data twice while nobody else has it is filled from memory both times', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  await world.run(b!.counter('n').increment());
  await world.equal();
  world.network.cut('a', 'b');
  for (let loss = 0; loss < 2; loss += 1) {
    for (let i = 0; i < 10; i += 1) await world.run(a!.counter('n').increment());
    world.stores.get('a')!.loseData(new MemoryDataset());
    const before = a!.status().replica;
    await world.until('a new epoch', () => a!.status().replica !== before && a!.status().state === 'ready');
    await world.until(
      'it counts again',
      async () => (await a!.counter('n').value()) === BigInt(11 + loss * 10),
    );
  }
  world.network.heal();
  await world.equal();
  assert.equal(await b!.counter('n').value(), 21n);
  await world.stop();
});

// ---- a frame that can't be merged

const START = stampAt(Date.UTC(2025, 0, 1));
const THEM = `${replicaHash('them')}.1`;

function stateAt(stamp: number): KeyState {
  const written = { op: 'write', value: utf8('v') } as const;
  const string = stringType.mutate(stringType.empty(), written, { replica: THEM, stamp });
  return { ...emptyKeyState(), touched: stamp, string };
}

test('a frame that can never be merged is not fetched without end: states lead past it', async () => {
  const timers = new VirtualTimers();
  const mesh = new LoopbackNetwork({ timers }).mesh('me');
  const store = new MemoryStore({ timers });
  const facts = await store.open();
  const frames = Array.from({ length: 9 }, (_, i) =>
    encodeFrame({
      replica: THEM,
      number: i + 1,
      stamp: START + i,
      deps: new Map(),
      full: true,
      keys: [[utf8(`key ${i}`), stateAt(START + i)]],
    }),
  );
  const heads = [{ replica: THEM, number: 9, stamp: START + 8 }];
  const asked: string[] = [];
  mesh.request = async function* (_peer, protocol, body) {
    asked.push(protocol);
    const list = async function* (): AsyncGenerator<Uint8Array> {
      if (protocol === PROTOCOLS.frames) yield encodeFrameChunk(frames.map(({ bytes }) => bytes));
      if (protocol !== PROTOCOLS.state) return;
      const request = decodeStateRequest(body);
      if (request.kind === 'digests') {
        yield encodeStateHead({ marks: heads, keys: 1, token: 't' });
        yield encodeSlotDigests(new Map([[keySlot(utf8('key 0')), 1]]));
      } else
        yield encodeStateAnswer({ kind: 'keys', slotsDone: 1, states: [[utf8('key 0'), stateAt(START)]] });
    };
    yield* toPieces(list());
  };
  const applied = new Map<string, AppliedMark>();
  const replica = {
    id: 'me.1',
    applied,
    available: true,
    queuedRemote: 0,
    learn: () => [],
    merge({ frames: given, marks, done }: RemoteItem): void {
      for (const frame of given) {
        if (frame.number === 5) {
          sync.restart(applied.values());
          return;
        }
        applied.set(THEM, { replica: THEM, number: frame.number, stamp: frame.stamp });
      }
      for (const mark of marks) applied.set(mark.replica, mark);
      done?.(null);
    },
  };
  const sync: Sync = new Sync({
    mesh,
    store,
    replica: replica as unknown as Replica,
    clock: new HybridClock(() => timers.now()),
    timers,
    random: () => 0.5,
    logger: silentLogger,
    region: 'here',
    rules: 'r',
    maxValueBytes: 1000,
    heartbeatMs: 100,
    recentFramesBytes: 0,
    heldBackBytes: 1 << 20,
    antiEntropyMs: 86_400_000,
    tombstoneGraceMs: 0,
    facts,
    born: 0,
    onEveryoneHas: () => {},
    onOutcast: () => {},
    onRegress: () => {},
    onFollowed: () => {},
    showLife: async () => {},
    loading: () => false,
    onOvertaken: () => {},
    onPeer: () => {},
  });
  sync.start();
  sync.onConnect('them');
  const hello = encodeHeartbeat({
    ...NOTHING_ELSE,
    version: PROTOCOL_VERSION,
    region: 'there',
    replica: THEM,
    rules: 'r',
    applied: heads,
  });
  for (let i = 0; i < 300; i += 1) {
    sync.onBroadcast('them', hello);
    await timers.advance(100);
  }
  assert.equal(applied.get(THEM)?.number, 9, 'states led past it');
  const tries = asked.filter((protocol) => protocol === PROTOCOLS.frames).length;
  assert.ok(tries <= 10, `${tries} requests for frames in half a minute`);
  sync.stop();
});
