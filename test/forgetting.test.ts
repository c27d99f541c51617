/**
 * Forgetting on whole meshes, on virtual time: what is left of deleted keys is dropped when every member knows, a member that is away
 * holds it back, MESH FORGET ends that, and what returns afterwards begins anew.
 */
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { stampAt } from '../crdts/stamp.js';
import type { ForgettingStatus } from '../src/engine.js';
import type { MeshNode } from '../src/node.js';
import { type Logger, silentLogger } from '../src/options.js';
import { startFrontDoor } from '../src/resp/front-door.js';
import { type ForgettingFacts, forgettingStatus } from '../src/sync/forgetting-status.js';
import { type Member, Members } from '../src/sync/members.js';
import { NOTHING_ELSE } from './support/heartbeat.js';
import { MeshWorld } from './support/mesh-world.js';
import { RawClient } from './support/resp-client.js';

const KEYS = 40;
const OPTIONS = { tombstoneGraceMs: 2_000, antiEntropyMs: 5_000 };

/** Keys of which anything is left in a region, tombstones included. */
function left(world: MeshWorld, region: string): number {
  let headers = 0;
  for (const slot of world.stores.get(region)!.dataset.slots.values()) headers += slot.headers.size;
  return headers;
}

const keys = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `key ${from + i}`);

async function write(world: MeshWorld, node: MeshNode): Promise<void> {
  for (const key of keys(0, KEYS)) await world.run(node.register(key).set(key));
  await world.run(node.set('set').add('x', 'y'));
  await world.run(node.counter('visits').increment(5n));
  await world.equal();
}

/** Deletes half of the keys, and a set and a counter. */
async function deleteSome(world: MeshWorld, node: MeshNode): Promise<void> {
  for (const key of keys(0, KEYS / 2)) await world.run(node.del(key));
  await world.run(node.del('set'));
  await world.run(node.del('visits'));
}

/** What a region has when all is done: half of the keys, and nothing of the deleted ones. */
async function assertHalf(node: MeshNode): Promise<void> {
  for (const [i, key] of keys(0, KEYS).entries())
    assert.equal(
      await node.register(key).get(),
      i < KEYS / 2 ? null : key,
      `${key} at ${node.status().region}`,
    );
  assert.deepEqual(await node.set('set').values(), []);
  assert.equal(await node.counter('visits').value(), 0n);
}

/** Starts members, and lets them count each other. */
async function begin(world: MeshWorld, regions: readonly string[]): Promise<MeshNode[]> {
  const nodes = await world.startAll(regions, OPTIONS);
  await world.until('all count', () =>
    nodes.every((node) => forgettingOf(node).members.length === regions.length - 1),
  );
  return nodes;
}

const forgettingOf = (node: MeshNode): ForgettingStatus => node.status().forgetting;

describe('MESH FORGET', () => {
  it('refuses this node, who is no member, who is connected, and who was forgotten already', async () => {
    const world = new MeshWorld();
    const [a] = await begin(world, ['a', 'b', 'c']);
    const refused = (peer: string, message: RegExp): void =>
      assert.throws(() => a!.engine.forget(peer), { code: 'ARGUMENT', message });
    refused('a', /can not forget itself: say it to another one/);
    refused('nobody', /nobody is no member: MESH PEERS lists them/);
    refused('', /no member/);
    refused('c', /c is connected: stop it first/);
    assert.deepEqual(forgettingOf(a!).members.toSorted(), ['b', 'c']);
    world.network.partition([['a', 'b'], ['c']]);
    await world.until(
      'c is away',
      () => !a!.status().peers.some((peer) => peer.peerId === 'c' && peer.connected),
    );
    a!.engine.forget('c');
    refused('c', /c is no member/);
    assert.deepEqual(forgettingOf(a!).members, ['b']);
    await world.stop();
  });

  it('is a RESP command', async () => {
    const world = new MeshWorld();
    const [a] = await begin(world, ['a', 'b']);
    const door = await startFrontDoor({ engine: a!.engine, port: 0, logger: silentLogger });
    const client = await RawClient.connect(door.port);
    try {
      assert.match(await client.call('MESH', 'FORGET', 'b'), /^-ERR b is connected: stop it first/);
      assert.match(await client.call('MESH', 'FORGET', 'a'), /^-ERR a node can not forget itself/);
      world.network.cut('a', 'b');
      await world.until('b is away', () => a!.status().peers[0]?.connected === false);
      assert.match(await client.call('INFO', 'mesh'), /^mesh_forgetting_waiting_for:b\r$/m);
      assert.equal(await client.call('MESH', 'FORGET', 'b'), '+OK\r\n');
      assert.match(await client.call('INFO', 'mesh'), /^mesh_forgetting_waiting_for:\r$/m);
    } finally {
      client.close();
      await door.stop();
    }
    await world.stop();
  });
});

