import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PeerError } from '../src/errors.js';
import { LoopbackNetwork, type LoopbackOptions } from '../src/mesh/loopback.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { type Member, memberOf, meshCompliance } from './support/mesh-compliance.js';

meshCompliance('loopback', () => {
  const network = new LoopbackNetwork();
  const meshes: ReturnType<LoopbackNetwork['mesh']>[] = [];
  return {
    async create() {
      const mesh = network.mesh(`member-${meshes.length}`);
      meshes.push(mesh);
      return mesh;
    },
    async close() {
      await Promise.all(meshes.map((mesh) => mesh.stop()));
    },
  };
});

/** A small random source with a seed (mulberry32). */
function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Net {
  readonly timers: VirtualTimers;
  readonly network: LoopbackNetwork;
  readonly members: Member[];
}

/** Starts members a, b, c … on virtual time and lets them connect. */
async function startNet(
  names: readonly string[],
  options: LoopbackOptions & { seed?: number } = {},
): Promise<Net> {
  const { seed = 1, ...rest } = options;
  const timers = new VirtualTimers();
  const network = new LoopbackNetwork({ timers, random: seeded(seed), ...rest });
  const members: Member[] = [];
  for (const name of names) {
    const member = memberOf(network.mesh(name));
    await member.mesh.start(member.handlers);
    members.push(member);
  }
  await timers.runUntilIdle();
  return { timers, network, members };
}

const number = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 255);
const numbers = (member: Member): number[] => member.heard.map(({ bytes }) => bytes[0]! * 256 + bytes[1]!);

