/** What a member or a stranger that misbehaves can do to a libp2p member: nothing but waste its own connection. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { PeerError } from '../src/errors.js';
import { createIdentity, createMeshKey, readPrivateKey } from '../src/mesh/identity.js';
import { createLibp2pMesh, type Libp2pMeshOptions } from '../src/mesh/libp2p.js';
import { createMeshNode, type MeshNode } from '../src/mesh/libp2p-node.js';
import { REQUEST_PROTOCOL } from '../src/mesh/request-protocol.js';
import { allConnected, collect, type Member, memberOf } from './support/mesh-compliance.js';
import { waitFor } from './support/wait.js';

const TOPIC = 'valkey-mesh/1';
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const texts = (member: Member): string[] => member.heard.map((h) => new TextDecoder().decode(h.bytes));

async function start(t: TestContext, options: Libp2pMeshOptions = {}): Promise<Member> {
  const member = memberOf(createLibp2pMesh(options));
  t.after(() => member.mesh.stop());
  await member.mesh.start(member.handlers);
  return member;
}

/** The inside of gossipsub that an attacker would change. */
interface GossipInside {
  publishConfig: unknown;
}

/** A libp2p node without our manners, connected with `victim` as a member would be. */
async function startRaw(t: TestContext, victim: Member, identity = createIdentity()): Promise<MeshNode> {
  const privateKey = readPrivateKey(identity.bytes);
  const node = await createMeshNode({
    privateKey,
    listen: [],
    announce: undefined,
    meshKey: undefined,
    topic: TOPIC,
    isRefused: () => false,
  });
  t.after(() => node.stop());
  await node.handle(REQUEST_PROTOCOL, ({ stream }) => stream.abort(new Error('no manners')));
  await node.start();
  node.services.gossip.subscribe(TOPIC);
  await node.dial(multiaddr(victim.mesh.addresses()[0]!));
  await waitFor(() => victim.mesh.peers().includes(identity.peerId), { what: 'the raw node is a member' });
  await waitFor(() => node.services.gossip.getSubscribers(TOPIC).length > 0);
  return node;
}

/** Checks that two members still hear each other. */
async function assertHealthy(a: Member, b: Member): Promise<void> {
  await allConnectedPair(a, b);
  const text = `still here ${Math.random()}`;
  a.mesh.broadcast(bytes(text));
  await waitFor(() => texts(b).includes(text), { what: 'a broadcast after the attack' });
  assert.equal((await collect(a.mesh.request(b.mesh.self, 'echo', bytes('x')))).length, 1);
}

async function allConnectedPair(a: Member, b: Member): Promise<void> {
  await waitFor(() => a.mesh.peers().includes(b.mesh.self) && b.mesh.peers().includes(a.mesh.self));
}