for (const how of ['is cut off', 'is stopped, in order', 'is killed'] as const) {
  test(`a member that ${how} holds forgetting back until it is forgotten; it returns as new`, async () => {
    const world = new MeshWorld();
    const said: string[] = [];
    const logger: Logger = { ...silentLogger, error: (_fields, message) => said.push(message) };
    const [a, b] = await begin(world, ['a', 'b']);
    let c = await world.start('c', { ...OPTIONS, logger });
    await write(world, a!);
    if (how === 'is cut off') {
      world.network.partition([['a', 'b'], ['c']]);
      // What it writes while nobody hears it, on keys that the others delete meanwhile.
      await world.run(c.register('key 0').set('late'));
      await world.run(c.counter('visits').increment(7n));
      await world.run(c.set('set').add('z'));
      await world.run(c.register('only c').set('alone'));
    } else {
      if (how === 'is killed') await world.stores.get('c')!.close();
      await world.run(c.stop());
      world.nodes.delete('c');
    }
    await deleteSome(world, a!);
    await world.timers.advance(15_000);
    for (const region of ['a', 'b']) {
      assert.equal(left(world, region), KEYS + 2, `nothing is dropped at ${region}`);
      const status = forgettingOf(world.nodes.get(region)!);
      assert.deepEqual(status.waitingFor, ['c']);
      assert.equal(status.forgotten, 0);
    }

    a!.engine.forget('c');
    await world.until('b has heard it', () => forgettingOf(b!).members.join() === 'a');
    await world.until('all is dropped', () => ['a', 'b'].every((region) => left(world, region) === KEYS / 2));
    for (const node of [a!, b!]) {
      const status = forgettingOf(node);
      assert.deepEqual([status.waitingFor, status.forgotten], [[], KEYS / 2 + 2]);
      assert.ok(status.stableMs !== null && status.stableMs <= world.timers.now());
    }

    if (how === 'is cut off') world.network.heal();
    else c = await world.start('c', { ...OPTIONS, logger });
    await world.until('all count each other again', () =>
      [...world.nodes.values()].every((node) => forgettingOf(node).members.length === 2),
    );
    await world.equal();
    assert.ok(
      said.some((message) => message.startsWith("this region's data is dropped")),
      said.join('; '),
    );
    for (const node of [a!, b!, c]) {
      await assertHalf(node);
      assert.equal(await node.register('only c').get(), null, 'what nobody heard of is gone');
    }
    await world.until('forgetting waits for nobody', () =>
      [...world.nodes.values()].every((node) => forgettingOf(node).waitingFor.length === 0),
    );

    // It is a member as any other: it writes, and what is deleted now is dropped everywhere, with it.
    await world.run(c.register('after').set('1'));
    await world.equal();
    assert.equal(await a!.register('after').get(), '1');
    for (const key of [...keys(KEYS / 2, KEYS), 'after']) await world.run(b!.del(key));
    await world.until('nothing is left anywhere', () =>
      ['a', 'b', 'c'].every((region) => left(world, region) === 0),
    );
    await world.stop();
  });
}

test('who was away and is back before it is forgotten keeps its data, and forgetting goes on', async () => {
  const world = new MeshWorld();
  const [a, b, c] = await begin(world, ['a', 'b', 'c']);
  await write(world, a!);
  world.network.partition([['a', 'b'], ['c']]);
  await world.run(c!.register('only c').set('alone'));
  await deleteSome(world, a!);
  await world.timers.advance(15_000);
  assert.deepEqual(forgettingOf(a!).waitingFor, ['c']);
  assert.deepEqual(forgettingOf(c!).waitingFor.toSorted(), ['a', 'b'], 'seen from the other side');
  world.network.heal();
  await world.equal();
  await world.until('all is dropped', () =>
    ['a', 'b', 'c'].every((region) => left(world, region) === KEYS / 2 + 1),
  );
  for (const node of [a!, b!, c!]) {
    await assertHalf(node);
    assert.equal(await node.register('only c').get(), 'alone');
    assert.deepEqual(forgettingOf(node).waitingFor, []);
  }
  await world.stop();
});

