/** The Valkey store: the compliance suite, the memory store as its model, and what can happen to a server and to the way there. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import type { Logger } from '../src/options.js';
import { MemoryStore } from '../src/store/memory.js';
import { openStore } from '../src/store/open.js';
import type { KeyWrite } from '../src/store/store.js';
import { ValkeyStore, type ValkeyStoreOptions } from '../src/store/valkey.js';
import { systemTimers } from '../src/timers.js';
import { type LaunchedValkey, type LaunchOptions, launchValkey } from '../src/valkey-server/launch.js';
import { BreakingProxy } from './support/proxy.js';
import { randomFrom, sameAsMemory } from './support/random-commits.js';
import { b, frame, storeCompliance, write } from './support/store-compliance.js';
import { scanAll } from './support/store-content.js';
import { waitFor } from './support/wait.js';

let shared: LaunchedValkey;
let raw: Redis;

/** A client like any other, that fails at once when the server is away. */
const client = (url: string) => {
  const made = new Redis(url, { maxRetriesPerRequest: 1, retryStrategy: () => null, lazyConnect: true });
  made.on('error', () => {});
  return made;
};

before(async () => {
  shared = await launchValkey();
  raw = client(shared.url);
});
after(async () => {
  raw?.disconnect();
  await shared?.stop();
});

storeCompliance('Valkey', async () => {
  await raw.flushall();
  return {
    store: () => new ValkeyStore(shared.url),
    now: () => Date.now(),
    until: (ms) => waitFor(() => Date.now() > ms, { what: 'the expiry' }),
    end: async () => {},
  };
});

/** What a test begins is ended after it, the last first, whatever happens. */
const endings: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function server(options: LaunchOptions = {}): Promise<LaunchedValkey> {
  const launched = await launchValkey(options);
  endings.push(() => launched.stop());
  return launched;
}

async function opened(url: string, options: ValkeyStoreOptions = {}): Promise<ValkeyStore> {
  const store = new ValkeyStore(url, options);
  endings.push(() => store.close());
  await store.open();
  return store;
}

async function proxied(target: LaunchedValkey): Promise<{ proxy: BreakingProxy; url: string }> {
  const proxy = await BreakingProxy.listen(target.port);
  endings.push(() => proxy.stop());
  return { proxy, url: `redis://127.0.0.1:${proxy.port}` };
}

async function plain(url: string): Promise<Redis> {
  const made = client(url);
  endings.push(() => made.disconnect());
  await made.connect();
  return made;
}

const text = (key: string, value: string, parts: Partial<KeyWrite> = {}) =>
  write(key, { native: { kind: 'string', value: b(value) }, ...parts });
const codes = (results: PromiseSettledResult<unknown>[]) =>
  results.map((r) => (r.status === 'fulfilled' ? 'done' : String((r.reason as { code?: string }).code)));

