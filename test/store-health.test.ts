/**
 * What a node says about a server whose settings endanger data: refused at its start, or warned about in the log, the status and the
 * metrics, at its start and whenever they are changed.
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { createNode } from '../src/node.js';
import { meshMetrics } from '../src/ops/metrics.js';
import type { Logger } from '../src/options.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { ValkeyClusterStore } from '../src/store/valkey-cluster.js';
import { systemTimers, type Timers } from '../src/timers.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { ValkeyCluster } from './support/cluster.js';
import { waitFor } from './support/wait.js';

let valkey: LaunchedValkey;
let admin: Redis;
const endings: (() => Promise<unknown> | unknown)[] = [];

before(async () => {
  valkey = await launchValkey();
  admin = new Redis(valkey.url);
});
after(async () => {
  admin?.disconnect();
  await valkey?.stop();
});
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

/** Changes a setting for one test. */
async function set(name: string, value: string): Promise<void> {
  const [, before] = (await admin.config('GET', name)) as [string, string];
  await admin.config('SET', name, value);
  endings.push(() => admin.config('SET', name, before));
}

function storeAt(url: string, logger?: Logger): ValkeyStore {
  const store = new ValkeyStore(url, { answerTimeoutMs: 500, ...(logger && { logger }) });
  endings.push(() => store.close());
  return store;
}

/** The warnings of a store that opens. */
async function warnings(url = valkey.url): Promise<string> {
  return String((await storeAt(url).open()).server.warnings ?? '');
}

/** A server that answers INFO with some fields, and refuses all else. */
async function serverSaying(fields: Readonly<Record<string, string>>): Promise<string> {
  const info = Object.entries(fields)
    .map(([name, value]) => `${name}:${value}\r\n`)
    .join('');
  const fake = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (data) =>
      socket.write(data.includes('INFO') ? `$${info.length}\r\n${info}\r\n` : '-ERR no\r\n'),
    );
  });
  await new Promise<void>((resolve) => fake.listen(0, '127.0.0.1', resolve));
  endings.push(() => new Promise((resolve) => fake.close(resolve)));
  return `redis://127.0.0.1:${(fake.address() as { port: number }).port}`;
}

