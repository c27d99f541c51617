/** The embed API: createNode and what it gives, over the loopback network on virtual time, and once over libp2p. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isNativeError } from 'node:util/types';
import { utf8 } from '../crdts/bytes.js';
import type { RuleOptions } from '../crdts/rules.js';
import {
  type ChangeEvent,
  type ConflictEvent,
  createIdentity,
  createNode,
  type NodeOptions,
} from '../src/index.js';
import { silentLogger } from '../src/options.js';
import { MemoryStore } from '../src/store/memory.js';
import { MeshWorld } from './support/mesh-world.js';
import { waitFor } from './support/wait.js';

const BYTES = Uint8Array.from({ length: 256 }, (_, i) => i);

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    assert.ok(isNativeError(error));
    return String((error as { code?: string }).code);
  }
  return 'resolved';
}

test('registers keep text and bytes as they are, in every region', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  assert.equal(await a!.register('text').get(), null);
  for (const text of ['', 'plain', 'žluť ☃ 😀', '\u0000\ufeff']) {
    assert.equal(await world.run(a!.register('text').set(text)), true);
    assert.equal(await a!.register('text').get(), text);
  }
  await world.run(a!.register(BYTES, 'bytes').set(BYTES));
  await world.run(a!.waitFor(1));
  assert.equal(await b!.register('text').get(), '\u0000\ufeff');
  assert.deepEqual(await b!.register(BYTES, 'bytes').get(), BYTES);
  assert.equal(await world.run(b!.register(BYTES).delete()), true);
  assert.equal(await world.run(b!.register(BYTES).delete()), false);
  await world.stop();
});

test('counters count everywhere, exactly, and say what they can not count', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  assert.equal(await world.run(a!.counter('n').increment()), 1n);
  assert.equal(await world.run(b!.counter('n').decrement(3)), -3n);
  await world.equal();
  assert.equal(await a!.counter('n').value(), -2n);
  const most = 2n ** 63n - 1n;
  assert.equal(await world.run(a!.counter('max').increment(most)), most);
  assert.equal(await codeOf(world.run(a!.counter('max').increment())), 'OVERFLOW');
  assert.equal(await codeOf(a!.counter('n').increment(0.5)), 'NOT_AN_INTEGER');
  assert.equal(await codeOf(a!.counter('n').increment(2n ** 64n)), 'NOT_AN_INTEGER');
  await world.run(a!.register('text').set('abc'));
  assert.equal(await codeOf(world.run(a!.counter('text').increment())), 'NOT_AN_INTEGER');
  assert.equal(await codeOf(a!.counter('text').value()), 'NOT_AN_INTEGER');
  // SEMANTICS row 13: the increment that a SET did not see survives it.
  await world.run(a!.register('c').set('100'));
  await world.equal();
  world.network.cut('a', 'b');
  await world.run(a!.counter('c').increment(5));
  await world.run(b!.register('c').set('10'));
  world.network.heal();
  await world.equal();
  assert.equal(await a!.counter('c').value(), 15n);
  assert.equal(await world.run(a!.counter('c').delete()), true);
  assert.equal(await a!.counter('c').value(), 0n);
  await world.stop();
});

test('sets are sets of text or bytes, add-wins, and can be iterated', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  const set = a!.set('s', 'bytes');
  assert.equal(await world.run(set.add('x', 'x', BYTES)), 2);
  assert.equal(await set.size(), 2);
  assert.equal(await set.has(BYTES), true);
  assert.equal(await set.has('y'), false);
  await world.equal();
  const seen: string[] = [];
  for await (const member of b!.set('s', 'bytes')) seen.push(Buffer.from(member).toString('latin1'));
  assert.deepEqual(seen.sort(), [Buffer.from(BYTES).toString('latin1'), 'x'].sort());
  // Iterating sees the members as they were when it began.
  let rounds = 0;
  for await (const _member of a!.set('s')) {
    rounds += 1;
    await world.run(a!.set('s').add(`more ${rounds}`));
  }
  assert.equal(rounds, 2);
  world.network.cut('a', 'b');
  await world.run(a!.set('s').add('x'));
  await world.run(b!.set('s').delete('x'));
  await world.run(b!.set('s').clear());
  world.network.heal();
  await world.equal();
  assert.deepEqual((await b!.set('s').values()).sort(), ['more 1', 'more 2', 'x']);
  assert.equal(await world.run(b!.set('s').delete('x', 'nobody')), 1);
  assert.equal(await codeOf(world.run(b!.set('s').add())), 'ARGUMENT');
  assert.equal(await codeOf(b!.register('s').get()), 'WRONGTYPE');
  assert.equal(await codeOf(b!.set('n').size()), 'resolved');
  await world.stop();
});

test('del takes keys of any type as one batch and says how many were there', async () => {
  const world = new MeshWorld();
  const a = await world.start('a');
  await world.run(a.register('r').set('1'));
  await world.run(a.set('s').add('m'));
  await world.run(a.counter('n').increment());
  const before = a.status().frames.own;
  assert.equal(await world.run(a.del('r', 's', 'n', 'none', 'r')), 3);
  assert.equal(a.status().frames.own, before + 1);
  assert.equal(await world.stores.get('a')!.count(), 0);
  assert.equal(await codeOf(a.del()), 'ARGUMENT');
  await world.stop();
});

test('a time to live ends in every region; SET clears it, unless told to keep it', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  await world.run(a!.register('gone').set('v', { ttlMs: 5_000 }));
  await world.run(a!.register('kept').set('v', { ttlMs: 5_000 }));
  await world.run(a!.register('kept').set('w', { keepTtl: true }));
  await world.run(a!.register('cleared').set('v', { ttlMs: 5_000 }));
  await world.run(a!.register('cleared').set('w'));
  await world.equal();
  assert.equal(await b!.register('gone').get(), 'v');
  await world.timers.advance(5_000);
  for (const node of [a!, b!]) {
    assert.deepEqual(await Promise.all(['gone', 'kept', 'cleared'].map((key) => node.register(key).get())), [
      null,
      null,
      'w',
    ]);
  }
  assert.equal(await world.run(b!.counter('gone').increment()), 1n);
  await world.equal();
  for (const ttlMs of [0, -1, 0.5, Number.NaN])
    assert.equal(await codeOf(a!.register('k').set('v', { ttlMs })), 'ARGUMENT');
  assert.equal(await codeOf(a!.register('k').set('v', { ttlMs: 5, keepTtl: true })), 'ARGUMENT');
  await world.stop();
});

test('keys, values and members that are none are refused', async () => {
  const world = new MeshWorld();
  const a = await world.start('a', { maxValueBytes: 1024 });
  assert.throws(() => a.register('__mesh:meta'), { code: 'ARGUMENT' });
  assert.throws(() => a.register('k'.repeat(1025)), { code: 'ARGUMENT' });
  assert.throws(() => a.set(7 as unknown as string), { code: 'ARGUMENT' });
  assert.equal(await codeOf(a.register('k').set(7 as unknown as string)), 'ARGUMENT');
  assert.equal(await codeOf(world.run(a.register('k').set('v'.repeat(1025)))), 'LIMIT');
  assert.equal(await codeOf(world.run(a.set('s').add('m'.repeat(1025)))), 'LIMIT');
  assert.equal(await codeOf(a.waitFor(-1)), 'ARGUMENT');
  assert.equal(await codeOf(a.waitFor(1, { timeoutMs: Number.NaN })), 'ARGUMENT');
  assert.equal(await world.stores.get('a')!.count(), 0);
  await world.stop();
});

// ---- policies

const RULES: readonly RuleOptions[] = [
  { pattern: 'first:*', type: 'string', policy: 'fww' },
  { pattern: 'max:*', type: 'string', policy: 'max' },
  { pattern: 'min:*', type: 'string', policy: 'min' },
  {
    pattern: 'all:*',
    type: 'string',
    policy: {
      name: 'joined',
      resolve: (siblings) =>
        siblings
          .map(({ value }) => value)
          .sort()
          .join('+') as (typeof siblings)[0]['value'],
    },
  },
  {
    pattern: 'broken:*',
    type: 'string',
    policy: {
      name: 'broken',
      resolve: () => {
        throw new Error('a broken resolver');
      },
    },
  },
  { pattern: 'count:*', type: 'counter' },
  { pattern: 'set:*', type: 'set' },
];

test('policies choose among concurrent writes: first, greatest, least, and one’s own (SEMANTICS rows 8 and 9)', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b'], { rules: RULES });
  world.network.cut('a', 'b');
  for (const key of ['first:k', 'max:k', 'min:k', 'all:k', 'broken:k']) {
    await world.run(a!.register(key).set('7'));
    await world.timers.advance(10);
    await world.run(b!.register(key).set('15'));
  }
  world.network.heal();
  await world.equal();
  for (const node of [a!, b!]) {
    const read = ['first:k', 'max:k', 'min:k', 'all:k', 'broken:k'].map((key) => node.register(key).get());
    assert.deepEqual(await Promise.all(read), ['7', '15', '7', '15+7', '15']);
  }
  // A write that has seen both replaces both, whatever the policy thinks of it; but the first stays the first.
  assert.equal(await world.run(b!.register('max:k').set('3')), true);
  assert.equal(await world.run(b!.register('first:k').set('3')), false);
  await world.equal();
  assert.equal(await a!.register('max:k').get(), '3');
  assert.equal(await a!.register('first:k').get(), '7');
  await world.run(a!.register('first:k').delete());
  assert.equal(await world.run(a!.register('first:k').set('new')), true);
  assert.equal(await codeOf(world.run(a!.register('count:k').set('text'))), 'NOT_AN_INTEGER');
  assert.equal(await codeOf(world.run(a!.register('set:k').set('v'))), 'RULE');
  assert.equal(await codeOf(world.run(a!.counter('max:k').increment())), 'RULE');
  assert.equal(await codeOf(world.run(a!.set('max:k').add('m'))), 'RULE');
  await world.stop();
});

test('members with other rules refuse each other and say why, on both sides, until the rules are the same', async () => {
  const world = new MeshWorld();
  const warnings: string[] = [];
  const logger = { ...silentLogger, warn: (fields: object) => warnings.push(JSON.stringify(fields)) };
  const a = await world.start('a', { rules: RULES });
  await world.start('b', { rules: RULES.slice(1), logger });
  await world.run(a.register('k').set('from a'));
  const status = (name: string) => world.nodes.get(name)!.status().peers[0];
  await world.until('both refuse', () => status('a')?.refused != null && status('b')?.refused != null);
  for (const name of ['a', 'b']) {
    assert.match(String(status(name)?.refused), /rules .* differ .* give every member the same rules/);
  }
  await world.timers.advance(20_000);
  assert.equal(await world.nodes.get('b')!.register('k').get(), null, 'nothing was taken');
  assert.ok(warnings.some((line) => line.includes('give every member the same rules')));
  assert.ok(warnings.length < 10, `${warnings.length} warnings`);
  await world.run(world.nodes.get('b')!.stop());
  await world.start('b', { rules: RULES });
  await world.equal();
  assert.equal(await world.nodes.get('b')!.register('k').get(), 'from a');
  assert.equal(status('a')?.refused, null);
  await world.stop();
});

// ---- events

test('changes are told where they happen and where they arrive, with what the key holds then', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  const events: [string, ChangeEvent][] = [];
  const listener = (event: ChangeEvent): void => void events.push(['a', event]);
  a!.on('change', listener);
  b!.on('change', (event) => events.push(['b', event]));
  await world.run(a!.register('r').set('v'));
  await world.run(a!.waitFor(1));
  await world.run(a!.set(BYTES).add('m'));
  await world.run(a!.waitFor(1));
  await world.run(a!.del('r'));
  await world.run(a!.waitFor(1));
  assert.deepEqual(
    events.map(([where, { key, type, origin }]) => [where, key.length > 9 ? 'bytes' : key, type, origin]),
    [
      ['a', 'r', 'string', 'local'],
      ['b', 'r', 'string', 'remote'],
      ['a', 'bytes', 'set', 'local'],
      ['b', 'bytes', 'set', 'remote'],
      ['a', 'r', 'none', 'local'],
      ['b', 'r', 'none', 'remote'],
    ],
  );
  assert.deepEqual(events[3]![1].keyBytes, BYTES);
  a!.off('change', listener);
  await world.run(a!.register('r').set('v'));
  assert.equal(events.filter(([where]) => where === 'a').length, 3);
  await world.stop();
});

test('a conflict tells who won, who lost, what they wrote, when, and why', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b'], { rules: RULES });
  const conflicts: ConflictEvent[] = [];
  a!.on('conflict', (event) => conflicts.push(event));
  // Only of a peer whose frames were heard it is known what it has not seen.
  await world.run(b!.register('x').set('1'));
  await world.run(b!.waitFor(1));
  world.network.cut('a', 'b');
  const writtenAt = world.timers.now();
  await world.run(a!.register('k').set('from a'));
  await world.run(a!.register('max:k').set('9'));
  await world.timers.advance(1000);
  await world.run(b!.register('k').set('from b'));
  await world.run(b!.register('max:k').set('5'));
  world.network.heal();
  await world.equal();
  const [plain, policy] = conflicts;
  assert.equal(conflicts.length, 2);
  assert.equal(plain!.key, 'k');
  assert.equal(plain!.reason, 'later');
  assert.equal(plain!.winner.region, 'b');
  assert.equal(plain!.loser.region, 'a');
  assert.equal(Buffer.from(plain!.winner.value!).toString(), 'from b');
  assert.equal(Buffer.from(plain!.loser.value!).toString(), 'from a');
  assert.ok(Math.abs(plain!.loser.atMs - writtenAt) < 50 && plain!.winner.atMs > plain!.loser.atMs);
  assert.equal(policy!.reason, 'policy');
  assert.equal(policy!.winner.region, 'a');
  assert.equal(Buffer.from(policy!.winner.value!).toString(), '9');
  assert.equal(Buffer.from(policy!.loser.value!).toString(), '5');
  assert.equal(a!.status().conflicts, 2);
  // One after the other is no conflict.
  await world.run(a!.register('k').set('again'));
  await world.equal();
  await world.run(b!.register('k').set('and again'));
  await world.equal();
  assert.equal(conflicts.length, 2);
  await world.stop();
});

test('a key that became a set here and a string there is reported once, and not again until it has one type', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  const conflicts: [string, ConflictEvent][] = [];
  for (const [name, node] of [
    ['a', a!],
    ['b', b!],
  ] as const)
    node.on('conflict', (event) => conflicts.push([name, event]));
  const part = async (): Promise<void> => {
    world.network.cut('a', 'b');
    await world.run(a!.set('k').add('m'));
    await world.timers.advance(1000);
    await world.run(b!.register('k').set('text'));
    world.network.heal();
    await world.equal();
  };
  await part();
  assert.deepEqual(conflicts.map(([where]) => where).sort(), ['a', 'b']);
  for (const [, { key, reason, winner, loser }] of conflicts) {
    assert.deepEqual([key, reason, winner.region, loser.region], ['k', 'type', 'b', 'a']);
    assert.equal(Buffer.from(winner.value!).toString(), 'text');
    assert.equal(loser.value, undefined);
    assert.ok(winner.atMs > loser.atMs);
  }
  await world.run(b!.counter('other').increment());
  await world.equal();
  assert.equal(conflicts.length, 2);
  // A deletion ends it; the next one is another.
  await world.run(a!.del('k'));
  await world.equal();
  assert.equal(conflicts.length, 2);
  await part();
  assert.equal(conflicts.length, 4);
  await world.stop();
});

test('a listener that throws, at once or later, keeps neither the others nor replication from going on', async () => {
  const world = new MeshWorld();
  const errors: unknown[] = [];
  const a = await world.start('a', { logger: { ...silentLogger, error: (fields) => errors.push(fields) } });
  const b = await world.start('b');
  let told = 0;
  a.on('change', () => {
    throw new Error('a broken listener');
  });
  a.on('change', async () => {
    throw new Error('a listener that breaks later');
  });
  a.on('change', () => {
    told += 1;
  });
  await world.run(a.counter('n').increment());
  await world.run(b.counter('n').increment());
  await world.equal();
  assert.equal(await a.counter('n').value(), 2n);
  assert.equal(told, 2);
  assert.equal(errors.length, 4);
  await world.stop();
});

// ---- node

test('waitFor says how many regions have it: enough, too few in time, or none to wait for', async () => {
  const world = new MeshWorld();
  const a = await world.start('a');
  await world.run(a.counter('n').increment());
  assert.equal(await world.run(a.waitFor(0)), 0);
  assert.equal(await world.run(a.waitFor(1, { timeoutMs: 100 })), 0);
  const pending = a.waitFor(2, { timeoutMs: 0 });
  await world.start('b');
  await world.timers.advance(2000);
  const aborted = new AbortController();
  const given = a.waitFor(2, { timeoutMs: 0, signal: aborted.signal });
  await world.timers.advance(100);
  aborted.abort();
  assert.equal(await world.run(given), 1);
  await world.start('c');
  assert.equal(await world.run(pending), 2);
  await world.stop();
});

test('status and digest tell how a node stands', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  await world.run(a!.counter('n').increment());
  await world.run(a!.waitFor(1));
  await world.timers.advance(3000);
  const status = a!.status();
  assert.equal(status.state, 'ready');
  assert.equal(status.region, 'a');
  assert.equal(status.peerId, 'a');
  assert.equal(status.frames.own, 1);
  assert.deepEqual(status.queue, { operations: 0, bytes: 0 });
  assert.equal(status.peers[0]?.region, 'b');
  assert.equal(status.peers[0]?.connected, true);
  assert.equal(status.peers[0]?.appliedNumber, 1);
  assert.ok((status.peers[0]?.silentMs ?? 9999) <= 1100);
  assert.equal(b!.status().frames.applied, 1);
  const digest = await a!.digest();
  assert.match(digest, /^[0-9a-f]{12}$/);
  assert.equal(await b!.digest(), digest);
  await world.run(b!.counter('n').increment());
  assert.notEqual(await b!.digest(), digest);
  await world.stop();
});

test('stopping is idempotent, refuses what comes later, and the next start goes on under the same replica id', async () => {
  const world = new MeshWorld();
  const a = await world.start('a');
  await world.run(a.counter('n').increment());
  const { replica } = a.status();
  const late = a.counter('n').increment();
  await world.run(Promise.all([a.stop(), a.stop()]));
  await world.run(a.stop());
  assert.equal(await late, 2n, 'what was queued is committed');
  assert.equal(await codeOf(a.counter('n').increment()), 'STOPPED');
  assert.equal(await codeOf(a.waitFor(1)), 'STOPPED');
  assert.equal(await codeOf(a.register('k').get()), 'STOPPED');
  assert.equal(a.status().state, 'stopping');
  await world.timers.advance(50);
  assert.equal(world.timers.pending, 0);
  const again = await world.start('a');
  assert.equal(again.status().replica, replica);
  assert.equal(again.status().frames.own, 2);
  assert.equal(await world.run(again.counter('n').increment()), 3n);
  await world.stop();
});

test('options that are no use are refused with what to do about it, and nothing is left running', async () => {
  const region = 'eu';
  const bad: [name: string, options: unknown, says: RegExp][] = [
    ['nothing', undefined, /region/],
    ['no region', {}, /region/],
    ['a region with a space', { region: 'e u' }, /1 to 64 characters/],
    ['a long region', { region: 'x'.repeat(65) }, /1 to 64 characters/],
    ['an unknown store', { region, store: 'mysql://x' }, /unknown store/],
    ['a store that is none', { region, store: 5 }, /store must be/],
    ['a port that is none', { region, store: 'redis://127.0.0.1:99999' }, /./],
    ['rules that are no array', { region, rules: 'x' }, /rules must be an array/],
    ['a rule that is nothing', { region, rules: [null] }, /rules must be an array/],
    ['a rule without a pattern', { region, rules: [{ type: 'set' }] }, /pattern must be a glob/],
    [
      'a rule of no type',
      { region, rules: [{ pattern: '*', type: 'list' }] },
      /must be string, counter or set/,
    ],
    [
      'an unknown policy',
      { region, rules: [{ pattern: '*', type: 'string', policy: 'avg' }] },
      /must be one of/,
    ],
    [
      'a set with a policy',
      { region, rules: [{ pattern: '*', type: 'set', policy: 'max' }] },
      /only strings/,
    ],
    ['an address that is none', { region, listen: ['here'] }, /listen/],
    ['one address, not a list', { region, listen: '/ip4/127.0.0.1/tcp/0' }, /listen must be an array/],
    ['a peer that is none', { region, peers: ['127.0.0.1:80'] }, /peer/],
    ['an allowed peer that is none', { region, allow: ['me'] }, /allow/],
    ['an identity that is text', { region, identity: 'key' }, /identity must be a Uint8Array/],
    ['an identity that is broken', { region, identity: Uint8Array.of(1, 2) }, /keygen/],
    ['a mesh key that is broken', { region, meshKey: Uint8Array.of(1, 2) }, /mesh key/],
    ['a negative drift', { region, maxDriftMs: -1 }, /maxDriftMs/],
    ['a fraction', { region, heartbeatMs: 10.5 }, /heartbeatMs/],
    ['a text for a number', { region, maxLogBytes: '1' }, /maxLogBytes/],
    ['no value may be that long', { region, maxValueBytes: 2 ** 40 }, /maxValueBytes/],
    ['no operation may wait', { region, maxQueuedOperations: 0 }, /maxQueuedOperations/],
  ];
  for (const [name, options, says] of bad) {
    const error: unknown = await createNode(options as NodeOptions).then(
      (node) => node.stop(),
      (reason: unknown) => reason,
    );
    assert.ok(isNativeError(error), `${name} was accepted`);
    assert.equal((error as { code?: string }).code, 'CONFIG', `${name}: ${error.message}`);
    assert.match(error.message, says, name);
  }
});

test('a node whose mesh can not start closes its store', async () => {
  const first = await createNode({ region: 'a' });
  const [taken] = first.addresses();
  const store = new MemoryStore();
  const listen = [taken!.replace(/\/p2p\/.*/, '')];
  assert.equal(await codeOf(createNode({ region: 'b', listen, store })), 'CONFIG');
  assert.equal(await codeOf(store.digests()), 'STOPPED');
  await first.stop();
});