describe('the Valkey store, beside other clients,', () => {
  beforeEach(() => raw.flushall());

  it('keeps native values that any client can read', async () => {
    const store = await opened(shared.url);
    await store.commit({
      writes: [
        text('string\xff', '\0\xff'),
        write('set', {
          native: { kind: 'set', add: [b('a'), b('b')], remove: [] },
          expireAtMs: 99_999_999_999_999,
        }),
      ],
    });
    assert.deepEqual(await raw.getBuffer(Buffer.from('string\xff', 'latin1')), Buffer.from([0, 255]));
    assert.deepEqual((await raw.smembers('set')).sort(), ['a', 'b']);
    assert.equal(await raw.pexpiretime('set'), 99_999_999_999_999);
  });

  it('replaces what someone turned into another type', async () => {
    const store = await opened(shared.url);
    const entries = ['a', 'b'].map((name) => [b(name), b('e')] as const);
    const set = (add: string, remove: string) =>
      ({ kind: 'set', add: [b(add)], remove: [b(remove)] }) as const;
    const keys = ['string', 'set', 'deleted', 'rebuilt'];
    await store.commit({ writes: keys.map((key) => write(key, { entries })) });
    for (const key of keys) await raw.rpush(key, 'x');
    assert.deepEqual(await store.types([b('set')]), ['none']);
    const header = { expected: b('h') };
    await store.commit({
      writes: [
        text('string', 'v', header),
        write('set', { ...header, entries: [[b('b'), null]], native: set('c', 'b') }),
        write('deleted', { ...header, native: { kind: 'delete' } }),
        write('rebuilt', { ...header, native: { kind: 'rebuild' }, expireAtMs: 99_999_999_999_999 }),
      ],
    });
    assert.equal(await raw.get('string'), 'v');
    assert.deepEqual((await raw.smembers('set')).sort(), ['a', 'c']);
    assert.equal(await raw.exists('deleted'), 0);
    assert.deepEqual((await raw.smembers('rebuilt')).sort(), ['a', 'b']);
  });

  it('goes on when the scripts are flushed', async () => {
    const store = await opened(shared.url);
    await raw.script('FLUSH');
    await Promise.all([
      store.commit({ writes: [write('a')], frame: frame(1) }),
      store.commit({ writes: [write('b')], frame: frame(2) }),
    ]);
    assert.equal((await store.load([{ key: b('b') }]))[0]?.header, 'h');
    assert.equal((await store.readFrames('me.1', 1, 100)).length, 2);
  });

  it('goes on when its connection is killed', async () => {
    const store = await opened(shared.url);
    for (let i = 1; i <= 20; i += 1) {
      const killed = raw.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await store.commit({ writes: [], frame: frame(i) });
      await killed;
    }
    assert.equal((await store.readFrames('me.1', 1, 1e6)).length, 20);
  });

  it('holds the writes of two stores apart by their headers', async () => {
    const [one, two] = [await opened(shared.url), await opened(shared.url)];
    await one.commit({ writes: [write('k', { header: b('1') })] });
    await assert.rejects(two.commit({ writes: [write('k', { header: b('2') })] }), { code: 'STALE_COMMIT' });
    await two.commit({ writes: [write('k', { expected: b('1'), header: b('2') })] });
    await one.commit({ writes: [write('l')] });
    assert.equal((await one.load([{ key: b('k') }]))[0]?.header, '2');
  });

  it('stays apart in each database', async () => {
    const [one, two] = [await opened(shared.url), await opened(`${shared.url}/3`)];
    await one.commit({ writes: [text('k', 'v')] });
    assert.equal(await two.count(), 0);
    await two.commit({ writes: [text('k', 'w')] });
    assert.deepEqual(await one.strings([b('k')]), ['v']);
  });

  it('leaves no record of a writer behind when it is closed', async () => {
    const store = await opened(shared.url);
    assert.equal((await raw.hkeys('__mesh:meta')).filter((field) => field.startsWith('w:')).length, 1);
    await store.close();
    assert.deepEqual((await raw.hkeys('__mesh:meta')).sort(), ['dataset', 'reserved']);
  });
});

it('the Valkey store and the memory store do the same to the same random commits', async () => {
  await raw.flushall();
  await sameAsMemory(await opened(shared.url), () => new ValkeyStore(shared.url));
});

