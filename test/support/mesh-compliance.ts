/** The compliance suite of the mesh port: each sentence of its contract, run against every implementation. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LimitError, PeerError } from '../../src/errors.js';
import type { Mesh, MeshHandlers, PeerId } from '../../src/mesh/mesh.js';
import { waitFor } from './wait.js';

/** A mesh with what it heard. */
export interface Member {
  readonly mesh: Mesh;
  readonly heard: { from: PeerId; bytes: Uint8Array }[];
  readonly events: string[];
  readonly handlers: MeshHandlers;
  /** What it answers; assign to change. Default: echoes the body in one chunk. */
  answer: MeshHandlers['onRequest'];
}

/** Gives the suite meshes of one kind that find each other once started. */
export interface MeshHarness {
  /** Creates a mesh that will be connected with all members created before. It is started by the suite, in order of creation. */
  create(): Promise<Mesh>;
  close(): Promise<void>;
}

/** Wraps a mesh with handlers that write down what arrives. */
export function memberOf(mesh: Mesh): Member {
  const member: Member = {
    mesh,
    heard: [],
    events: [],
    answer: async function* (_from, _protocol, body) {
      yield body;
    },
    handlers: {
      onBroadcast: (from, bytes) => member.heard.push({ from, bytes }),
      onRequest: (from, protocol, body, signal) => member.answer(from, protocol, body, signal),
      onConnect: (peer) => member.events.push(`+${peer}`),
      onDisconnect: (peer) => member.events.push(`-${peer}`),
    },
  };
  return member;
}

/** Creates and starts `count` members, and waits until everyone reaches everyone. */
export async function startMembers(harness: MeshHarness, count: number): Promise<Member[]> {
  const members: Member[] = [];
  for (let i = 0; i < count; i += 1) {
    const member = memberOf(await harness.create());
    await member.mesh.start(member.handlers);
    members.push(member);
  }
  await allConnected(members);
  return members;
}

/** Waits until every member reaches all the others. */
export async function allConnected(members: readonly Member[]): Promise<void> {
  await waitFor(() => members.every(({ mesh }) => mesh.peers().length === members.length - 1), {
    what: `${members.length} members reach each other`,
  });
}

/** Reads a whole answer. */
export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const collected: Uint8Array[] = [];
  for await (const chunk of chunks) collected.push(chunk);
  return collected;
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (chunk: Uint8Array): string => new TextDecoder().decode(chunk);

/** Checks that iterating throws a PeerError whose message matches. */
export async function assertPeerError(chunks: AsyncIterable<Uint8Array>, message: RegExp): Promise<void> {
  await assert.rejects(collect(chunks), (error) => {
    assert.ok(error instanceof PeerError, `expected a PeerError, not ${error}`);
    assert.match(error.message, message);
    return true;
  });
}

