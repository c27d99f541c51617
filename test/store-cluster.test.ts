/** The store on a Valkey Cluster of three servers: the compliance suite, the memory store as its model, its addresses, and what it refuses. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { createNode } from '../src/node.js';
import { openStore } from '../src/store/open.js';
import { slotTags } from '../src/store/slots.js';
import { ValkeyStore, type ValkeyStoreOptions } from '../src/store/valkey.js';
import type { ValkeyServerOptions } from '../src/store/valkey-address.js';
import { ValkeyClusterStore } from '../src/store/valkey-cluster.js';
import { systemTimers } from '../src/timers.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { obtainValkey } from '../src/valkey-server/obtain.js';
import { TestCa } from './support/certificates.js';
import { ValkeyCluster } from './support/cluster.js';
import { sameAsMemory } from './support/random-commits.js';
import { b, frame, storeCompliance, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

let cluster: ValkeyCluster;

before(async () => {
  cluster = await ValkeyCluster.start({ appendonly: false });
});
after(() => cluster?.stop());

const endings: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

function storeAt(at: string | ValkeyServerOptions, options: ValkeyStoreOptions = {}): ValkeyClusterStore {
  const store = new ValkeyClusterStore(at, options);
  endings.push(() => store.close());
  return store;
}

storeCompliance('Valkey Cluster', async () => {
  await cluster.flush();
  return {
    store: () => new ValkeyClusterStore(cluster.url),
    now: () => Date.now(),
    until: (ms) => waitFor(() => Date.now() > ms, { what: 'the expiry' }),
    end: async () => {},
  };
});

it('the cluster store and the memory store do the same to the same random commits', async () => {
  await cluster.flush();
  const store = storeAt(cluster.url);
  await store.open();
  await sameAsMemory(store, () => new ValkeyClusterStore(cluster.url), 200);
});

describe('the address of a cluster', () => {
  const surroundings = {
    timers: systemTimers,
    random: Math.random,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
  };

  it('is a URL with one or more of its servers, or an object', async () => {
    const { port } = cluster.servers[1]!;
    for (const spec of [
      cluster.url,
      `redis+cluster://127.0.0.1:${port}`,
      `valkey+cluster://127.0.0.1:1,127.0.0.1:${port}/0`,
      { cluster: [{ host: '127.0.0.1', port }] },
    ]) {
      const store = openStore(spec, surroundings);
      endings.push(() => store.close());
      const { server } = await store.open();
      assert.equal(server.kind, 'valkey cluster');
      assert.equal(server.primaries, 3);
    }
  });

  it('that can not be one is refused', () => {
    const bad: [string | ValkeyServerOptions, RegExp][] = [
      ['redis+cluster://:s3cret@h/1', /one database/],
      ['redis+cluster://:s3cret@h?ca=x', /not understood/],
      [{ cluster: [] }, /must be a list/],
      [{ cluster: [{ host: '' }] }, /must be \{ host, port \}/],
      [{ cluster: [{ host: 'h' }], db: 1 }, /one database/],
    ];
    for (const [spec, message] of bad)
      assert.throws(
        () => openStore(spec, surroundings),
        (error: Error & { code: string }) =>
          error.code === 'CONFIG' && message.test(error.message) && !error.message.includes('s3cret'),
      );
  });

  it('of a user without the permissions, or with a wrong password, is refused with what to do', async () => {
    await cluster.onPrimaries('ACL', 'SETUSER', 'app', 'on', '>pw', '~*', '+@all');
    endings.push(() => cluster.onPrimaries('ACL', 'DELUSER', 'app'));
    const at = cluster.url.replace('://', '://app:pw@');
    const store = storeAt(at);
    await store.open();
    await store.commit({ writes: ['a', 'b', 'c', 'd'].map((key) => write(key)) });
    const wrong = storeAt(cluster.url.replace('://', '://app:wrong@'));
    await assert.rejects(wrong.open(), { code: 'CONFIG', message: /refused the login: WRONGPASS/ });
    await cluster.onPrimaries('ACL', 'SETUSER', 'app', '-xadd');
    await assert.rejects(storeAt(at).open(), { code: 'CONFIG', message: /may not call XADD/ });
  });
});

describe('the cluster store', () => {
  it('refuses a cluster with missing slots, and says which and what to do', async () => {
    const client = cluster.admin(cluster.servers[2]!);
    try {
      await cluster.onPrimaries('CLUSTER', 'DELSLOTS', '16000');
      const message = /serves only 16383 of 16384 slots \(slot 16000 is the first.*--cluster fix/;
      await assert.rejects(storeAt(cluster.url).open(), { code: 'CONFIG', message });
      // A node that runs refuses what it can't do, and goes on by itself.
    } finally {
      await client.call('CLUSTER', 'ADDSLOTS', '16000');
      client.disconnect();
      await cluster.settled();
    }
  });

  it('and the store of a single server send each other the right way', async () => {
    const single = await launchValkey();
    endings.push(() => single.stop());
    const wrong = storeAt(single.url.replace('redis:', 'redis+cluster:'));
    await assert.rejects(wrong.open(), {
      code: 'CONFIG',
      message: /doesn't run in cluster mode: write redis:/,
    });
    const other = new ValkeyStore(cluster.servers[0]!.url);
    endings.push(() => other.close());
    await assert.rejects(other.open(), { code: 'CONFIG', message: /cluster mode: write redis\+cluster:/ });
  });

  it('settles a commit that a server kept waiting, before anything else', async () => {
    await cluster.flush();
    const [one] = cluster.servers;
    const store = storeAt(cluster.url, { answerTimeoutMs: 300 });
    await store.open();
    // One key for each server.
    const keys = [100, 6000, 12_000].map((slot) => `{${slotTags()[slot]}}`);
    const commit = (number: number) =>
      store.commit({
        writes: keys.map((key) =>
          write(key, {
            expected: number === 1 ? null : b(String(number - 1)),
            header: b(String(number)),
            digest: 1,
          }),
        ),
        frame: frame(number),
      });
    await commit(1);
    await one!.kill('SIGSTOP');
    await assert.rejects(commit(2), { code: 'STORE_UNAVAILABLE' });
    await one!.kill('SIGCONT');
    await waitFor(() => store.ping(), { what: 'the server' });
    const read = () => store.load(keys.map((key) => ({ key: b(key) })));
    let headers = new Set<unknown>();
    await waitFor(
      async () => {
        headers = await read().then(
          (loaded) => new Set(loaded.map(({ header }) => header)),
          () => new Set(),
        );
        return headers.size > 0;
      },
      { what: 'the commit is settled' },
    );
    assert.equal(headers.size, 1, [...headers].join());
    const now = Number([...headers][0]);
    await commit(now + 1);
    assert.deepEqual(new Set((await read()).map(({ header }) => header)), new Set([String(now + 1)]));
    assert.deepEqual([...(await store.digests()).values()], [now + 1, now + 1, now + 1]);
  });

  it('refuses what grows one server that is full, everywhere, and lets removals through', async () => {
    await cluster.flush();
    const client = cluster.admin(cluster.servers[0]!);
    endings.push(() => client.disconnect());
    const store = storeAt(cluster.url);
    await store.open();
    const keys = [100, 6000, 12_000].map((slot) => `{${slotTags()[slot]}}`);
    await store.commit({ writes: keys.map((key) => write(key)) });
    await client.config('SET', 'maxmemory', '1');
    const more = keys.map((key) => write(key, { expected: b('h'), header: b('more') }));
    await assert.rejects(store.commit({ writes: more }), { code: 'STORE_REFUSED', reason: 'OOM' });
    const gone = keys.map((key) =>
      write(key, { expected: b('h'), header: null, native: { kind: 'delete' } }),
    );
    await store.commit({ writes: gone });
    await client.config('SET', 'maxmemory', '0');
    assert.deepEqual(await store.digests(), new Map());
    await store.commit({ writes: keys.map((key) => write(key)) });
  });

  it('speaks TLS to all servers', async () => {
    const ca = await TestCa.create();
    endings.push(() => ca.remove());
    const secure = await ValkeyCluster.start({
      appendonly: false,
      tls: { ca: ca.ca, ...(await ca.issue('served')) },
    });
    endings.push(() => secure.stop());
    const store = storeAt(`${secure.tlsUrl}?ca=${ca.ca}`);
    const { server } = await store.open();
    assert.equal(server.address, secure.servers.map(({ port }) => `127.0.0.1:${port + 2}`).join(', '));
    await store.commit({ writes: ['a', 'b', 'c', 'd'].map((key) => write(key)) });
    const message = /signed by a CA that is known here/;
    await assert.rejects(storeAt(secure.tlsUrl).open(), { code: 'CONFIG', message });
  });

  it('works on a cluster of Redis', async () => {
    const redis = await ValkeyCluster.start({
      appendonly: false,
      binaries: await obtainValkey({ product: 'redis' }),
    });
    endings.push(() => redis.stop());
    const store = storeAt(redis.url);
    const { server } = await store.open();
    assert.equal(server.server, 'redis');
    await sameAsMemory(store, () => new ValkeyClusterStore(redis.url), 100);
  });

  it('carries a node', async () => {
    await cluster.flush();
    const node = await createNode({ region: 'eu', store: cluster.url, listen: [] });
    endings.push(() => node.stop());
    await Promise.all(Array.from({ length: 30 }, (_, i) => node.counter(`c${i}`).increment(2)));
    const values = await Promise.all(Array.from({ length: 30 }, (_, i) => node.counter(`c${i}`).value()));
    assert.ok(values.every((value) => Number(value) === 2));
    assert.equal(node.status().store.primaries, 3);
  });
});