describe('the Valkey store, on a bad connection,', () => {
  beforeEach(() => raw.flushall());

  it('commits once when the reply is lost', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url);
    proxy.loseNextReply();
    await store.commit({ writes: [text('k', 'v', { digest: 7 })], frame: frame(1) });
    assert.equal(proxy.faults, 1);
    assert.deepEqual([...(await store.digests()).values()], [7]);
    assert.equal((await store.readFrames('me.1', 1, 100)).length, 1);
  });

  it('commits once when the request is lost', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url);
    proxy.loseNextRequest();
    await store.commit({ writes: [text('k', 'v', { digest: 7 })], frame: frame(1) });
    assert.equal(proxy.faults, 1);
    assert.deepEqual([...(await store.digests()).values()], [7]);
  });

  it('commits once when the request arrives after it was sent again', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url);
    proxy.holdNextRequest();
    // Without a header there is nothing to compare: only the numbered session keeps this from counting twice.
    const count = (digest: number) =>
      store.commit({ writes: [write('k', { expected: null, header: null, digest })] });
    await store.commit({ writes: [write('{k}', { digest: 1 })] });
    proxy.holdNextRequest();
    await count(7);
    await proxy.release();
    await count(8);
    const total = [...(await store.digests()).values()].reduce((sum, digest) => sum + digest, 0);
    assert.equal(proxy.faults, 2);
    assert.equal(total, 16);
  });

  it('commits each of many overlapping commits once, in order, while the connection keeps breaking', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url, { answerTimeoutMs: 60_000 });
    const random = randomFrom(Number(process.env.SEED ?? 11));
    const commits: Promise<unknown>[] = [];
    for (let i = 1; i <= 300; i += 1) {
      const expected = i === 1 ? null : b(`h${i - 1}`);
      commits.push(
        store.commit({ writes: [write('k', { expected, header: b(`h${i}`), digest: 1 })], frame: frame(i) }),
      );
      if (i % 10 === 0) {
        [() => proxy.loseNextReply(), () => proxy.loseNextRequest(), () => proxy.cut()][
          Math.floor(random() * 3)
        ]?.();
        await commits[commits.length - 5];
      }
    }
    await Promise.all(commits);
    assert.deepEqual([...(await store.digests()).values()], [300]);
    const numbers = (await store.readFrames('me.1', 1, 1e6)).map(({ number }) => number);
    assert.deepEqual(
      numbers,
      Array.from({ length: 300 }, (_, i) => i + 1),
    );
  });

  it('fails the commits behind a failed one also when the connection breaks meanwhile', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url);
    proxy.loseNextReply();
    const results = await Promise.allSettled([
      store.commit({ writes: [write('a')], frame: frame(1) }),
      store.commit({ writes: [write('a')] }),
      store.commit({ writes: [write('b')] }),
    ]);
    assert.deepEqual(codes(results), ['done', 'STALE_COMMIT', 'STALE_COMMIT']);
    assert.equal((await store.load([{ key: b('b') }]))[0]?.header, null);
    await store.commit({ writes: [write('b')], frame: frame(2) });
  });

  it('gives up after its time, settles what it gave up, and goes on', async () => {
    const { proxy, url } = await proxied(shared);
    const store = await opened(url, { answerTimeoutMs: 200 });
    // The reply is lost, so it took effect, and no one can know while the way is cut.
    proxy.refuse(true);
    proxy.loseNextReply();
    const results = await Promise.allSettled([
      store.commit({ writes: [write('done')], frame: frame(1) }),
      store.load([{ key: b('done') }]),
    ]);
    assert.deepEqual(codes(results), ['STORE_UNAVAILABLE', 'STORE_UNAVAILABLE']);
    await assert.rejects(store.commit({ writes: [write('never sent')], frame: frame(2) }), {
      code: 'STORE_UNAVAILABLE',
    });
    assert.equal(await store.ping(), false);
    proxy.refuse(false);
    await waitFor(() => store.ping(), { what: 'the connection' });
    const [done, never] = await store.load([{ key: b('done') }, { key: b('never sent') }]);
    assert.deepEqual([done?.header, never?.header], ['h', null]);
    await store.commit({ writes: [write('next')], frame: frame(2) });
  });

  it('gives up on a server that stands still, and goes on when it moves again', async () => {
    const valkey = await server();
    const store = await opened(valkey.url, { answerTimeoutMs: 300 });
    await store.commit({ writes: [write('k', { header: b('0') })] });
    await valkey.kill('SIGSTOP');
    const results = await Promise.allSettled([
      store.commit({ writes: [write('k', { expected: b('0'), header: b('1'), digest: 1 })] }),
      store.commit({ writes: [write('k', { expected: b('1'), header: b('2'), digest: 1 })] }),
    ]);
    assert.deepEqual(codes(results), ['STORE_UNAVAILABLE', 'STORE_UNAVAILABLE']);
    await valkey.kill('SIGCONT');
    await waitFor(() => store.ping(), { what: 'the server' });
    const header = (await store.load([{ key: b('k') }]))[0]?.header ?? '';
    const [digest = 0] = (await store.digests()).values();
    assert.equal(Number(header), digest);
    await store.commit({ writes: [write('k', { expected: b(header), header: b('next'), digest: 1 })] });
    assert.deepEqual([...(await store.digests()).values()], [digest + 1]);
  });
});

