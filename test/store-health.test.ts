/** What a node says at its start about a server whose settings endanger data: refused, or warned about in the log and in the status. */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { createNode } from '../src/node.js';
import type { Logger } from '../src/options.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';

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