test('two that have forgotten each other refuse each other, and say what to do', async () => {
  const world = new MeshWorld();
  const [a, b] = await begin(world, ['a', 'b']);
  await write(world, a!);
  world.network.cut('a', 'b');
  await world.until('both are alone', () => [a!, b!].every((node) => !node.status().peers[0]!.connected));
  a!.engine.forget('b');
  b!.engine.forget('a');
  world.network.heal();
  const reason = (node: MeshNode): string => node.status().peers[0]?.refused ?? '';
  await world.until('they refuse each other', () => [a!, b!].every((node) => reason(node) !== ''));
  for (const node of [a!, b!]) {
    assert.match(reason(node), /have each forgotten the other: start one of them with an empty store/);
    assert.equal(await node.register('key 1').get(), 'key 1', 'neither has dropped anything');
  }
  await world.stop();
});

test('expired keys are swept once and dropped everywhere, and the status counts them', async () => {
  const world = new MeshWorld();
  const [a, b] = await begin(world, ['a', 'b']);
  for (const key of keys(0, 10)) await world.run(a!.register(key).set(key, { ttlMs: 1_000 }));
  await world.until('nothing is left', () => ['a', 'b'].every((region) => left(world, region) === 0));
  const [ofA, ofB] = [forgettingOf(a!), forgettingOf(b!)];
  assert.equal(ofA.swept + ofB.swept, 10);
  assert.deepEqual([ofA.forgotten, ofB.forgotten], [10, 10]);
  await world.stop();
});

// ---- whom it waits for

const NOW = Date.UTC(2026, 0, 1);
const mark = (replica: string, number: number, ms: number) => ({ replica, number, stamp: stampAt(ms) });

/** A member that is here, was heard just now, and has applied frame 5 of a and frame 7 of its own. */
function present(): Member {
  const members = new Members();
  members.setConnected('b', true);
  members.count('b');
  const member = members.heard(
    'b',
    {
      ...{ ...NOTHING_ELSE, version: 1, region: 'b', replica: 'b.1', rules: 'r' },
      applied: [mark('a.1', 5, NOW - 90_000), mark('b.1', 7, NOW - 500)],
    },
    NOW - 500,
    'me',
  );
  const applied = [mark('a.1', 5, NOW - 90_000), mark('b.1', 7, NOW - 500)];
  member.reports.settle(new Map(applied.map((each) => [each.replica, each])));
  return member;
}

const facts = (member: Member): ForgettingFacts => ({
  counted: [member],
  stable: stampAt(NOW - 90_000),
  applied: new Map([
    ['a.1', mark('a.1', 5, NOW - 90_000)],
    ['b.1', mark('b.1', 7, NOW - 500)],
  ]),
  counters: { forgotten: 1, swept: 2 },
  nowMs: NOW,
  silentMs: 10_000,
});

/** Changes the member, and no other fact. */
const after = (change: () => void): Partial<ForgettingFacts> => {
  change();
  return {};
};

const waits: readonly (readonly [string, boolean, (member: Member) => Partial<ForgettingFacts>])[] = [
  ['a member that has applied everything, however long ago that was', false, () => ({})],
  [
    'a member that is away',
    true,
    (member) =>
      after(() => {
        member.connected = false;
      }),
  ],
  [
    'a member that is refused',
    true,
    (member) =>
      after(() => {
        member.refused = 'other rules';
      }),
  ],
  [
    'a member that has not been heard since the start',
    true,
    (member) =>
      after(() => {
        member.heardAtMs = 0;
      }),
  ],
  [
    'a member that is connected and silent',
    true,
    (member) =>
      after(() => {
        member.heardAtMs = NOW - 10_001;
      }),
  ],
  ['a member that has said nothing that counts', true, (member) => after(() => member.reports.clear())],
  [
    'a member that is far behind',
    true,
    () => ({ applied: new Map([['a.1', mark('a.1', 6, NOW - 80_000)]]) }),
  ],
  [
    'a member that lacks what is new while the stable stamp follows',
    false,
    () => ({ stable: stampAt(NOW - 3_000), applied: new Map([['a.1', mark('a.1', 6, NOW - 100)]]) }),
  ],
];

for (const [who, yes, change] of waits) {
  test(`forgetting ${yes ? 'waits' : 'does not wait'} for ${who}`, () => {
    const member = present();
    const status = forgettingStatus({ ...facts(member), ...change(member) });
    assert.deepEqual(status.waitingFor, yes ? ['b'] : []);
    assert.deepEqual([status.members, status.forgotten, status.swept], [['b'], 1, 2]);
  });
}

test('nothing is stable yet, or it is, in Unix milliseconds', () => {
  const member = present();
  assert.equal(forgettingStatus({ ...facts(member), stable: 0 }).stableMs, null);
  assert.equal(forgettingStatus(facts(member)).stableMs, NOW - 90_000);
});
