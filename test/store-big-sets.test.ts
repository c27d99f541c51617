/** How the entries of big sets lie in a Valkey: what it costs, what a server that was used by an earlier release holds, and what goes wrong on purpose. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import type { ByteString } from '../crdts/bytes.js';
import { createNode } from '../src/index.js';
import { NO_DIGESTS } from '../src/store/cluster-settle.js';
import { writeCommit } from '../src/store/commit-frame.js';
import { COMMIT_SCRIPT } from '../src/store/commit-script.js';
import { ENTRIES_PER_PAGE, entryHash, MOST_IN_ONE_HASH, MOST_MOVED } from '../src/store/entry-pages.js';
import { FrameWriter } from '../src/store/frame-writer.js';
import { entriesKey, entryPageKey } from '../src/store/layout.js';
import type { KeyWrite } from '../src/store/store.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { scanned } from './support/big-set-compliance.js';
import { b, write } from './support/store-compliance.js';

let shared: LaunchedValkey;
let raw: Redis;
let store: ValkeyStore;
const endings: (() => Promise<unknown> | unknown)[] = [];

before(async () => {
  shared = await launchValkey();
  raw = new Redis(shared.url);
});
after(async () => {
  raw?.disconnect();
  await shared?.stop();
});
beforeEach(async () => {
  await raw.flushall();
  header = null;
  store = new ValkeyStore(shared.url);
  endings.push(() => store.close());
  await store.open();
});
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

const KEY = b('k');
const DIRECTORY = entriesKey(KEY);
const name = (i: number) => b(`m${String(i).padStart(15, '0')}`);
const named = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => name(from + i));
/** As long as the dot of one replica is. */
const ENTRY = b('\x92\xaaabcdefgh.1\xcb12345678');
const stored = (elements: readonly ByteString[], entry = ENTRY) =>
  elements.map((element) => [element, entry] as const);
const removed = (elements: readonly ByteString[]) => elements.map((element) => [element, null] as const);
let header: ByteString | null = null;
/** Commits to the key. */
const change = async (
  entries: readonly (readonly [ByteString, ByteString | null])[],
  parts: Partial<KeyWrite> = {},
) => {
  const made = write(KEY, { expected: header, entries, ...parts });
  await store.commit({ writes: [made] });
  header = made.header;
};
const all = async () => (await store.load([{ key: KEY, elements: 'all' }]))[0]!.entries;

/** Pages and entries as the directory tells, and the true length of each page; asserts that what is told of them is exact. */
async function pages(): Promise<number[]> {
  const [count, entries, missing] = ((await raw.get(DIRECTORY)) ?? '').split(' ').map(Number) as [
    number,
    number,
    number,
  ];
  const lengths = await Promise.all(
    Array.from({ length: count }, (_, page) => raw.hlen(entryPageKey(KEY, page))),
  );
  assert.equal(
    lengths.reduce((sum, length) => sum + length, 0),
    entries,
  );
  assert.equal(lengths.filter((length) => length === 0).length, missing);
  await exact();
  return lengths;
}

/** Asserts that the count of reserved keys is exact. */
async function exact(): Promise<void> {
  const reserved = (await raw.keys('*')).filter((key) => key.startsWith('__mesh:'));
  assert.equal(Number(await raw.hget('__mesh:meta', 'reserved')), reserved.length, reserved.sort().join(' '));
}

it('the hash of an element never changes, because stored data is placed by it', () => {
  const hashes: [string, number][] = [
    ['', 0],
    ['\0', 6_867_102],
    ['a', 16_508_890],
    ['q', 6_931_046],
    ['user:1', 2_122_261],
    ['user:9', 2_122_261],
    ['m000000000000123', 8_994_985],
    ['\xff'.repeat(64), 10_062_202],
    ['x'.repeat(65), 9_689_934],
    ['ab'.repeat(1000), 9_410_178],
  ];
  for (const [element, hash] of hashes) assert.equal(entryHash(b(element)), hash, element.slice(0, 20));
});

