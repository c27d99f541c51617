/** The parts of sync that need no network: what to ask of whom, what is served, who waits, and what goes over the wire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ReplicaId } from '../crdts/dot.js';
import { PeerError } from '../src/errors.js';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import type { Mesh } from '../src/mesh/mesh.js';
import { CausalDelivery } from '../src/replica/causal-delivery.js';
import { pack } from '../src/replica/msgpack.js';
import { RecentFrames } from '../src/replica/recent-frames.js';
import { MemoryStore } from '../src/store/memory.js';
import type { AppliedMark } from '../src/store/store.js';
import { AppliedWaiters } from '../src/sync/applied-waiters.js';
import { ClockOffset } from '../src/sync/clock-offset.js';
import { serveFrames } from '../src/sync/frame-server.js';
import { type Arrived, GapRepair } from '../src/sync/gap-repair.js';
import { type Member, Members } from '../src/sync/members.js';
import {
  decodeAppliedRequest,
  decodeFrameChunk,
  decodeFramesRequest,
  decodeHeartbeat,
  encodeAppliedRequest,
  encodeFrameChunk,
  encodeFramesRequest,
  encodeHeartbeat,
  type Heartbeat,
  isHeartbeat,
  PROTOCOL_VERSION,
} from '../src/sync/messages.js';
import { fromPieces, toPieces } from '../src/sync/pieces.js';
import { ReportQueue } from '../src/sync/stability.js';
import { waitForRegions } from '../src/sync/wait-for-regions.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { check } from './support/crdt-runs.js';
import { NOTHING_ELSE } from './support/heartbeat.js';

// ---- gap repair

const isMine = (replica: ReplicaId): boolean => replica === 'me.1';

function member(peerId: string, replica: ReplicaId, applied: Record<ReplicaId, number>): Member {
  return {
    peerId,
    region: peerId,
    replica,
    place: '',
    siblings: [],
    connected: true,
    applied: new Map(Object.entries(applied)),
    heardAtMs: 1,
    refused: null,
    born: 0,
    held: [],
    clock: new ClockOffset(),
    counts: true,
    reports: new ReportQueue(),
  };
}

function arrived(missing: Record<ReplicaId, number>, known: Record<ReplicaId, number> = {}): Arrived {
  return {
    nextMissing: (replica) => missing[replica] ?? 1,
    lastKnown: (replica) => known[replica] ?? (missing[replica] ?? 1) - 1,
  };
}

const NOBODY: ReadonlySet<string> = new Set();

test('a gap is repaired when it has lasted, of the member that made the frames', () => {
  const repair = new GapRepair();
  const present = [member('b', 'b.1', { 'a.1': 9 }), member('a', 'a.1', { 'a.1': 7 })];
  assert.deepEqual(repair.due(arrived({ 'a.1': 4 }), present, isMine, NOBODY, 1000), []);
  assert.equal(repair.nextMs, 1200);
  assert.deepEqual(repair.due(arrived({ 'a.1': 4 }), present, isMine, NOBODY, 1199), []);
  assert.deepEqual(repair.due(arrived({ 'a.1': 4 }), present, isMine, NOBODY, 1200), [
    { peer: 'a', replica: 'a.1', from: 4, to: 7, far: false },
  ]);
});

test('progress starts the time anew; a gap that closed is forgotten', () => {
  const repair = new GapRepair();
  const present = [member('a', 'a.1', { 'a.1': 9 })];
  repair.due(arrived({ 'a.1': 4 }), present, isMine, NOBODY, 0);
  assert.deepEqual(repair.due(arrived({ 'a.1': 6 }), present, isMine, NOBODY, 300), []);
  assert.deepEqual(repair.due(arrived({ 'a.1': 10 }), present, isMine, NOBODY, 600), []);
  assert.equal(repair.nextMs, null);
});

test('frames that are here and only can not be delivered yet are not asked for', () => {
  const repair = new GapRepair({ graceMs: 0 });
  const present = [member('a', 'a.1', { 'a.1': 9 })];
  assert.deepEqual(repair.due(arrived({ 'a.1': 10 }), present, isMine, NOBODY, 0), []);
  assert.deepEqual(
    repair.due(arrived({ 'a.1': 5 }), present, isMine, NOBODY, 0).map(({ from, to }) => [from, to]),
    [[5, 9]],
  );
});

test('a hole in front of a held-back frame is seen before its maker tells how far it is', () => {
  const repair = new GapRepair({ graceMs: 0 });
  const present = [member('b', 'b.1', {}), member('a', 'a.1', {})];
  const [due] = repair.due(arrived({ 'a.1': 2 }, { 'a.1': 3 }), present, isMine, NOBODY, 0);
  assert.deepEqual(due, { peer: 'a', replica: 'a.1', from: 2, to: 3, far: false });
});

test('what does not help is tried with others too, at growing distances, and then as states', () => {
  const repair = new GapRepair({ graceMs: 100 });
  const present = [member('a', 'a.1', { 'a.1': 9 }), member('b', 'b.1', { 'a.1': 9 })];
  const tries: string[] = [];
  const atMs: number[] = [];
  for (let now = 0; now < 60_000; now += 50) {
    for (const { peer, far } of repair.due(arrived({}), present, isMine, NOBODY, now)) {
      tries.push(`${peer}${far ? ' states' : ''}`);
      atMs.push(now);
    }
  }
  assert.deepEqual(tries.slice(0, 8), ['a', 'b', 'a', 'b', 'a states', 'b', 'a states', 'b']);
  assert.ok(tries.length < 20, `${tries.length} tries in a minute`);
  assert.ok(atMs[4]! < 5000, 'states are tried within seconds');
});

test('far behind means states at once', () => {
  const repair = new GapRepair({ maxFrames: 10 });
  const far = repair.due(arrived({}), [member('a', 'a.1', { 'a.1': 11 })], isMine, NOBODY, 0);
  assert.deepEqual(far, [{ peer: 'a', replica: 'a.1', from: 1, to: 11, far: true }]);
  const near = new GapRepair({ maxFrames: 10, graceMs: 0 });
  assert.equal(near.due(arrived({}), [member('a', 'a.1', { 'a.1': 10 })], isMine, NOBODY, 0)[0]?.far, false);
});

test('own frames, and those that are being repaired, are not asked for; a former epoch is asked of its maker', () => {
  const repair = new GapRepair({ graceMs: 0 });
  const present = [member('b', 'bb.1', { 'me.1': 5, 'aa.1': 5 }), member('a', 'aa.2', { 'aa.1': 5 })];
  assert.deepEqual(repair.due(arrived({}), present, isMine, new Set(['aa.1']), 0), []);
  assert.deepEqual(
    repair.due(arrived({}), present, isMine, NOBODY, 0).map(({ peer, replica }) => [peer, replica]),
    [['a', 'aa.1']],
  );
});

test('replicas of members that left are not remembered', () => {
  const repair = new GapRepair();
  repair.due(arrived({}), [member('a', 'a.1', { 'a.1': 5 })], isMine, NOBODY, 0);
  assert.notEqual(repair.nextMs, null);
  repair.due(arrived({}), [], isMine, NOBODY, 0);
  assert.equal(repair.nextMs, null);
});

// ---- members

const heartbeat: Heartbeat = {
  ...NOTHING_ELSE,
  version: PROTOCOL_VERSION,
  region: 'eu',
  replica: 'a.1',
  rules: 'f00',
  applied: [{ replica: 'a.1', number: 3, stamp: 7 }],
};

test('a member is present while it is connected, has introduced itself, and is not refused', () => {
  const members = new Members();
  members.setConnected('a', true);
  assert.deepEqual(members.present(), []);
  members.heard('a', heartbeat, 5, 'me');
  assert.equal(members.present().length, 1);
  members.refuse('a', heartbeat, 'other rules');
  assert.deepEqual(members.present(), []);
  members.heard('a', heartbeat, 6, 'me');
  members.setConnected('a', false);
  assert.deepEqual(members.present(), []);
  assert.equal(members.all().length, 1);
});

test('the latest word of a member counts, even when it has applied less than before', () => {
  const members = new Members();
  members.heard('a', heartbeat, 5, 'me');
  members.heard('a', { ...heartbeat, applied: [] }, 6, 'me');
  assert.equal(members.get('a')?.applied.size, 0);
});

test('a peer that never introduced itself is forgotten when it goes; of the absent only so many are remembered', () => {
  const members = new Members();
  members.setConnected('x', true);
  members.setConnected('x', false);
  assert.deepEqual(members.all(), []);
  for (let i = 0; i < 1000; i += 1) members.heard(`p${i}`, heartbeat, i + 1, 'me');
  assert.ok(members.all().length <= 300, `${members.all().length} absent members are remembered`);
  assert.ok(members.get('p999') !== undefined, 'the one heard last is remembered');
});

test('the region of a former epoch is that of its identity', () => {
  const members = new Members();
  members.heard('a', { ...heartbeat, replica: 'aaaa.9' }, 5, 'me');
  assert.equal(members.regionOf('aaaa.1'), 'eu');
  assert.equal(members.regionOf('aaab.1'), undefined);
});

// ---- applied waiters

test('who waits for a frame is let go when it is applied, when the time is over, and when the signal aborts', async () => {
  const timers = new VirtualTimers();
  const marks = new Map<ReplicaId, AppliedMark>();
  const waiters = new AppliedWaiters(timers, () => marks);
  const applied = waiters.wait('a.1', 2, 1000);
  const late = waiters.wait('a.1', 9, 1000);
  const abort = new AbortController();
  const aborted = waiters.wait('a.1', 9, 0, abort.signal);
  const stopped = waiters.wait('a.1', 9, 0);
  marks.set('a.1', { replica: 'a.1', number: 1, stamp: 1 });
  waiters.check();
  marks.set('a.1', { replica: 'a.1', number: 3, stamp: 3 });
  waiters.check();
  assert.equal(await applied, 3);
  await timers.advance(1000);
  assert.equal(await late, 3);
  abort.abort();
  assert.equal(await aborted, 3);
  waiters.stop();
  assert.equal(await stopped, 3);
  assert.equal(timers.pending, 0);
  assert.equal(await waiters.wait('a.1', 3, 0), 3, 'what is applied already is told at once');
});

test('more than ten thousand who wait are refused', async () => {
  const timers = new VirtualTimers();
  const waiters = new AppliedWaiters(timers, () => new Map());
  const all = Array.from({ length: 10_000 }, () => waiters.wait('a.1', 1, 0));
  await assert.rejects(waiters.wait('a.1', 1, 0), { code: 'LIMIT' });
  waiters.stop();
  await Promise.all(all);
});

// ---- frame server

async function served(
  from: number,
  to: number,
  recent: RecentFrames,
  store: MemoryStore,
  delivery = new CausalDelivery(1_000_000, () => false),
): Promise<number[]> {
  const out: number[] = [];
  const { signal } = new AbortController();
  for await (const chunk of serveFrames({ replica: 'a.1', from, to }, recent, delivery, store, signal))
    for (const bytes of decodeFrameChunk(chunk)) out.push(bytes[0]!);
  return out;
}

test('frames are served from memory and from the log, in order, up to the first that is gone', async () => {
  const store = new MemoryStore();
  await store.open();
  for (let number = 1; number <= 9; number += 1) {
    const frame = { replica: 'a.1', number, stamp: number, bytes: Uint8Array.of(number) };
    await store.commit({ writes: [], frame });
  }
  await store.trimLog('a.1', 3);
  const recent = new RecentFrames(1000);
  for (const number of [6, 7, 12]) recent.add('a.1', number, Uint8Array.of(number));
  assert.deepEqual(await served(4, 20, recent, store), [4, 5, 6, 7, 8, 9]);
  assert.deepEqual(await served(5, 6, recent, store), [5, 6]);
  assert.deepEqual(await served(2, 9, recent, store), [], 'a hole at the start gives nothing');
  assert.deepEqual(await served(12, 13, recent, store), [12]);
  assert.deepEqual(await served(7, 3, recent, store), []);
  await assert.rejects(served(1, 200_000, recent, store), { code: 'LIMIT' });
});

test('frames that are held back behind a hole are served too', async () => {
  const store = new MemoryStore();
  await store.open();
  const delivery = new CausalDelivery(1_000_000, () => false);
  for (const number of [5, 3, 4, 9]) {
    const head = { replica: 'a.1', number, stamp: number, deps: new Map(), full: false, deltas: [] };
    assert.equal(delivery.offer({ ...head, bytes: Uint8Array.of(number) }), 'held');
  }
  const recent = new RecentFrames(1000);
  assert.deepEqual(await served(1, 8, recent, store, delivery), [3, 4, 5]);
  recent.add('a.1', 1, Uint8Array.of(1));
  recent.add('a.1', 3, Uint8Array.of(3));
  assert.deepEqual(await served(1, 20, recent, store, delivery), [1, 3, 4, 5, 9]);
  assert.deepEqual(await served(4, 4, recent, store, delivery), [4]);
});

// ---- recent frames

test('recent frames are bounded by bytes, the oldest go first, and small parts do not keep large messages', () => {
  const recent = new RecentFrames(10);
  for (let number = 1; number <= 5; number += 1) recent.add('a.1', number, new Uint8Array(4));
  assert.equal(recent.get('a.1', 3), undefined);
  assert.equal(recent.get('a.1', 5)?.length, 4);
  const message = new Uint8Array(1_000_000);
  recent.add('a.1', 6, message.subarray(10, 15));
  assert.equal(recent.get('a.1', 6)?.buffer.byteLength, 5);
  recent.add('a.1', 7, new Uint8Array(100));
  assert.equal(recent.get('a.1', 7), undefined, 'one that is too large is not kept');
});

// ---- messages

test('messages come back as they were', () => {
  const bytes = encodeHeartbeat(heartbeat);
  assert.ok(isHeartbeat(bytes));
  assert.deepEqual(decodeHeartbeat(bytes), heartbeat);
  const frames = { replica: 'a.1', from: 1, to: 2 ** 40 };
  assert.deepEqual(decodeFramesRequest(encodeFramesRequest(frames)), frames);
  const applied = { replica: 'a.1', number: 5, timeoutMs: 100 };
  assert.deepEqual(decodeAppliedRequest(encodeAppliedRequest(applied)), applied);
  const chunk = [Uint8Array.of(1), new Uint8Array(300)];
  assert.deepEqual(
    decodeFrameChunk(encodeFrameChunk(chunk)).map((frame) => [...frame]),
    chunk.map((frame) => [...frame]),
  );
});

test('messages that are damaged are refused, each with DecodeError', () => {
  const bad: [name: string, decode: (bytes: Uint8Array) => unknown, tree: unknown][] = [
    ['another kind', decodeHeartbeat, ['x', 1, 'eu', 'a.1', 'f', []]],
    ['another version', decodeHeartbeat, ['h', 2, 'eu', 'a.1', 'f', []]],
    ['a region with a space', decodeHeartbeat, ['h', 1, 'e u', 'a.1', 'f', []]],
    ['an empty replica', decodeHeartbeat, ['h', 1, 'eu', '', 'f', []]],
    ['a long replica', decodeHeartbeat, ['h', 1, 'eu', 'a'.repeat(65), 'f', []]],
    ['no marks', decodeHeartbeat, ['h', 1, 'eu', 'a.1', 'f']],
    ['two thirds of a mark', decodeHeartbeat, ['h', 1, 'eu', 'a.1', 'f', ['a.1', 1]]],
    ['a negative number', decodeHeartbeat, ['h', 1, 'eu', 'a.1', 'f', ['a.1', -1, 1]]],
    ['a broken stamp', decodeHeartbeat, ['h', 1, 'eu', 'a.1', 'f', ['a.1', 1, 1.5]]],
    ['not an array', decodeFramesRequest, 'a.1'],
    ['too many parts', decodeFramesRequest, ['a.1', 1, 2, 3]],
    ['a text for a number', decodeFramesRequest, ['a.1', '1', 2]],
    ['a float for a number', decodeAppliedRequest, ['a.1', 1, 0.5]],
    ['a text for a frame', decodeFrameChunk, ['frame']],
  ];
  for (const [name, decode, tree] of bad) assert.throws(() => decode(pack(tree)), { code: 'DECODE' }, name);
});

test('every cut and every changed byte of a heartbeat is refused or understood, never a crash', () => {
  const bytes = encodeHeartbeat(heartbeat);
  check(
    500,
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, end) => {
      const changed = bytes.slice(0, end);
      if (at < end) changed[at] = value;
      try {
        decodeHeartbeat(changed);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'DECODE');
      }
    }),
  );
});

// ---- pieces

async function* each(...items: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* items;
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const out: Uint8Array[] = [];
  for await (const item of source) out.push(item);
  return out;
}

test('messages of any size come back from their pieces, none of which is over two mebibytes', async () => {
  const sizes = [0, 1, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 3 * 2 ** 20, 9_000_001];
  const messages = sizes.map((size) => new Uint8Array(size).map((_, i) => i % 251));
  const pieces = await collect(toPieces(each(...messages)));
  assert.ok(pieces.every((piece) => piece.length <= 2 ** 21));
  const back = await collect(fromPieces(each(...pieces)));
  assert.deepEqual(
    back.map((message) => message.length),
    sizes,
  );
  for (const [i, message] of back.entries()) assert.equal(Buffer.compare(message, messages[i]!), 0);
});

test('pieces that are none, that stop in the middle, or come without end are refused', async () => {
  await assert.rejects(collect(fromPieces(each(new Uint8Array(0)))), { code: 'DECODE' });
  await assert.rejects(collect(fromPieces(each(Uint8Array.of(7, 1)))), { code: 'DECODE' });
  await assert.rejects(collect(fromPieces(each(Uint8Array.of(1, 1)))), { code: 'DECODE' });
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) yield Uint8Array.of(1, 1, 1, 1);
  }
  await assert.rejects(collect(fromPieces(endless(), 1000)), { code: 'DECODE' });
});

// ---- WAIT

/** A mesh whose only answer is the given one. */
function meshThat(request: () => AsyncIterable<Uint8Array>): Mesh {
  const mesh = new LoopbackNetwork({ timers: new VirtualTimers() }).mesh('me');
  mesh.request = request;
  return mesh;
}