describe('a store refuses a server', () => {
  for (const policy of ['allkeys-lru', 'allkeys-lfu', 'allkeys-random']) {
    it(`that may evict any key (${policy}), at start and when it is set later`, async () => {
      const running = storeAt(valkey.url);
      await running.open();
      await set('maxmemory-policy', policy);
      const message = new RegExp(`maxmemory-policy ${policy}.*set maxmemory-policy to noeviction`);
      await assert.rejects(storeAt(valkey.url).open(), { code: 'CONFIG', message });
      await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await assert.rejects(running.commit({ writes: [] }), { code: 'STORE_UNAVAILABLE', message });
    });
  }

  const base = { redis_version: '7.2.4', role: 'master', maxmemory_policy: 'noeviction', aof_enabled: '1' };
  const refusals: [string, Record<string, string>, RegExp][] = [
    ['that is too old', { ...base, redis_version: '6.2.14' }, /version 6\.2\.14: use Valkey 7\.2/],
    ['in cluster mode', { ...base, cluster_enabled: '1' }, /cluster mode: write redis\+cluster:/],
    ['that is a replica', { ...base, role: 'slave' }, /read-only replica: give the primary's address/],
  ];
  for (const [which, fields, message] of refusals) {
    it(which, async () => {
      await assert.rejects(storeAt(await serverSaying(fields)).open(), { code: 'CONFIG', message });
    });
  }
});

describe('a store warns of a server', () => {
  it('that may evict keys with an expiry', async () => {
    await set('maxmemory-policy', 'volatile-ttl');
    assert.match(await warnings(), /maxmemory-policy is volatile-ttl: .*set it to noeviction/);
  });

  it('that keeps nothing over a restart, or only snapshots, or everything', async () => {
    assert.match(await warnings(), /save is empty: a restart of Valkey loses everything.*set appendonly yes/);
    await set('save', '3600 1');
    assert.match(await warnings(), /^appendonly is off: a restart of Valkey loses recent data/);
    await set('appendonly', 'yes');
    assert.equal(await warnings(), '');
  });

  it('whose settings its user may not ask for, and goes on', async () => {
    await admin.acl('SETUSER', 'managed', 'on', '>pw', '~*', '+@all', '-config');
    endings.push(() => admin.acl('DELUSER', 'managed'));
    const text = await warnings(`redis://managed:pw@127.0.0.1:${valkey.port}`);
    assert.match(text, /save can't be read \(CONFIG is not allowed here\)/);
  });

  it('in the log and in the status of its node', async () => {
    const logged: string[] = [];
    const silent = () => {};
    const logger: Logger = {
      debug: silent,
      info: silent,
      warn: (_, message) => logged.push(message),
      error: silent,
    };
    const node = await createNode({ region: 'eu', store: valkey.url, listen: [], logger });
    endings.push(() => node.stop());
    assert.match(String(node.status().store.warnings), /appendonly is off/);
    assert.ok(
      logged.some((message) => /appendonly is off/.test(message)),
      logged.join('\n'),
    );
  });
});

/** The machine's timers, with a clock that can be put forward. */
class Forward implements Timers {
  #aheadMs = 0;
  readonly after = systemTimers.after;

  now(): number {
    return systemTimers.now() + this.#aheadMs;
  }

  halfAMinute(): void {
    this.#aheadMs += 30_000;
  }
}

/** A logger that keeps what is said, and how. */
function listening(): { readonly said: string[]; readonly logger: Logger } {
  const said: string[] = [];
  const keep = (level: string) => (fields: object, message: string) =>
    said.push(`${level} ${message} ${JSON.stringify(fields)}`);
  return {
    said,
    logger: { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') },
  };
}

describe('A setting that is changed while a node runs', () => {
  it('shows half a minute later in the log, the status and the metrics, until it is put right', async () => {
    await set('appendonly', 'yes');
    await set('maxmemory-policy', 'noeviction');
    const timers = new Forward();
    const { said, logger } = listening();
    const node = await createNode({
      ...{ region: 'eu', store: valkey.url, listen: [] },
      ...{ heartbeatMs: 50, timers, logger },
    });
    endings.push(() => node.stop());
    const warned = () => String(node.status().store.warnings ?? '');
    const counted = async () => /^valkey_mesh_store_warning\S* 1$/m.test(await meshMetrics(node.status()));
    assert.equal(warned(), '');
    assert.equal(await counted(), false);
    for (const policy of ['allkeys-lru', 'volatile-ttl']) {
      await admin.config('SET', 'maxmemory-policy', policy);
      await node.register('still').set(policy);
      timers.halfAMinute();
      await waitFor(() => warned().includes(policy), { what: `a warning of ${policy}` });
      assert.match(warned(), /set it to noeviction|set maxmemory-policy to noeviction/);
      assert.equal(await counted(), true);
      assert.ok(
        said.some((line) => line.startsWith('warn ') && line.includes(policy)),
        said.join('\n'),
      );
    }
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
    timers.halfAMinute();
    await waitFor(() => warned() === '', { what: 'no warning any more' });
    assert.equal(await counted(), false);
    assert.ok(
      said.some((line) => /^info a setting of Valkey was put right .*volatile-ttl/.test(line)),
      said.join('\n'),
    );
  });

  it('is looked for once in half a minute, however often the store is asked for a sign of life', async () => {
    const timers = new Forward();
    const store = new ValkeyStore(valkey.url, { timers });
    endings.push(() => store.close());
    await store.open();
    const asked = async () => Number(/cmdstat_info:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1]);
    const before = await asked();
    for (let i = 0; i < 50; i += 1) assert.equal(await store.ping(), true);
    // The one call more is that of this test itself.
    assert.equal((await asked()) - before, 1);
    timers.halfAMinute();
    for (let i = 0; i < 50; i += 1) assert.equal(await store.ping(), true);
    assert.equal((await asked()) - before, 3);
  });

  it('shows too when it is one of the servers of a cluster', async () => {
    const cluster = await ValkeyCluster.start({ primaries: 2 });
    endings.push(() => cluster.stop());
    const timers = new Forward();
    const { said, logger } = listening();
    const store = new ValkeyClusterStore(cluster.url, { timers, logger });
    endings.push(() => store.close());
    assert.equal((await store.open()).server.warnings, undefined);
    const [, second] = cluster.servers;
    const client = cluster.admin(second!);
    endings.push(() => client.disconnect());
    await client.config('SET', 'maxmemory-policy', 'allkeys-random');
    timers.halfAMinute();
    assert.equal(await store.ping(), true);
    const warning = new RegExp(`127\\.0\\.0\\.1:${second!.port} has maxmemory-policy allkeys-random`);
    assert.match(String(store.describe().warnings), warning);
    assert.match(said.join('\n'), warning);
    await client.config('SET', 'maxmemory-policy', 'noeviction');
    timers.halfAMinute();
    assert.equal(await store.ping(), true);
    assert.equal(store.describe().warnings, undefined);
  });
});