describe('the Valkey store, when its server is restarted,', () => {
  it('goes on without an error when all data are there, even after kill -9 under load', async () => {
    const valkey = await server({ appendonly: true });
    const store = await opened(valkey.url, { answerTimeoutMs: 30_000 });
    await store.saveIdentity({ peerId: 'p', replica: 'me.1', born: 1, clean: false });
    let confirmed = 0;
    const commits: Promise<unknown>[] = [];
    for (let i = 1; i <= 400; i += 1) {
      const one = store.commit({ writes: [text(`k${i}`, 'v', { digest: 1 })], frame: frame(i) });
      commits.push(
        one.then(() => {
          confirmed += 1;
        }),
      );
      if (i === 200) await waitFor(() => confirmed > 50, { what: '50 commits' });
    }
    const restarted = valkey.kill('SIGKILL').then(() => valkey.restart());
    await Promise.all([...commits, restarted]);
    assert.equal(await store.count(), 400);
    assert.equal((await store.readFrames('me.1', 1, 1e6)).length, 400);
    const sum = [...(await store.digests()).values()].reduce((total, digest) => total + digest, 0);
    assert.equal(sum, 400);
  });

  it('says that data are lost when there are none, until it is opened again', async () => {
    const valkey = await server();
    const store = await opened(valkey.url);
    await store.commit({ writes: [write('k')] });
    await valkey.kill('SIGKILL');
    const waiting = [store.commit({ writes: [write('l')] }), store.load([{ key: b('k') }])];
    const settled = Promise.allSettled(waiting);
    await valkey.restart();
    assert.deepEqual(codes(await settled), ['STORE_RESET', 'STORE_RESET']);
    await assert.rejects(store.load([]), { code: 'STORE_RESET' });
    await assert.rejects(store.saveIdentity({ peerId: 'p', replica: 'r', born: 1, clean: true }), {
      code: 'STORE_RESET',
    });
    assert.equal(await store.ping(), false);
    assert.deepEqual((await store.open()).identities, []);
    assert.equal((await store.load([{ key: b('k') }]))[0]?.header, null);
    await store.commit({ writes: [write('k')] });
  });

  it('says that data are lost when older ones are there', async () => {
    const valkey = await server();
    const store = await opened(valkey.url);
    const other = await plain(valkey.url);
    await store.commit({ writes: [write('a')], frame: frame(1) });
    await other.save();
    await store.commit({ writes: [write('b')], frame: frame(2) });
    await valkey.kill('SIGKILL');
    const waiting = Promise.allSettled([store.commit({ writes: [], frame: frame(3) })]);
    await valkey.restart();
    assert.deepEqual(codes(await waiting), ['STORE_RESET']);
    assert.deepEqual((await store.open()).applied, [{ replica: 'me.1', number: 1, stamp: 1000 }]);
  });

  it('says that data are lost when they are flushed under it', async () => {
    const valkey = await server();
    const store = await opened(valkey.url);
    const other = await plain(valkey.url);
    await store.commit({ writes: [write('k')] });
    await other.flushall();
    await assert.rejects(store.commit({ writes: [write('k')] }), { code: 'STORE_RESET' });
    await store.open();
    await store.commit({ writes: [write('k')] });
    await other.flushall();
    await assert.rejects(store.saveIdentity({ peerId: 'p', replica: 'r', born: 1, clean: true }), {
      code: 'STORE_RESET',
    });
  });

  it('does not bring the mark of a clean shutdown back', async () => {
    const valkey = await server({ appendonly: true });
    const store = await opened(valkey.url);
    await store.saveIdentity({ peerId: 'p', replica: 'me.1', born: 1, clean: true });
    await store.commit({ writes: [write('k')] });
    await valkey.restart();
    await store.load([]);
    const next = new ValkeyStore(valkey.url);
    endings.push(() => next.close());
    assert.equal((await next.open()).identities[0]?.clean, false);
  });

  it('takes the mark of a clean shutdown for none, because it may be that of a backup', async () => {
    const valkey = await server({ appendonly: true });
    const store = await opened(valkey.url);
    await store.saveIdentity({ peerId: 'p', replica: 'me.1', born: 1, clean: true });
    await store.close();
    const cleanNow = async () => (await (await opened(valkey.url)).open()).identities[0]?.clean;
    assert.equal(await cleanNow(), true);
    await valkey.restart();
    assert.equal(await cleanNow(), false);
  });
});

