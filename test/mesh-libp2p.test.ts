import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once, setMaxListeners } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, it, type TestContext } from 'node:test';
import { ConfigError, PeerError } from '../src/errors.js';
import { createIdentity, createMeshKey } from '../src/mesh/identity.js';
import { createLibp2pMesh, type Libp2pMeshOptions } from '../src/mesh/libp2p.js';
import type { Mesh } from '../src/mesh/mesh.js';
import type { Logger } from '../src/options.js';
import { startCutProxy } from './support/cut-proxy.js';
import { allConnected, collect, type Member, memberOf, meshCompliance } from './support/mesh-compliance.js';
import { waitFor } from './support/wait.js';

meshCompliance('libp2p', () => {
  const meshes: Mesh[] = [];
  return {
    async create() {
      const mesh = createLibp2pMesh({ peers: meshes.flatMap((m) => m.addresses()) });
      meshes.push(mesh);
      return mesh;
    },
    async close() {
      await Promise.all(meshes.map((mesh) => mesh.stop()));
    },
  };
});

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const texts = (member: Member): string[] => member.heard.map((h) => new TextDecoder().decode(h.bytes));

/** Starts a member that the test stops at its end. */
async function start(t: TestContext, options: Libp2pMeshOptions = {}): Promise<Member> {
  const member = memberOf(createLibp2pMesh(options));
  t.after(() => member.mesh.stop());
  await member.mesh.start(member.handlers);
  return member;
}

/** Finds a port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A logger that keeps the warnings it is told, and counts the dials that failed again. */
function listeningLogger(): { logger: Logger; warnings: string[]; retries: number } {
  const log = {
    warnings: [] as string[],
    retries: 0,
    logger: {
      debug(_fields: object, message: string) {
        if (message.includes('trying again')) log.retries += 1;
      },
      info() {},
      warn(fields: object, message: string) {
        log.warnings.push(`${message} ${JSON.stringify(fields)}`);
      },
      error(fields: object, message: string) {
        log.warnings.push(`${message} ${JSON.stringify(fields)}`);
      },
    },
  };
  return log;
}