/** Runs the suite on one kind of mesh. */
export function meshCompliance(kind: string, createHarness: () => MeshHarness): void {
  const withMembers = (count: number, check: (...members: Member[]) => Promise<void>) => async () => {
    const harness = createHarness();
    try {
      await check(...(await startMembers(harness, count)));
    } finally {
      await harness.close();
    }
  };

  describe(`the ${kind} mesh`, () => {
    it(
      'brings a broadcast to every other member, with its author and not to the author itself',
      withMembers(3, async (a, b, c) => {
        a!.mesh.broadcast(bytes('from a'));
        b!.mesh.broadcast(bytes('from b'));
        const heardBy = (member: Member) => member.heard.map((h) => `${h.from}: ${text(h.bytes)}`).sort();
        const expected = [`${a!.mesh.self}: from a`, `${b!.mesh.self}: from b`];
        await waitFor(() => c!.heard.length >= 2 && a!.heard.length >= 1 && b!.heard.length >= 1);
        assert.deepEqual([...new Set(heardBy(c!))], [...expected].sort());
        assert.deepEqual([...new Set(heardBy(a!))], [expected[1]]);
        assert.deepEqual([...new Set(heardBy(b!))], [expected[0]]);
      }),
    );

    it(
      'hands over plain byte arrays that nobody else writes to',
      withMembers(2, async (a, b) => {
        const sent = bytes('stays as it was');
        a!.mesh.broadcast(sent);
        sent.fill(0);
        await waitFor(() => b!.heard.length > 0);
        assert.equal(b!.heard[0]!.bytes.constructor, Uint8Array);
        assert.equal(text(b!.heard[0]!.bytes), 'stays as it was');
        b!.answer = async function* (_from, _protocol, body) {
          assert.equal(body.constructor, Uint8Array);
          yield body;
        };
        const [chunk] = await collect(a!.mesh.request(b!.mesh.self, 'echo', bytes('body')));
        assert.equal(chunk!.constructor, Uint8Array);
      }),
    );

    it(
      'carries broadcasts up to the limit and refuses larger ones with LimitError',
      withMembers(2, async (a, b) => {
        const largest = new Uint8Array(a!.mesh.maxBroadcastBytes).fill(7);
        a!.mesh.broadcast(largest);
        assert.throws(() => a!.mesh.broadcast(new Uint8Array(a!.mesh.maxBroadcastBytes + 1)), LimitError);
        a!.mesh.broadcast(bytes('after it'));
        await waitFor(() => b!.heard.length >= 2, { what: 'both broadcasts' });
        assert.deepEqual(b!.heard[0]!.bytes, largest);
        assert.equal(text(b!.heard[1]!.bytes), 'after it');
      }),
    );

    it('takes broadcasts before start, without peers and after stop, and sends them nowhere', async () => {
      const harness = createHarness();
      try {
        const { mesh, handlers } = memberOf(await harness.create());
        assert.deepEqual(mesh.addresses(), []);
        mesh.broadcast(bytes('too early'));
        await mesh.start(handlers);
        mesh.broadcast(bytes('nobody there'));
        await mesh.stop();
        mesh.broadcast(bytes('too late'));
      } finally {
        await harness.close();
      }
    });

    it(
      'hands a request to its peer and brings the chunks in order, empty and large ones too',
      withMembers(2, async (a, b) => {
        b!.answer = async function* (from, protocol, body) {
          yield bytes(`${from}|${protocol}|${text(body)}`);
          yield new Uint8Array(0);
          yield new Uint8Array(1_500_000).fill(9);
          for (let i = 0; i < 100; i += 1) yield bytes(`chunk ${i}`);
        };
        const chunks = await collect(a!.mesh.request(b!.mesh.self, 'some-protocol', bytes('the body')));
        assert.equal(chunks.length, 103);
        assert.equal(text(chunks[0]!), `${a!.mesh.self}|some-protocol|the body`);
        assert.equal(chunks[1]!.byteLength, 0);
        assert.deepEqual(chunks[2], new Uint8Array(1_500_000).fill(9));
        assert.deepEqual(
          chunks.slice(3).map(text),
          Array.from({ length: 100 }, (_, i) => `chunk ${i}`),
        );
      }),
    );

    it(
      'brings an empty answer as no chunks at all, and aborts no handler that has come to its end',
      withMembers(2, async (a, b) => {
        const signals: AbortSignal[] = [];
        b!.answer = async function* (_from, protocol, _body, signal) {
          signals.push(signal);
          if (protocol === 'something') yield bytes('chunk');
        };
        assert.deepEqual(await collect(a!.mesh.request(b!.mesh.self, 'nothing', bytes(''))), []);
        await collect(a!.mesh.request(b!.mesh.self, 'something', bytes('')));
        await collect(a!.mesh.request(b!.mesh.self, 'nothing', bytes('')));
        assert.deepEqual(
          signals.map((signal) => signal.aborted),
          [false, false, false],
        );
      }),
    );

    it(
      'answers many requests at the same time, each with its own answer',
      withMembers(2, async (a, b) => {
        const answers = await Promise.all(
          Array.from({ length: 20 }, (_, i) => collect(a!.mesh.request(b!.mesh.self, 'echo', bytes(`${i}`)))),
        );
        assert.deepEqual(
          answers.map((chunks) => text(chunks[0]!)),
          Array.from({ length: 20 }, (_, i) => `${i}`),
        );
      }),
    );

    it(
      'streams 10 MB complete, and never runs the producer far ahead of a slow consumer',
      withMembers(2, async (a, b) => {
        const [chunkBytes, count, mostAhead] = [64 * 1024, 160, 80];
        let produced = 0;
        b!.answer = async function* () {
          for (; produced < count; produced += 1) yield new Uint8Array(chunkBytes).fill(produced);
        };
        let taken = 0;
        let ahead = 0;
        for await (const chunk of a!.mesh.request(b!.mesh.self, 'stream', bytes(''))) {
          assert.equal(chunk[0], taken % 256);
          assert.equal(chunk.byteLength, chunkBytes);
          taken += 1;
          if (taken === 1) {
            // The slow consumer: it takes nothing more until the producer has come to rest.
            let before = -1;
            await waitFor(async () => {
              const rested = produced === before;
              before = produced;
              await new Promise((resolve) => setTimeout(resolve, 50));
              return rested;
            });
          }
          ahead = Math.max(ahead, produced - taken);
        }
        assert.equal(taken, count);
        assert.ok(ahead < mostAhead, `the producer ran ${ahead} chunks ahead`);
      }),
    );

    it(
      "ends a request with the handler's message when the handler fails, before or after the first chunk",
      withMembers(2, async (a, b) => {
        b!.answer = async function* () {
          if (produceFirst) yield bytes('one');
          throw new Error('no such frame');
        };
        let produceFirst = false;
        await assertPeerError(a!.mesh.request(b!.mesh.self, 'fails', bytes('')), /no such frame/);
        produceFirst = true;
        const iterator = a!.mesh.request(b!.mesh.self, 'fails', bytes(''))[Symbol.asyncIterator]();
        assert.equal(text((await iterator.next()).value), 'one');
        await assert.rejects(iterator.next(), /no such frame/);
        b!.answer = () => {
          throw new Error('not even an iterator');
        };
        await assertPeerError(a!.mesh.request(b!.mesh.self, 'fails', bytes('')), /not even an iterator/);
        b!.answer = async function* (_from, _protocol, body) {
          yield body;
        };
        assert.equal((await collect(a!.mesh.request(b!.mesh.self, 'echo', bytes('still fine')))).length, 1);
      }),
    );

    it(
      'throws PeerError for an unknown peer, for itself, and after stop',
      withMembers(2, async (a, b) => {
        const unknown = '12D3KooWHFrmLWTTDD4NodngtRMEVYgxrsDMp4F9iSwYntZ9WjHa';
        await assertPeerError(a!.mesh.request(unknown, 'echo', bytes('')), /not reachable/);
        await assertPeerError(a!.mesh.request('no peer id', 'echo', bytes('')), /not reachable/);
        await assertPeerError(a!.mesh.request(a!.mesh.self, 'echo', bytes('')), /not reachable/);
        await a!.mesh.stop();
        await assertPeerError(a!.mesh.request(b!.mesh.self, 'echo', bytes('')), /not reachable|stopped/);
      }),
    );

    it(
      "gives up when no chunk comes for the request's time, and tells the handler",
      withMembers(2, async (a, b) => {
        let signal: AbortSignal | undefined;
        b!.answer = async function* (_from, _protocol, _body, handlerSignal) {
          signal = handlerSignal;
          yield bytes('one');
          await new Promise((resolve) => handlerSignal.addEventListener('abort', resolve));
        };
        const chunks = a!.mesh.request(b!.mesh.self, 'stalls', bytes(''), { timeoutMs: 100 });
        await assertPeerError(chunks, /100 ms/);
        await waitFor(() => signal?.aborted === true, { what: "the handler's signal" });
      }),
    );

    it(
      'stops when the asker aborts: the asker gets PeerError, the handler is aborted and its iterator is closed',
      withMembers(2, async (a, b) => {
        let closed = false;
        let aborted = false;
        b!.answer = async function* (_from, _protocol, _body, signal) {
          signal.addEventListener('abort', () => {
            aborted = true;
          });
          try {
            for (;;) yield new Uint8Array(1000);
          } finally {
            closed = true;
          }
        };
        const controller = new AbortController();
        const request = a!.mesh.request(b!.mesh.self, 'endless', bytes(''), { signal: controller.signal });
        let taken = 0;
        await assert.rejects(async () => {
          for await (const _ of request) if (++taken === 3) controller.abort();
        }, PeerError);
        await waitFor(() => closed && aborted, { what: 'the handler learns of the abort' });
        await assertPeerError(
          a!.mesh.request(b!.mesh.self, 'endless', bytes(''), { signal: AbortSignal.abort() }),
          /aborted/,
        );
      }),
    );

    it(
      'closes the handler when the asker stops reading',
      withMembers(2, async (a, b) => {
        let closed = false;
        let signal: AbortSignal | undefined;
        b!.answer = async function* (_from, _protocol, _body, handlerSignal) {
          signal = handlerSignal;
          try {
            for (;;) yield new Uint8Array(100_000);
          } finally {
            closed = true;
          }
        };
        for await (const _ of a!.mesh.request(b!.mesh.self, 'endless', bytes(''))) break;
        await waitFor(() => closed && signal?.aborted === true, { what: 'the handler is closed' });
      }),
    );

    it(
      'throws when the peer goes away in mid-stream, and never ends as if that were all',
      withMembers(2, async (a, b) => {
        b!.answer = async function* () {
          for (;;) yield new Uint8Array(1000);
        };
        let taken = 0;
        await assert.rejects(async () => {
          for await (const _ of a!.mesh.request(b!.mesh.self, 'endless', bytes(''))) {
            if (++taken === 5) void b!.mesh.stop();
          }
        }, PeerError);
        assert.ok(taken >= 5);
      }),
    );

    it(
      'reports who comes and who goes, once each',
      withMembers(3, async (a, b, c) => {
        const others = (member: Member) =>
          [a!, b!, c!].filter((m) => m !== member).map((m) => `+${m.mesh.self}`);
        for (const member of [a!, b!, c!]) {
          assert.deepEqual([...member.events].sort(), others(member).sort());
          assert.deepEqual(
            [...member.mesh.peers()].sort(),
            others(member)
              .map((e) => e.slice(1))
              .sort(),
          );
          assert.ok(member.mesh.addresses().length > 0);
        }
        await c!.mesh.stop();
        await waitFor(() => [a!, b!].every((m) => m.events.includes(`-${c!.mesh.self}`)), {
          what: 'c is gone',
        });
        assert.deepEqual(a!.mesh.peers(), [b!.mesh.self]);
        assert.deepEqual(
          a!.events.filter((e) => e.startsWith('-')),
          [`-${c!.mesh.self}`],
        );
        assert.deepEqual(c!.mesh.peers(), []);
      }),
    );

    it(
      'can be stopped twice, but not started twice',
      withMembers(2, async (a, b) => {
        await assert.rejects(a!.mesh.start(a!.handlers));
        await Promise.all([a!.mesh.stop(), a!.mesh.stop()]);
        await a!.mesh.stop();
        assert.deepEqual(a!.mesh.addresses(), []);
        await assert.rejects(a!.mesh.start(a!.handlers));
        await waitFor(() => b!.mesh.peers().length === 0);
      }),
    );
  });
}