describe('the Valkey store, when an earlier release has used it,', () => {
  it('finds its one identity, and moves it beside the next one that is stored', async () => {
    const valkey = await server();
    const before = await plain(valkey.url);
    const runId = /run_id:(\S+)/.exec(await before.info('server'))![1]!;
    await before.hset('__mesh:meta', {
      ...{ dataset: 'd', reserved: '1', peer: 'old', replica: 'o.1', clean: runId, notes: 'n' },
    });
    const store = new ValkeyStore(valkey.url);
    endings.push(() => store.close());
    const old = { peerId: 'old', replica: 'o.1', born: null, clean: true };
    const { identities, notes } = await store.open();
    assert.deepEqual([identities, notes], [[old], 'n']);
    const next = { peerId: 'next', replica: 'x.1', born: 4, clean: false };
    await store.saveIdentity(next);
    const found = (await store.refresh()).identities;
    assert.deepEqual(
      [...found].sort((x, y) => (x.peerId < y.peerId ? -1 : 1)),
      [next, old],
    );
    assert.deepEqual(await before.hmget('__mesh:meta', 'peer', 'replica', 'clean'), [null, null, null]);
    assert.equal(await store.retire('old', 60_000), true);
  });
});

describe('the Valkey store, when two nodes write through it,', () => {
  it('tells both at once when the frames of one are lost, though the other has lost none', async () => {
    const valkey = await server();
    const [store, other] = [await opened(valkey.url), await opened(valkey.url)];
    await store.commit({ writes: [write('a')], frame: frame(1) });
    await (await plain(valkey.url)).save();
    await other.commit({ writes: [], frame: { ...frame(1), replica: 'other.1' } });
    await store.refresh();
    await valkey.kill('SIGKILL');
    await valkey.restart();
    await assert.rejects(other.commit({ writes: [write('b')] }), { code: 'STORE_RESET' });
    await assert.rejects(store.commit({ writes: [write('b')], frame: frame(2) }), { code: 'STORE_RESET' });
    const { applied } = await store.open();
    assert.deepEqual(applied, [{ replica: 'me.1', number: 1, stamp: 1000 }]);
  });

  it('keeps digests and reserved keys right though they commit by turns', async () => {
    const valkey = await server();
    const stores = [await opened(valkey.url), await opened(valkey.url)];
    const client = await plain(valkey.url);
    let sum = 0;
    for (let i = 0; i < 200; i += 1) {
      const keys = [`{same}${i}`, `k${i % 20}-${i}`];
      await Promise.all(
        stores.map((store, at) => store.commit({ writes: [write(`${keys[at]}`, { digest: i + 1 })] })),
      );
      sum += 2 * (i + 1);
    }
    const digests = await stores[0]!.digests();
    assert.equal(
      [...digests.values()].reduce((total, digest) => total + digest, 0),
      sum,
    );
    assert.equal(Number(await client.hget('__mesh:meta', 'reserved')), digests.size + 1);
  });
});