/** Starts test/support/mesh-child.ts and reads its first line. */
async function startChild(t: TestContext, settings: object) {
  const script = new URL('./support/mesh-child.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, ['--import', 'tsx', script, JSON.stringify(settings)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return { child, line };
}

describe('who may join a libp2p mesh', () => {
  it('refuses strangers in both directions when there is an allow-list, and lets members in', async (t) => {
    const [a, b, stranger] = [createIdentity(), createIdentity(), createIdentity()];
    const allow = [a.peerId, b.peerId];
    const memberA = await start(t, { identity: a.bytes, allow });
    const outsider = await start(t, { identity: stranger.bytes, peers: memberA.mesh.addresses() });
    const log = listeningLogger();
    const memberB = await start(t, {
      identity: b.bytes,
      allow,
      peers: [...memberA.mesh.addresses(), ...outsider.mesh.addresses()],
      logger: log.logger,
    });
    await waitFor(() => memberB.mesh.peers().length === 1 && memberA.mesh.peers().length === 1);
    await waitFor(() => log.warnings.some((w) => w.includes(stranger.peerId)), {
      what: 'a word on the stranger',
    });
    assert.deepEqual(memberA.mesh.peers(), [b.peerId]);
    assert.deepEqual(outsider.mesh.peers(), []);
    assert.deepEqual(outsider.events, []);
  });

  it('lets nobody in who lacks the mesh key, and everybody with it', async (t) => {
    const meshKey = createMeshKey();
    const member = await start(t, { meshKey });
    const peers = member.mesh.addresses();
    const log = listeningLogger();
    const without = await start(t, { peers, logger: log.logger });
    const wrong = await start(t, { peers, meshKey: createMeshKey(), logger: log.logger });
    const right = await start(t, { peers, meshKey });
    await allConnected([member, right]);
    await waitFor(() => log.warnings.length >= 2, { what: 'both are told that they get nowhere' });
    assert.match(log.warnings.join('\n'), /mesh key/);
    assert.deepEqual([without.mesh.peers(), wrong.mesh.peers()], [[], []]);
    assert.deepEqual(member.mesh.peers(), [right.mesh.self]);
  });

  it('starts with a ConfigError that names the address when the port is in use, and leaves nothing behind', async (t) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    const { port } = server.address() as AddressInfo;
    const mesh = createLibp2pMesh({ listen: ['/ip4/127.0.0.1/tcp/0', `/ip4/127.0.0.1/tcp/${port}`] });
    await assert.rejects(mesh.start(memberOf(mesh).handlers), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, new RegExp(`/tcp/${port}: port ${port} is in use`));
      return true;
    });
    assert.deepEqual(mesh.addresses(), []);
    await mesh.stop();
  });

  it('refuses options that can not work with a ConfigError that names the option', async () => {
    const wrong: [Libp2pMeshOptions, RegExp][] = [
      [{ listen: ['localhost:4001'] }, /^listen localhost:4001: this is not a multiaddr/],
      [{ listen: ['/ip4/127.0.0.1/udp/4001'] }, /^listen .* only TCP/],
      [{ peers: ['/ip4/1.2.3.4'] }, /^peer .* only TCP/],
      [{ allow: ['me'] }, /^allow me: this is not a PeerId/],
      [{ identity: new Uint8Array(3) }, /^the identity/],
      [{ meshKey: new Uint8Array(3) }, /^the mesh key/],
    ];
    for (const [options, message] of wrong) {
      assert.throws(
        () => createLibp2pMesh(options),
        (error) => {
          assert.ok(error instanceof ConfigError);
          assert.match(error.message, message);
          return true;
        },
      );
    }
    const mesh = createLibp2pMesh({ listen: ['/ip4/203.0.113.7/tcp/0'] });
    await assert.rejects(mesh.start(memberOf(mesh).handlers), /listen .*203\.0\.113\.7.*no interface/);
  });
});