test('over libp2p: text, bytes, events, and batches longer than any message', async () => {
  const [one, two] = [createIdentity(), createIdentity()];
  const allow = [one.peerId, two.peerId];
  const a = await createNode({ region: 'a', identity: one.bytes, allow, heartbeatMs: 100 });
  const b = await createNode({
    region: 'b',
    identity: two.bytes,
    allow,
    heartbeatMs: 100,
    peers: a.addresses(),
    recentFramesBytes: 0,
  });
  try {
    const seen: string[] = [];
    b.on('change', ({ key, origin }) => seen.push(`${key} ${origin}`));
    await waitFor(() => a.status().peers[0]?.connected === true && b.status().peers[0]?.connected === true);
    await a.register('k', 'bytes').set(BYTES);
    assert.equal(await a.waitFor(1), 1);
    assert.deepEqual(await b.register('k', 'bytes').get(), BYTES);
    assert.deepEqual(seen, ['k remote']);
    // One operation is one frame; this one has 12 MiB, and the longest chunk of a request 8 MiB.
    const large = 'x'.repeat(6 * 1024 * 1024);
    const keys = ['large 1', 'large 2'].map(utf8);
    const error = await new Promise<Error | null>((done) =>
      a.engine.submit(
        {
          needs: keys.map((key) => ({ key })),
          run: (tx) => keys.map((key) => tx.set(key, utf8(`${large}${key}`), 'clear')),
        },
        { settled: done },
      ),
    );
    assert.equal(error, null);
    await a.counter('behind').increment();
    assert.equal(await a.waitFor(1, { timeoutMs: 20_000 }), 1);
    assert.equal((await b.register('large 2').get())?.length, large.length + 7);
    assert.equal(await b.counter('behind').value(), 1n);
    assert.equal(await a.digest(), await b.digest());
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
});

test('a value of the greatest length arrives over libp2p, as a frame and as a state', async () => {
  const a = await createNode({ region: 'a', heartbeatMs: 100, recentFramesBytes: 0 });
  await a.register('k').set('x'.repeat(8 * 1024 * 1024));
  const b = await createNode({ region: 'b', heartbeatMs: 100, peers: a.addresses() });
  try {
    await b.whenReady();
    await waitFor(async () => (await b.register('k').get())?.length === 8 * 1024 * 1024, {
      deadlineMs: 20_000,
    });
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
});