function waitOptions(mesh: Mesh, timers: VirtualTimers, members: Members) {
  return {
    mesh,
    members,
    timers,
    isOwnRegion: ({ region }: { readonly region: string }) => region === 'here',
    replica: 'me.1',
    number: 5,
    regions: 1,
    timeoutMs: 1000,
  };
}

test('a member that can not be reached is asked again from time to time, not without end at once', async () => {
  const timers = new VirtualTimers();
  const members = new Members();
  members.setConnected('a', true);
  members.heard('a', heartbeat, 1, 'me');
  let asked = 0;
  const mesh = meshThat(() => {
    asked += 1;
    // Without a pause between the questions this would never come to an end.
    if (asked > 1000) throw new Error('asked a thousand times');
    throw new PeerError('not reachable');
  });
  const waiting = waitForRegions(waitOptions(mesh, timers, members));
  await timers.settle();
  assert.ok(asked < 5, `asked ${asked} times without any time passing`);
  await timers.advance(1000);
  assert.equal(await waiting, 0);
  assert.ok(asked < 50, `asked ${asked} times`);
  assert.equal(timers.pending, 0);
});

test('WAIT counts regions, not members, leaves out its own, and ends with the signal', async () => {
  const timers = new VirtualTimers();
  const members = new Members();
  const applied = [{ replica: 'me.1', number: 5, stamp: 5 }];
  for (const [peer, region] of [
    ['a', 'eu'],
    ['b', 'eu'],
    ['c', 'here'],
  ] as const) {
    members.setConnected(peer, true);
    members.heard(peer, { ...heartbeat, region, replica: `${peer}.1`, applied }, 1, 'me');
  }
  const mesh = meshThat(async function* () {
    await new Promise(() => {});
    yield new Uint8Array(0);
  });
  const options = waitOptions(mesh, timers, members);
  assert.equal(await waitForRegions(options), 1);
  assert.equal(await waitForRegions({ ...options, regions: 0 }), 1);
  const late = waitForRegions({ ...options, regions: 2 });
  await timers.advance(1000);
  assert.equal(await late, 1);
  const abort = new AbortController();
  const aborted = waitForRegions({ ...options, regions: 2, timeoutMs: 0, signal: abort.signal });
  await timers.settle();
  abort.abort();
  assert.equal(await aborted, 1);
  assert.equal(await waitForRegions({ ...options, regions: 2, signal: abort.signal }), 1);
  assert.equal(timers.pending, 0);
});