describe('a libp2p member under attack', () => {
  for (const keyed of [false, true]) {
    it(`takes garbage, silence and broken-off handshakes on its port (${keyed ? 'with' : 'without'} mesh key)`, async (t) => {
      const key = keyed ? { meshKey: createMeshKey() } : {};
      const a = await start(t, key);
      const b = await start(t, { ...key, peers: a.mesh.addresses() });
      await allConnected([a, b]);
      const port = Number(/tcp\/(\d+)/.exec(a.mesh.addresses()[0]!)![1]);
      const greetings = [
        randomBytes(5000),
        bytes('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
        bytes('\x13/multistream/1.0.0\n\x07/noise\n'),
        Buffer.concat([bytes('\x13/multistream/1.0.0\n\x07/noise\n'), randomBytes(500)]),
        new Uint8Array(0),
      ];
      const silent = connect(port, '127.0.0.1');
      silent.on('error', () => {});
      t.after(() => silent.destroy());
      for (const greeting of greetings) {
        for (const ending of ['end', 'resetAndDestroy'] as const) {
          const socket = connect(port, '127.0.0.1');
          socket.on('error', () => {});
          await once(socket, 'connect');
          socket.write(greeting);
          socket[ending]();
          await once(socket.resume(), 'close');
        }
      }
      await assertHealthy(a, b);
      assert.deepEqual(a.mesh.peers(), [b.mesh.self]);
    });
  }

  it('takes no broadcast whose author did not sign it, and none of an author that is not a member', async (t) => {
    const [a, b, c, stranger] = [createIdentity(), createIdentity(), createIdentity(), createIdentity()];
    const allow = [a.peerId, b.peerId, c.peerId];
    const victim = await start(t, { identity: a.bytes, allow });
    const raw = await startRaw(t, victim, b);
    const inside = raw.services.gossip as unknown as GossipInside;
    const honest = inside.publishConfig as object;
    const strangerKey = readPrivateKey(stranger.bytes);
    const forgeries = [
      { ...honest, author: peerIdFromString(c.peerId) },
      { ...honest, author: peerIdFromString(c.peerId), key: undefined },
      { ...honest, author: peerIdFromString(c.peerId), privateKey: strangerKey },
      {
        ...honest,
        author: peerIdFromPrivateKey(strangerKey),
        privateKey: strangerKey,
        key: (honest as { key: Uint8Array }).key,
      },
    ];
    for (const [index, forgery] of forgeries.entries()) {
      inside.publishConfig = forgery;
      await raw.services.gossip.publish(TOPIC, bytes(`forged ${index}`)).catch(() => {});
    }
    // A stranger's own message, well signed, relayed by a member.
    const { publicKeyToProtobuf } = await import('@libp2p/crypto/keys');
    inside.publishConfig = {
      ...honest,
      author: peerIdFromPrivateKey(strangerKey),
      privateKey: strangerKey,
      key: publicKeyToProtobuf(strangerKey.publicKey),
    };
    await raw.services.gossip.publish(TOPIC, bytes('from a stranger'));
    inside.publishConfig = honest;
    await raw.services.gossip.publish(TOPIC, bytes('honest'));
    await waitFor(() => victim.heard.length > 0);
    assert.deepEqual(texts(victim), ['honest']);
    assert.equal(victim.heard[0]!.from, b.peerId);
  });

  it('remembers no foreign topic, however many a peer subscribes to, and goes on', async (t) => {
    const a = await start(t);
    const b = await start(t, { peers: a.mesh.addresses() });
    await allConnected([a, b]);
    const raw = await startRaw(t, a);
    const { gossip } = raw.services;
    const inside = gossip as unknown as {
      sendSubscriptions(to: string, topics: string[], on: boolean): void;
    };
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 50; i += 1) {
      inside.sendSubscriptions(
        a.mesh.self,
        Array.from({ length: 1000 }, (_, n) => `flood ${i} ${n}`),
        true,
      );
    }
    for (let i = 0; i < 100; i += 1) inside.sendSubscriptions(a.mesh.self, [`one by one ${i}`], true);
    await assertHealthy(b, a);
    assert.ok(process.memoryUsage().heapUsed - before < 64 * 1024 * 1024);
  });

  it('closes the link of a peer that sends an oversized message, and only that', async (t) => {
    const a = await start(t);
    const b = await start(t, { peers: a.mesh.addresses() });
    await allConnected([a, b]);
    const raw = await startRaw(t, a);
    const rawId = raw.peerId.toString();
    await raw.services.gossip.publish(TOPIC, new Uint8Array(2 * 1024 * 1024));
    await waitFor(() => a.events.includes(`-${rawId}`), { what: 'the link is closed' });
    assert.deepEqual(a.heard, []);
    await assertHealthy(a, b);
    assert.ok(!a.events.includes(`-${b.mesh.self}`));
  });

  it('drops broadcasts for a peer that does not take them, and keeps serving the others', async (t) => {
    const a = await start(t);
    const b = await start(t, { peers: a.mesh.addresses() });
    await allConnected([a, b]);
    const raw = await startRaw(t, a);
    const { gossip } = raw.services;
    const inside = gossip as unknown as { handleReceivedRpc(from: unknown, rpc: unknown): Promise<void> };
    const handle = inside.handleReceivedRpc.bind(gossip);
    let goOn = () => {};
    const stalled = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    inside.handleReceivedRpc = async (from, rpc) => {
      await stalled;
      await handle(from, rpc);
    };
    let taken = 0;
    gossip.addEventListener('message', ({ detail }) => {
      if (detail.data.byteLength > 5) taken += 1;
    });
    const payload = new Uint8Array(a.mesh.maxBroadcastBytes);
    const count = 160;
    let heard = 0;
    b.handlers.onBroadcast = () => {
      heard += 1;
    };
    for (let sent = 1; sent <= count; sent += 1) {
      a.mesh.broadcast(payload);
      await waitFor(() => heard === sent, { what: `broadcast ${sent}` });
    }
    goOn();
    await waitFor(
      () => {
        a.mesh.broadcast(bytes('last'));
        return taken > 0 && gossip.getSubscribers(TOPIC).length > 0;
      },
      { what: 'the slow peer goes on' },
    );
    let last = -1;
    await waitFor(async () => {
      const rested = taken === last;
      last = taken;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return rested;
    });
    // 16 MiB may wait for it, and about 4 MiB are in the windows between.
    assert.ok(taken < 120, `${taken} of ${count} broadcasts were kept for it`);
  });

  it('does not hand on a broadcast that is larger than a member may send', async (t) => {
    const a = await start(t);
    const raw = await startRaw(t, a);
    await raw.services.gossip.publish(TOPIC, new Uint8Array(a.mesh.maxBroadcastBytes + 1));
    await raw.services.gossip.publish(TOPIC, bytes('small'));
    await waitFor(() => a.heard.length > 0);
    assert.deepEqual(texts(a), ['small']);
  });

  it('refuses requests that are not the protocol, and hands none of them on', async (t) => {
    const a = await start(t);
    const raw = await startRaw(t, a);
    let asked = 0;
    a.answer = async function* () {
      asked += 1;
      yield bytes('an answer');
    };
    const [connection] = raw.getConnections();
    const oversizedName = Uint8Array.of(0xff, 0xff, 0, 0, 0, 0);
    const oversizedBody = Uint8Array.of(0, 1, 0xff, 0xff, 0xff, 0xff, 0x61);
    for (const request of [oversizedName, oversizedBody, new Uint8Array(3), new Uint8Array(0)]) {
      const stream: Stream = await connection!.newStream(REQUEST_PROTOCOL);
      await stream.sink(
        (async function* () {
          if (request.byteLength > 0) yield request;
        })(),
      );
      const answers: Uint8Array[] = [];
      try {
        for await (const piece of stream.source) answers.push(piece.subarray());
      } catch {
        continue;
      }
      // Either cut off, or one frame of the error kind.
      if (answers.length > 0) assert.equal(answers[0]![0], 2);
    }
    assert.equal(asked, 0);
    const half: Stream = await connection!.newStream(REQUEST_PROTOCOL);
    half
      .sink(
        (async function* () {
          yield Uint8Array.of(0, 4, 0, 0, 0, 9, 0x61);
          await new Promise(() => {});
        })(),
      )
      .catch(() => {});
    half.abort(new Error('half a request'));
    const b = await start(t, { peers: a.mesh.addresses() });
    a.answer = async function* (_from, _protocol, body) {
      yield body;
    };
    await assertHealthy(b, a);
  });

  it('throws PeerError when the answer is not the protocol, or ends without an end', async (t) => {
    const a = await start(t);
    const raw = await startRaw(t, a);
    const chunkThenNothing = Uint8Array.of(0, 0, 0, 0, 1, 7);
    const answers = [
      randomBytes(100).fill(0xee, 0, 1),
      Uint8Array.of(0, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(2, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(1, 0, 0, 0, 1, 1),
      chunkThenNothing,
      new Uint8Array(0),
    ];
    for (const answer of answers) {
      await raw.unhandle(REQUEST_PROTOCOL);
      await raw.handle(REQUEST_PROTOCOL, async ({ stream }) => {
        await stream.sink([answer]);
      });
      const request = a.mesh.request(raw.peerId.toString(), 'anything', bytes('body'), { timeoutMs: 3000 });
      await assert.rejects(
        collect(request),
        (error) => error instanceof PeerError && !/3000 ms/.test(error.message),
      );
    }
  });

  it('believes no list of members that is malformed', async () => {
    const { decodeMembers, encodeMembers } = await import('../src/mesh/members.js');
    const peer = createIdentity().peerId;
    const wrong: unknown[] = [
      {},
      [1],
      [[1, []]],
      [[peer]],
      [[peer, 'x']],
      Array.from({ length: 257 }, () => [peer, []]),
    ];
    for (const list of wrong) assert.throws(() => decodeMembers(bytes(JSON.stringify(list))), PeerError);
    assert.throws(() => decodeMembers(Uint8Array.of(0xff, 0xfe)), PeerError);
    const odd = [
      ['no peer', ['/ip4/1.2.3.4/tcp/1']],
      [peer, ['nonsense', 5, '/ip4/1.2.3.4/udp/1', '/ip4/1.2.3.4/tcp/1']],
    ];
    assert.deepEqual([...decodeMembers(bytes(JSON.stringify(odd)))], [[peer, ['/ip4/1.2.3.4/tcp/1']]]);
    const members = new Map([[peer, ['/ip4/1.2.3.4/tcp/1']]]);
    assert.deepEqual(decodeMembers(encodeMembers(members)), members);
  });
});