describe('the loopback network', () => {
  it('gives exactly the same run for the same seed, and another for another', async () => {
    const run = async (seed: number) => {
      const faults = { latencyMs: [5, 50] as const, loss: 0.3, duplication: 0.2, reordering: 0.3 };
      const { timers, network, members } = await startNet(['a', 'b', 'c'], { seed, ...faults });
      const trace: string[] = [];
      const startMs = timers.now();
      for (const member of members) {
        member.handlers.onBroadcast = (from, bytes) =>
          trace.push(`${timers.now() - startMs} ${from}>${member.mesh.self} ${bytes}`);
      }
      for (let n = 0; n < 50; n += 1) {
        timers.after(n * 7, () => members[n % 3]!.mesh.broadcast(number(n)));
      }
      timers.after(100, () => network.partition([['a', 'b'], ['c']]));
      timers.after(200, () => network.heal());
      const chunks = (async () => {
        for await (const chunk of members[0]!.mesh.request('b', 'echo', number(7)))
          trace.push(`answer ${chunk}`);
      })();
      await timers.runUntilIdle();
      await chunks;
      return { trace, events: members.map((m) => m.events), endMs: timers.now() };
    };
    const first = await run(42);
    assert.ok(first.trace.length > 30);
    assert.deepEqual(await run(42), first);
    assert.notDeepEqual((await run(43)).trace, first.trace);
  });

  it('loses and duplicates about as many broadcasts as it is told', async () => {
    const { timers, network, members } = await startNet(['a', 'b'], { loss: 0.3, duplication: 0.2, seed: 5 });
    for (let n = 0; n < 4000; n += 1) members[0]!.mesh.broadcast(number(n));
    await timers.runUntilIdle();
    const distinct = new Set(numbers(members[1]!)).size;
    assert.ok(Math.abs(distinct / 4000 - 0.7) < 0.03, `${distinct} of 4000 arrived`);
    const twice = members[1]!.heard.length - distinct;
    assert.ok(Math.abs(twice / distinct - 0.2) < 0.03, `${twice} of ${distinct} came twice`);
    assert.equal(network.counts.lost, 4000 - distinct);
    assert.equal(network.counts.duplicated, twice);
    network.faults.loss = 0;
    network.faults.duplication = 0;
    members[1]!.heard.length = 0;
    for (let n = 0; n < 100; n += 1) members[0]!.mesh.broadcast(number(n));
    await timers.runUntilIdle();
    assert.equal(members[1]!.heard.length, 100);
  });

  it('keeps the order of broadcasts on a link, unless reordering is asked for', async () => {
    const { timers, network, members } = await startNet(['a', 'b'], { latencyMs: [1, 100] });
    const inOrder = Array.from({ length: 200 }, (_, n) => n);
    const send = async () => {
      members[1]!.heard.length = 0;
      for (const n of inOrder) {
        members[0]!.mesh.broadcast(number(n));
        await timers.advance(1);
      }
      await timers.runUntilIdle();
      return numbers(members[1]!);
    };
    assert.deepEqual(await send(), inOrder);
    network.faults.reordering = 0.3;
    const mixed = await send();
    assert.notDeepEqual(mixed, inOrder);
    assert.deepEqual(
      mixed.toSorted((x, y) => x - y),
      inOrder,
    );
  });

  it('takes one latency for a broadcast, and one for a request and each of its chunks', async () => {
    const { timers, members } = await startNet(['a', 'b'], { latencyMs: 40 });
    const startMs = timers.now();
    members[0]!.mesh.broadcast(number(1));
    await timers.advance(39);
    assert.equal(members[1]!.heard.length, 0);
    await timers.advance(1);
    assert.equal(members[1]!.heard.length, 1);
    members[1]!.answer = async function* () {
      yield number(1);
      yield number(2);
    };
    const arrivals: number[] = [];
    const read = (async () => {
      for await (const _ of members[0]!.mesh.request('b', 'two', number(0)))
        arrivals.push(timers.now() - startMs - 40);
    })();
    await timers.runToEnd(read);
    assert.deepEqual(arrivals, [80, 120]);
  });

  it('splits into the groups of a partition, reports it, and is whole again when healed', async () => {
    const { timers, network, members } = await startNet(['a', 'b', 'c', 'd']);
    const [a, b, c, d] = members as [Member, Member, Member, Member];
    network.partition([['a', 'b'], ['c']]);
    await timers.runUntilIdle();
    assert.deepEqual(
      [a, b, c, d].map((m) => m.mesh.peers()),
      [['b'], ['a'], [], []],
    );
    assert.deepEqual(c.events.slice(3).toSorted(), ['-a', '-b', '-d']);
    a.mesh.broadcast(number(1));
    await timers.runUntilIdle();
    assert.deepEqual([b, c, d].map(numbers), [[1], [], []]);
    network.heal();
    await timers.runUntilIdle();
    assert.deepEqual(c.events.slice(6).toSorted(), ['+a', '+b', '+d']);
    a.mesh.broadcast(number(2));
    await timers.runUntilIdle();
    assert.deepEqual([b, c, d].map(numbers), [[1, 2], [2], [2]]);
  });

  it('loses what is under way when its link is cut', async () => {
    const { timers, network, members } = await startNet(['a', 'b'], { latencyMs: 40 });
    members[0]!.mesh.broadcast(number(1));
    await timers.advance(20);
    network.cut('a', 'b');
    await timers.runUntilIdle();
    assert.deepEqual(numbers(members[1]!), []);
  });

  it('carries broadcasts the other way over a link that is cut one way, but counts neither end as reachable', async () => {
    const { timers, network, members } = await startNet(['a', 'b']);
    network.cut('a', 'b', { oneWay: true });
    await timers.runUntilIdle();
    members[0]!.mesh.broadcast(number(1));
    members[1]!.mesh.broadcast(number(2));
    await timers.runUntilIdle();
    assert.deepEqual(members.map(numbers), [[2], []]);
    assert.deepEqual(
      members.map((m) => m.mesh.peers()),
      [[], []],
    );
    assert.deepEqual(
      members.map((m) => m.events),
      [
        ['+b', '-b'],
        ['+a', '-a'],
      ],
    );
    network.heal('a', 'b');
    await timers.runUntilIdle();
    assert.deepEqual(
      members.map((m) => m.mesh.peers()),
      [['b'], ['a']],
    );
  });

  it('breaks a request whose link is cut under way, at both ends', async () => {
    const { timers, network, members } = await startNet(['a', 'b'], { latencyMs: 40 });
    let signal: AbortSignal | undefined;
    let closed = false;
    members[1]!.answer = async function* (_from, _protocol, _body, handlerSignal) {
      signal = handlerSignal;
      try {
        for (;;) yield number(1);
      } finally {
        closed = true;
      }
    };
    let taken = 0;
    const read = (async () => {
      for await (const _ of members[0]!.mesh.request('b', 'endless', number(0))) taken += 1;
    })();
    const rejected = assert.rejects(read, PeerError);
    timers.after(199, () => network.cut('a', 'b'));
    await timers.runToEnd(rejected);
    assert.equal(taken, 3);
    assert.equal(signal?.aborted, true);
    assert.equal(closed, true);
  });

  it('lets a stopped member come back under its name', async () => {
    const { timers, network, members } = await startNet(['a', 'b']);
    assert.throws(() => network.mesh('b'), PeerError);
    await members[1]!.mesh.stop();
    const again = memberOf(network.mesh('b'));
    await again.mesh.start(again.handlers);
    await timers.runUntilIdle();
    assert.deepEqual(members[0]!.events, ['+b', '-b', '+b']);
    members[0]!.mesh.broadcast(number(1));
    await timers.runUntilIdle();
    assert.deepEqual([numbers(members[1]!), numbers(again)], [[], [1]]);
  });
});

describe('virtual timers', () => {
  it('run by due time, then in the order of scheduling, each after the promises before it', async () => {
    const timers = new VirtualTimers(1000);
    const trace: string[] = [];
    timers.after(20, () => trace.push('late'));
    timers.after(10, async () => {
      trace.push('first');
      for (let i = 0; i < 50; i += 1) await undefined;
      trace.push('first, at rest');
    });
    timers.after(10, () => trace.push('second'));
    timers.after(15, () => trace.push('cancelled'))();
    await timers.advance(10);
    assert.deepEqual(trace, ['first', 'first, at rest', 'second']);
    assert.equal(timers.now(), 1010);
    assert.equal(timers.pending, 1);
    await timers.runUntilIdle();
    assert.equal(trace.at(-1), 'late');
    assert.equal(timers.now(), 1020);
    assert.equal(await timers.step(), false);
  });

  it('say what they waited for when it never comes', async () => {
    const timers = new VirtualTimers();
    await assert.rejects(
      timers.runUntil(() => false, 'pigs fly'),
      /no timer is left and still not: pigs fly/,
    );
    const again = () => timers.after(1000, again);
    again();
    await assert.rejects(
      timers.runUntil(() => false, 'pigs fly', { withinMs: 5000 }),
      /5000 ms of virtual time passed and still not: pigs fly/,
    );
    await assert.rejects(timers.runUntilIdle({ maxEvents: 10 }), /10 timers ran/);
  });
});