describe('what a libp2p mesh tells of itself', () => {
  it('is the addresses that it listens on, with the PeerId', async (t) => {
    const { mesh } = await start(t, { listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/0'] });
    assert.equal(mesh.addresses().length, 2);
    for (const address of mesh.addresses()) {
      assert.match(address, new RegExp(`^/ip4/127\\.0\\.0\\.1/tcp/[1-9]\\d*/p2p/${mesh.self}$`));
    }
  });

  it('is what it is told to announce instead, or nothing', async (t) => {
    const announced = await start(t, { announce: ['/dns4/eu.example/tcp/4001'] });
    assert.deepEqual(announced.mesh.addresses(), [`/dns4/eu.example/tcp/4001/p2p/${announced.mesh.self}`]);
    const secretive = await start(t, { announce: [] });
    assert.deepEqual(secretive.mesh.addresses(), []);
    assert.throws(() => createLibp2pMesh({ announce: ['here'] }), ConfigError);
  });
});

describe('how a libp2p mesh finds and keeps its members', () => {
  it('becomes a full mesh when each member knows only one', async (t) => {
    const hub = await start(t);
    const peers = hub.mesh.addresses();
    const rest = await Promise.all([0, 1, 2].map(() => start(t, { peers })));
    await allConnected([hub, ...rest]);
    await hub.mesh.stop();
    await allConnected(rest);
  });

  it('brings the broadcasts of members that can not reach each other, with the author and not the relay', async (t) => {
    const relay = await start(t);
    const [a, b] = await Promise.all(
      [0, 1].map(() => start(t, { listen: [], peers: relay.mesh.addresses() })),
    );
    await waitFor(() => relay.mesh.peers().length === 2);
    // A relay passes on to peers of its gossip mesh, which forms at its next heartbeat.
    await waitFor(() => {
      a!.mesh.broadcast(bytes('again and again'));
      return b!.heard.length > 0;
    });
    assert.equal(b!.heard[0]!.from, a!.mesh.self);
    assert.deepEqual(b!.mesh.peers(), [relay.mesh.self]);
  });

  it('connects members that dial each other at the same moment, and reports each once', async (t) => {
    const ports = await Promise.all([0, 1, 2].map(freePort));
    const listens = ports.map((port) => `/ip4/127.0.0.1/tcp/${port}`);
    const members = await Promise.all(
      listens.map((listen) => start(t, { listen: [listen], peers: listens.filter((l) => l !== listen) })),
    );
    await allConnected(members);
    for (const [index, member] of members.entries()) member.mesh.broadcast(bytes(`from ${index}`));
    await waitFor(() => members.every((m) => new Set(texts(m)).size === 2));
    for (const member of members) {
      const others = members.filter((m) => m !== member).map((m) => `+${m.mesh.self}`);
      assert.deepEqual(member.events.toSorted(), others.toSorted());
    }
  });

  it('reaches a member again that restarted under its address, and one that starts late', async (t) => {
    const port = await freePort();
    const listen = [`/ip4/127.0.0.1/tcp/${port}`];
    const a = await start(t, { peers: listen });
    const identity = createIdentity();
    for (const round of [1, 2, 3]) {
      const b = await start(t, { identity: identity.bytes, listen });
      await waitFor(() => a.mesh.peers().length === 1 && b.mesh.peers().length === 1, {
        what: `round ${round}`,
      });
      a.mesh.broadcast(bytes(`round ${round}`));
      await waitFor(() => b.heard.length === 1);
      await b.mesh.stop();
      await waitFor(() => a.mesh.peers().length === 0);
    }
    assert.deepEqual(
      a.events,
      [1, 2, 3].flatMap(() => [`+${identity.peerId}`, `-${identity.peerId}`]),
    );
  });

  it('says once that an address is its own, and once that another member is there than the PeerId says', async (t) => {
    const identity = createIdentity();
    const b = await start(t);
    const other = createIdentity().peerId;
    const address = b.mesh.addresses()[0]!.replace(/\/p2p\/.*/, '');
    const port = await freePort();
    const log = listeningLogger();
    await start(t, {
      identity: identity.bytes,
      listen: [`/ip4/127.0.0.1/tcp/${port}`],
      peers: [
        `/ip4/127.0.0.1/tcp/${port}`,
        `/ip4/127.0.0.1/tcp/${port}/p2p/${identity.peerId}`,
        `${address}/p2p/${other}`,
      ],
      logger: log.logger,
    });
    await waitFor(() => log.warnings.length >= 3);
    // It goes on trying the wrong PeerId, but no longer talks about it.
    await waitFor(() => log.retries > 1);
    assert.equal(log.warnings.filter((w) => w.includes('this node itself')).length, 2);
    assert.equal(log.warnings.filter((w) => w.includes(other)).length, 1);
  });

  for (const keyed of [false, true]) {
    const how = keyed ? 'with a mesh key' : 'without a mesh key';
    it(`throws when the connection is cut in mid-stream, and connects again (${how})`, async (t) => {
      const key = keyed ? { meshKey: createMeshKey() } : {};
      const b = await start(t, key);
      const proxy = await startCutProxy(Number(/tcp\/(\d+)/.exec(b.mesh.addresses()[0]!)![1]));
      t.after(() => proxy.close());
      const a = await start(t, { ...key, listen: [], peers: [`/ip4/127.0.0.1/tcp/${proxy.port}`] });
      await allConnected([a, b]);
      let signal: AbortSignal | undefined;
      b.answer = async function* (_from, _protocol, _body, handlerSignal) {
        signal = handlerSignal;
        for (;;) yield new Uint8Array(1000);
      };
      let taken = 0;
      await assert.rejects(async () => {
        for await (const _ of a.mesh.request(b.mesh.self, 'endless', bytes('')))
          if (++taken === 10) proxy.cut();
      }, PeerError);
      await waitFor(() => signal?.aborted === true, { what: 'the handler is aborted' });
      await waitFor(() => a.events.length >= 3 && b.events.length >= 3, {
        what: 'both see the cut and the return',
      });
      await allConnected([a, b]);
      assert.deepEqual(a.events, [`+${b.mesh.self}`, `-${b.mesh.self}`, `+${b.mesh.self}`]);
      a.mesh.broadcast(bytes('back'));
      await waitFor(() => b.heard.length > 0);
    });

    it(`throws when the peer is killed in mid-stream (${how})`, async (t) => {
      const key = createMeshKey();
      const settings = keyed ? { meshKey: new TextDecoder().decode(key) } : {};
      const { child, line } = await startChild(t, settings);
      const { peer, address } = JSON.parse(line) as { peer: string; address: string };
      const a = await start(t, { peers: [address], ...(keyed ? { meshKey: key } : {}) });
      await waitFor(() => a.mesh.peers().includes(peer));
      let taken = 0;
      await assert.rejects(async () => {
        for await (const _ of a.mesh.request(peer, 'endless', bytes('')))
          if (++taken === 10) child.kill('SIGKILL');
      }, PeerError);
      await waitFor(() => a.events.includes(`-${peer}`));
    });

    it(`leaves nothing that keeps the process alive once it has stopped (${how})`, async (t) => {
      const meshKey = keyed ? new TextDecoder().decode(createMeshKey()) : undefined;
      const { child, line } = await startChild(t, { exchange: true, meshKey });
      assert.equal(line, 'stopped');
      const stoppedMs = performance.now();
      const [code] = (await once(child, 'exit')) as [number];
      assert.equal(code, 0);
      assert.ok(performance.now() - stoppedMs < 2000, 'the process lingered');
    });
  }

  it('answers no more than 32 requests of one peer at a time, and says so', async (t) => {
    const a = await start(t);
    const b = await start(t, { peers: a.mesh.addresses() });
    await allConnected([a, b]);
    let running = 0;
    const controller = new AbortController();
    setMaxListeners(0, controller.signal);
    b.answer = async function* (_from, _protocol, _body, signal) {
      running += 1;
      await once(signal, 'abort');
      yield bytes('never taken');
    };
    const requests = Array.from({ length: 40 }, () =>
      collect(a.mesh.request(b.mesh.self, 'waits', bytes(''), { signal: controller.signal })).then(
        () => 'answered',
        (error: Error) => error.message,
      ),
    );
    const refused: string[] = [];
    for (const request of requests) void request.then((message) => refused.push(message));
    await waitFor(() => running === 32 && refused.length === 8, { what: '32 run and 8 are refused' });
    for (const message of refused) assert.match(message, /too many requests/);
    controller.abort();
    await Promise.all(requests);
    b.answer = async function* () {
      yield bytes('again');
    };
    // Until b has seen the aborts, it may still say that it is busy.
    await waitFor(async () => {
      const chunks = await collect(a.mesh.request(b.mesh.self, 'again', bytes(''))).catch(() => []);
      return chunks.length === 1;
    });
  });

  it('refuses to send a request that is too large', async (t) => {
    const a = await start(t);
    const b = await start(t, { peers: a.mesh.addresses() });
    await allConnected([a, b]);
    for (const [name, size] of [
      ['x'.repeat(257), 0],
      ['body', 4 * 1024 * 1024 + 1],
    ] as const) {
      await assert.rejects(
        collect(a.mesh.request(b.mesh.self, name, new Uint8Array(size))),
        /over the limit/,
      );
    }
    b.answer = async function* () {
      yield new Uint8Array(8 * 1024 * 1024 + 1);
    };
    await assert.rejects(collect(a.mesh.request(b.mesh.self, 'too much', bytes(''))), /over the limit/);
    assert.deepEqual(texts(b), []);
  });
});