describe('a big set in Valkey', () => {
  it('is one hash while it is small, and pages that stay packed when it is not', async () => {
    await change(stored(named(0, MOST_IN_ONE_HASH)));
    assert.equal(await raw.type(DIRECTORY), 'hash');
    assert.equal(await raw.object('ENCODING', DIRECTORY), 'listpack');
    for (let i = MOST_IN_ONE_HASH; i < 20_000; i += i < 400 ? 1 : 250) {
      await change(stored(named(i, i < 400 ? i + 1 : i + 250)));
      if (i % 3000 === 0) await pages();
    }
    const lengths = await pages();
    assert.equal(
      lengths.length,
      Math.ceil(lengths.reduce((sum, length) => sum + length, 0) / ENTRIES_PER_PAGE),
    );
    assert.ok(Math.max(...lengths) < 6 * ENTRIES_PER_PAGE, `${Math.max(...lengths)} in one page`);
    for (let page = 0; page < lengths.length; page += 1)
      assert.equal(await raw.object('ENCODING', entryPageKey(KEY, page)), 'listpack');
  });

  it('leaves nothing behind when it is emptied, stored anew as a small one, or removed', async () => {
    await change(stored(named(0, 5000)));
    const before = await pages();
    assert.ok(before.length > 70);
    await change(removed(named(0, 4990)));
    const after = await pages();
    assert.equal(after.length, before.length);
    await change(removed(named(4990, 5000)));
    assert.deepEqual(await raw.keys('__mesh:*k'), []);
    await exact();
    await change(stored(named(0, 5000)));
    await change([], { header: null });
    assert.deepEqual(await raw.keys('__mesh:*k'), []);
    await exact();
    await change(stored(named(0, 5000)));
    await change(stored(named(0, 3)), { clearEntries: true });
    assert.deepEqual(await raw.keys('__mesh:*k'), [DIRECTORY]);
    await exact();
    await change(stored(named(0, 5000)));
    await store.clear('forgotten');
    await store.open();
    assert.deepEqual(await raw.keys('*'), ['__mesh:meta']);
  });

  it('costs at most 2.5 times what it costs in plain Valkey', async () => {
    const plain = await launchValkey();
    endings.push(() => plain.stop());
    const beside = new Redis(plain.url);
    endings.push(() => beside.disconnect());
    const used = async (redis: Redis) => Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))![1]);
    const node = await createNode({ region: 'eu', listen: [], store: shared.url });
    endings.push(() => node.stop());
    const empty = [await used(beside), await used(raw)] as const;
    const members = 100_000;
    for (let i = 0; i < members; i += 1000) {
      await beside.sadd('k', ...named(i, i + 1000));
      await node.set('k').add(...named(i, i + 1000));
    }
    let log = 0;
    for (const each of await raw.keys('__mesh:log:*'))
      log += Number(await raw.call('MEMORY', 'USAGE', each, 'SAMPLES', '0'));
    const ours = (await used(raw)) - empty[1] - log;
    const theirs = (await used(beside)) - empty[0];
    assert.equal(await raw.scard('k'), members);
    assert.ok(
      ours <= 2.5 * theirs,
      `${ours / members} bytes a member, ${(ours / theirs).toFixed(2)} times ${theirs / members}`,
    );
  });

  it('works as one hash where an earlier release has stored it so, until it is stored anew', async () => {
    const old = named(0, 3000);
    await change([]);
    for (let i = 0; i < old.length; i += 1000)
      await raw.hset(DIRECTORY, ...old.slice(i, i + 1000).flatMap((element) => [element, ENTRY]));
    await raw.hincrby('__mesh:meta', 'reserved', 1);
    await exact();
    await change([...stored(named(3000, 4000)), ...removed(named(0, 10))]);
    assert.equal(await raw.type(DIRECTORY), 'hash');
    assert.deepEqual([...(await all()).keys()].sort(), named(10, 4000));
    assert.deepEqual([...(await scanned(store, KEY, 50)).keys()].sort(), named(10, 4000));
    assert.equal((await store.load([{ key: KEY, elements: old }]))[0]!.entries.size, 2990);
    await exact();
    await change(stored(named(0, 4000)), { clearEntries: true });
    assert.equal((await pages()).length, Math.ceil(4000 / ENTRIES_PER_PAGE));
    await change(removed(named(0, 4000)));
    await exact();
  });

  it('takes commits without hashes, as an earlier release has prepared them in a cluster', async () => {
    await store.close();
    store = new ValkeyStore(shared.url);
    await store.open();
    const facts = await raw.hgetall('__mesh:meta');
    const [writer, record] = Object.entries(facts).find(([field]) => field.startsWith('w:'))!;
    const out = new FrameWriter();
    const elements = [...named(0, 900), ...['', '\0', '\xff'.repeat(70), 'é'].map((each) => b(each))];
    for (const [i, entries] of [
      stored(elements),
      [...removed(named(0, 450)), ...stored(named(900, 950))],
    ].entries()) {
      const sender = {
        dataset: b(facts.dataset!),
        writer: b(writer),
        session: Number(record.split(':')[0]),
        seq: i + 1,
      };
      const commit = { writes: [write('k', { expected: i === 0 ? null : b('h'), entries })] };
      const framed = writeCommit(out, commit, sender, NO_DIGESTS);
      // An array of 14 in place of 16: without headers that needn't be compared, of which there are none, and without the list of hashes.
      assert.deepEqual([...framed.subarray(0, 3)], [0xdc, 0, 16]);
      const hashes = 3 * entries.length;
      const tail = hashes < 32 ? 1 : 3;
      const kept = framed.subarray(3, framed.length - 1 - 1 - tail - hashes);
      const cut = Buffer.concat([Buffer.of(0x9e), kept]);
      assert.match(String(await raw.eval(COMMIT_SCRIPT, 0, cut)), /^DONE/);
    }
    const left = [...elements.slice(450), ...named(900, 950)];
    assert.deepEqual([...(await all()).keys()].sort(), [...left].sort());
    assert.equal((await store.load([{ key: KEY, elements: left }]))[0]!.entries.size, left.length);
    await pages();
  });

  describe('whose members were picked to hash alike', () => {
    const hostile: ByteString[] = [];
    before(() => {
      for (let i = 0; hostile.length < 2 * MOST_MOVED; i += 1) {
        const element = b(`hostile ${i}`);
        if (entryHash(element) % 512 === 3) hostile.push(element);
      }
    });

    it('keeps all of them and the others, and splits no page that is too large', async () => {
      await change(stored(named(0, 1000)));
      for (let i = 0; i < hostile.length; i += 64) await change(stored(hostile.slice(i, i + 64)));
      const stuck = await pages();
      assert.ok(Math.max(...stuck) >= hostile.length);
      for (let i = 1000; i < 20_000; i += 1000) await change(stored(named(i, i + 1000)));
      const later = await pages();
      assert.ok(later.length < 512, `${later.length} pages`);
      const everything = [...named(0, 20_000), ...hostile].sort();
      assert.deepEqual([...(await all()).keys()].sort(), everything);
      assert.deepEqual([...(await scanned(store, KEY, 100)).keys()].sort(), everything);
      assert.equal(
        (await store.load([{ key: KEY, elements: everything }]))[0]!.entries.size,
        everything.length,
      );
      // When they are gone, it catches up by a few pages at a time.
      await change(removed(hostile));
      const [size, steps] = [(await pages()).length, 10];
      for (let i = 0; i < steps; i += 1) await change(stored([name(20_000 + i)]));
      const caught = (await pages()).length;
      assert.ok(caught > size && caught <= size + 10 * steps, `${size}, then ${caught} pages`);
      assert.deepEqual([...(await all()).keys()].sort(), named(0, 20_000 + steps));
    });

    it('keeps all of them when they come at once', async () => {
      await change(stored(hostile));
      await change(stored(named(0, 3000)));
      await pages();
      assert.deepEqual([...(await all()).keys()].sort(), [...hostile, ...named(0, 3000)].sort());
      await change(removed([...hostile, ...named(0, 3000)]));
      await exact();
    });
  });

  it('is refused, and nothing is written, when a page or the directory was overwritten from outside', async () => {
    await change(stored(named(0, 1000)));
    const page = entryPageKey(KEY, 2);
    const [kept, directory] = [await raw.hgetallBuffer(page), await raw.get(DIRECTORY)];
    const spoil: [string, string][] = [
      [page, 'x'],
      [DIRECTORY, 'x'],
    ];
    for (const [key, value] of spoil) {
      await raw.set(key, value);
      const dump = () =>
        raw.eval(
          "local out, keys = {}, redis.call('KEYS', '*') table.sort(keys) for i, k in ipairs(keys) do out[i] = {k, redis.call('TYPE', k).ok} end return out",
          0,
        );
      const before = await dump();
      const bad = store.commit({
        writes: [
          write('other', { entries: stored(named(0, 5)) }),
          write('k', { expected: b('h'), entries: stored(named(0, 1000), b('new')) }),
        ],
      });
      await assert.rejects(bad, { code: 'STORE_REFUSED' });
      assert.deepEqual(await dump(), before);
      await raw.del(page);
      for (const [element, entry] of Object.entries(kept)) await raw.hset(page, element, entry as Buffer);
      await raw.set(DIRECTORY, directory!);
    }
    await change(stored(named(0, 1000), b('new')));
    assert.deepEqual(new Set((await all()).values()), new Set(['new']));
  });

  it('is one set for two nodes that share the server and take turns', async () => {
    const other = new ValkeyStore(shared.url);
    endings.push(() => other.close());
    await other.open();
    const entries = new Map<ByteString, ByteString>();
    for (let turn = 0; turn < 60; turn += 1) {
      const [writer, reader] = turn % 2 === 0 ? [store, other] : [other, store];
      const added = stored(named(turn * 50, turn * 50 + 60), b(`turn ${turn}`));
      for (const [element, entry] of added) entries.set(element, entry);
      const expected = turn === 0 ? null : b('h');
      await writer.commit({ writes: [write(KEY, { expected, entries: added })] });
      const [loaded] = await reader.load([{ key: KEY, elements: [...entries.keys()] }]);
      assert.deepEqual(loaded!.entries, entries);
    }
    await pages();
  });

  it('replaces what someone turned into another type', async () => {
    const native = { kind: 'set', add: named(0, 1000), remove: [] } as const;
    await change(stored(named(0, 1000)), { native });
    await raw.set('k', 'x');
    await change(stored(named(1000, 1001)), { native: { kind: 'set', add: [name(1000)], remove: [] } });
    assert.equal(await raw.scard('k'), 1001);
  });
});