describe('the Valkey store, when the server refuses,', () => {
  it('says that it is out of memory, writes nothing, still reads, and still removes', async () => {
    const valkey = await server();
    const store = await opened(valkey.url);
    const other = await plain(valkey.url);
    await store.commit({
      writes: [text('k', 'x'.repeat(1000)), write('s', { entries: [[b('a'), b('e')]] })],
    });
    await other.config('SET', 'maxmemory', '1');
    const results = await Promise.allSettled([
      store.commit({ writes: [text('l', 'v')], frame: frame(1) }),
      store.commit({ writes: [write('m')] }),
    ]);
    assert.deepEqual(codes(results), ['STORE_REFUSED', 'STALE_COMMIT']);
    await assert.rejects(store.commit({ writes: [write('m')] }), /OOM .*maxmemory/);
    const [k, l] = await store.load([{ key: b('k'), value: true, elements: 'all' }, { key: b('l') }]);
    assert.deepEqual([k?.value?.length, l?.header], [1000, null]);
    assert.equal(await store.count(), 1);
    await store.commit({
      writes: [write('k', { expected: b('h'), native: { kind: 'delete' } })],
      frame: frame(1),
    });
    await store.trimLog('me.1', 1);
    await store.saveIdentity({ peerId: 'p', replica: 'me.1', born: 1, clean: false });
    assert.equal(await store.count(), 0);
    await other.config('SET', 'maxmemory', '0');
    await store.commit({ writes: [write('m')] });
  });

  it('says that it has become a read-only replica', async () => {
    const [valkey, primary] = [await server(), await server()];
    const store = await opened(valkey.url, { answerTimeoutMs: 1000 });
    await store.commit({ writes: [write('k')] });
    const other = await plain(valkey.url);
    await other.config('SET', 'replica-serve-stale-data', 'yes');
    await other.replicaof('127.0.0.1', String(primary.port));
    await assert.rejects(store.commit({ writes: [write('l')] }), {
      code: 'STORE_REFUSED',
      message: /READONLY.*primary/,
    });
    const again = new ValkeyStore(valkey.url);
    endings.push(() => again.close());
    await waitFor(
      () =>
        again.open().then(
          () => false,
          (error: { code: string; message: string }) =>
            error.code === 'CONFIG' && /read-only replica/.test(error.message),
        ),
      { what: 'CONFIG for a replica' },
    );
  });

  it('says what to do about a wrong password, and never shows one', async () => {
    const valkey = await server({ args: ['--requirepass', 's3cret'] });
    const messages: string[] = [];
    const note = (fields: object, message: string) => messages.push(JSON.stringify(fields) + message);
    const logger: Logger = { debug: note, info: note, warn: note, error: note };
    for (const login of ['', ':wr0ng@', 'someone:wr0ng@']) {
      const store = new ValkeyStore(`redis://${login}127.0.0.1:${valkey.port}`, { logger });
      endings.push(() => store.close());
      await assert.rejects(store.open(), (error: Error & { code: string }) => {
        messages.push(error.message, String(error.stack));
        return error.code === 'CONFIG' && /password/.test(error.message);
      });
    }
    assert.ok(
      messages.every((message) => !/wr0ng|s3cret/.test(message)),
      messages.join('\n'),
    );
    const store = await opened(`valkey://default:s3cret@127.0.0.1:${valkey.port}/2`, { logger });
    await store.commit({ writes: [write('k')] });
  });

  it('says which command its user may not call', async () => {
    const valkey = await server();
    const other = await plain(valkey.url);
    await other.acl('SETUSER', 'app', 'on', '>pw', '~*', '+@all', '-pexpireat');
    await other.acl('SETUSER', 'keys', 'on', '>pw', '~app:*', '~__mesh:*', '+@all');
    for (const user of ['app', 'keys']) {
      const store = new ValkeyStore(`redis://${user}:pw@127.0.0.1:${valkey.port}`);
      endings.push(() => store.close());
      await assert.rejects(store.open(), { code: 'CONFIG', message: /may not call|refused the login/ });
    }
  });

  it('says so when nothing listens, or nothing answers', async () => {
    const valkey = await server();
    await valkey.kill('SIGKILL');
    const store = new ValkeyStore(valkey.url, { answerTimeoutMs: 200 });
    endings.push(() => store.close());
    const where = new RegExp(`127\\.0\\.0\\.1:${valkey.port}.*ECONNREFUSED.*host and port`);
    await assert.rejects(store.open(), { code: 'STORE_UNAVAILABLE', message: where });
    await valkey.restart();
    await valkey.kill('SIGSTOP');
    await assert.rejects(store.open(), { code: 'STORE_UNAVAILABLE' });
    await valkey.kill('SIGCONT');
    await store.open();
  });

  it('keeps the process alive until a waiting caller has its answer', async () => {
    const program = fileURLToPath(new URL('./support/store-child.ts', import.meta.url));
    const valkey = await server();
    await valkey.kill('SIGKILL');
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, ['--import', 'tsx', program, valkey.url]);
    assert.equal(stdout, 'STORE_UNAVAILABLE\n');
  });

  it('says so when the server is too old, or something else', async () => {
    const answers = ['$23\r\nredis_version:6.2.14\r\n\r\n\r\n', 'HTTP/1.1 400 Bad Request\r\n\r\n'];
    for (const [i, answer] of answers.entries()) {
      const fake = createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', () => socket.write(answer));
      });
      await new Promise<void>((resolve) => fake.listen(0, '127.0.0.1', resolve));
      endings.push(() => new Promise((resolve) => fake.close(resolve)));
      const { port } = fake.address() as { port: number };
      const store = new ValkeyStore(`redis://127.0.0.1:${port}`, { answerTimeoutMs: 300 });
      endings.push(() => store.close());
      const expected =
        i === 0 ? { code: 'CONFIG', message: /6\.2\.14.*use Valkey/ } : { code: 'STORE_UNAVAILABLE' };
      await assert.rejects(store.open(), expected);
    }
  });

  it('tells at open what puts data at risk', async () => {
    const valkey = await server({ args: ['--maxmemory-policy', 'volatile-lru'] });
    const store = new ValkeyStore(valkey.url);
    endings.push(() => store.close());
    const { server: facts } = await store.open();
    assert.match(String(facts.warnings), /maxmemory-policy is volatile-lru.*appendonly is off/);
    assert.match(String(facts.version), /^\d+\.\d+/);
    assert.deepEqual(await scanAll(store), []);
  });
});

describe('openStore', () => {
  const surroundings = {
    timers: systemTimers,
    random: Math.random,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
  };

  it('makes the store that is named', () => {
    assert.ok(openStore('memory', surroundings) instanceof MemoryStore);
    for (const url of ['redis://h', 'rediss://u:p@h:1/2', 'valkey://[::1]:7', 'valkeys://h', 'REDIS://h']) {
      assert.ok(openStore(url, surroundings) instanceof ValkeyStore, url);
    }
  });

  it('refuses anything else, and does not repeat it', () => {
    for (const spec of [
      '',
      'disk',
      'http://u:s3cret@h',
      'redis://',
      'redis://h/x',
      'redis://:s3cret%@h',
      'redis://:s3cret@h:99999',
    ]) {
      assert.throws(
        () => openStore(spec, surroundings),
        (error: Error & { code: string }) => error.code === 'CONFIG' && !error.message.includes('s3cret'),
        spec,
      );
    }
  });
});
