/** Commits that aren't compared, because nobody else has committed: the store's eras, and several writers that nobody told of each other. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { Region } from '../bench/region.js';
import type { ByteString } from '../crdts/bytes.js';
import { addDigests, keyDigest } from '../crdts/digest.js';
import { StaleCommitError } from '../src/errors.js';
import { decodeRecord } from '../src/replica/key-record.js';
import type { Operation } from '../src/replica/operation.js';
import { SLOTS } from '../src/store/slots.js';
import type { Store } from '../src/store/store.js';
import { ValkeyStore } from '../src/store/valkey.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { BreakingProxy } from './support/proxy.js';
import { randomFrom } from './support/random-commits.js';
import { b, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

let server: LaunchedValkey;
let raw: Redis;
const stores: ValkeyStore[] = [];

before(async () => {
  server = await launchValkey();
  raw = new Redis(server.url);
});
after(async () => {
  raw?.disconnect();
  await server?.stop();
});
afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
  await raw.flushall();
});

function made(): ValkeyStore {
  const store = new ValkeyStore(server.url, { readKeysAfter: 1 });
  stores.push(store);
  return store;
}

async function opened(): Promise<ValkeyStore> {
  const store = made();
  await store.open();
  return store;
}

const header = (store: Store, key: string) =>
  store.load([{ key: b(key) }]).then(([loaded]) => loaded!.header);

/** Commits a key until its slot's digest is known; gives the era. */
async function known(store: ValkeyStore, expected: string | null, value: string): Promise<number> {
  await store.commit({
    writes: [write('k', { expected: expected === null ? null : b(expected), header: b(value) })],
  });
  for (let i = 0; i < 2; i += 1)
    await store.commit({ writes: [write('k', { expected: b(value), header: b(value) })] });
  return store.era;
}

/** Commits a key though something else is there than expected: that goes well only where nothing is compared. */
const careless = (store: ValkeyStore, value: string, era?: number) =>
  store.commit({
    writes: [
      write('k', {
        expected: b('wrong'),
        header: b(value),
        digest: 5,
        ...(era === undefined ? {} : { era }),
      }),
    ],
  });

describe('an era of the Valkey store', () => {
  it('spares comparing what was loaded or committed in it', async () => {
    const store = await opened();
    const era = await known(store, null, '1');
    await careless(store, '2', era);
    assert.equal(await header(store, 'k'), '2');
    assert.equal(store.era, era);
    await assert.rejects(careless(store, '3'), StaleCommitError);
    assert.equal(await header(store, 'k'), '2');
  });

  it('ends with the commit of another store, of whatever key', async () => {
    const one = await opened();
    const era = await known(one, null, '1');
    const two = await opened();
    await two.commit({ writes: [write('elsewhere', { header: b('x') })] });
    const before = await one.digests();
    const right = write('k', { expected: b('1'), header: b('2'), era });
    await assert.rejects(one.commit({ writes: [right] }), StaleCommitError);
    assert.equal(await header(one, 'k'), '1');
    assert.deepEqual(await one.digests(), before);
    // Now it is compared, so it goes through; and begins another era.
    await one.commit({ writes: [right] });
    assert.notEqual(one.era, era);
    await assert.rejects(careless(one, '3', era), StaleCommitError);
    assert.equal(await header(one, 'k'), '2');
  });

  it('ends when the connection is lost, and when the store is opened again', async () => {
    const store = await opened();
    const first = await known(store, null, '1');
    await raw.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await assert.rejects(careless(store, '2', first), StaleCommitError);
    const second = await known(store, '1', '3');
    await store.open();
    await assert.rejects(careless(store, '4', second), StaleCommitError);
    assert.equal(await header(store, 'k'), '3');
  });
});

describe('what the Valkey store knows to be absent', () => {
  const absent = (store: ValkeyStore, key: string): boolean => store.isAbsent(b(key));

  it('is every key that has no header, until it gets one; and nothing any more once another store has committed', async () => {
    const one = await opened();
    await known(one, null, '1');
    assert.equal(absent(one, 'k'), false);
    await waitFor(() => absent(one, 'new'), { what: 'all slots are read' });
    assert.equal(absent(one, 'k'), false);
    const { era } = one;
    const stored = one.commit({ writes: [write('new', { header: b('x'), era })] });
    // Before the answer.
    assert.equal(absent(one, 'new'), false);
    await stored;
    assert.equal(absent(one, 'theirs'), true);

    const two = await opened();
    await two.commit({ writes: [write('theirs', { header: b('y') })] });
    // Not heard of yet, so it is assumed; and refused as a whole.
    assert.equal(absent(one, 'theirs'), true);
    const late = one.commit({ writes: [write('theirs', { header: b('z'), era })] });
    await assert.rejects(late, StaleCommitError);
    await one.commit({ writes: [write('new', { expected: b('x'), header: b('x') })] });
    assert.equal(absent(one, 'theirs'), false);
    assert.equal(absent(one, 'neither'), false);
    assert.equal(await header(one, 'theirs'), 'y');
  });

  it('is no key whose first commit waits for a connection', async () => {
    const proxy = await BreakingProxy.listen(server.port);
    const store = new ValkeyStore(`redis://127.0.0.1:${proxy.port}`, { readKeysAfter: 1 });
    stores.push(store);
    try {
      await store.open();
      const era = await known(store, null, '1');
      await waitFor(() => absent(store, 'new'), { what: 'all slots are read' });
      proxy.refuse(true);
      proxy.cut();
      await waitFor(() => store.describe().problem !== undefined, { what: 'the connection is lost' });
      const waiting = store.commit({ writes: [write('new', { header: b('x'), era })] });
      assert.equal(absent(store, 'new'), false);
      proxy.refuse(false);
      await waiting;
      assert.equal(await header(store, 'new'), 'x');
    } finally {
      await store.close();
      await proxy.stop();
    }
  });

  it('spares loading new keys, of whatever type', async () => {
    const store = made();
    const region = await Region.open('aaaaaaaa.1', store);
    const submit = (key: string, run: Operation<unknown>['run']): Promise<void> =>
      region.submit({ needs: [{ key: b(key), value: true, members: [b('m')] }], run });
    await region.set('first', 'v');
    await region.set('first', 'w');
    await submit('missed', (tx) => tx.increment(b('missed'), 1));
    await waitFor(() => ['c', 's', 't'].every((key) => absent(store, key)), { what: 'all slots are read' });
    let loads = 0;
    const load = store.load.bind(store);
    store.load = (requests) => {
      loads += 1;
      return load(requests);
    };
    await Promise.all([
      submit('c', (tx) => tx.increment(b('c'), 7)),
      submit('s', (tx) => tx.add(b('s'), [b('m')])),
      region.set('t', 'v'),
    ]);
    assert.equal(loads, 0);
    assert.deepEqual([await raw.get('c'), await raw.smembers('s'), await raw.get('t')], ['7', ['m'], 'v']);
    await submit('c', (tx) => tx.increment(b('c'), 1));
    assert.equal(await raw.get('c'), '8');
    assert.equal(loads, 0);
  });
});

/** What the digests of all slots must be, from what is stored. */
async function recomputed(store: Store): Promise<Map<number, number>> {
  const digests = new Map<number, number>();
  const slots = Array.from({ length: SLOTS }, (_, slot) => slot);
  while (slots.length > 0) {
    const lists = await store.headers(slots, 1 << 20);
    for (const list of lists) {
      const slot = slots.shift()!;
      for (const [key] of list) {
        const [loaded] = await store.load([{ key, value: true, elements: 'all' }]);
        const { state } = decodeRecord(key, loaded!, { value: true, whole: true, members: [] });
        digests.set(slot, addDigests(digests.get(slot) ?? 0, keyDigest(key, state)));
      }
    }
  }
  return digests;
}

describe('several writers on one Valkey, none of which knows of the others,', () => {
  for (const seed of [1, 2, 3, 4]) {
    it(`lose nothing and count nothing twice, in whatever turns they commit and lose their connections (seed ${seed})`, async () => {
      const random = randomFrom(seed);
      const pick = (below: number): number => Math.floor(random() * below);
      const regions: Region[] = [];
      for (const id of ['aaaaaaaa.1', 'bbbbbbbb.1', 'cccccccc.1'])
        regions.push(await Region.open(id, made()));
      const counts = new Map<string, number>();
      const members = new Map<string, Set<string>>();
      const under: Promise<void>[] = [];
      for (let round = 0; round < 60; round += 1) {
        // Often one is alone for a while, so that eras begin; then others break in.
        const active = random() < 0.6 ? [regions[pick(3)]!] : regions;
        for (let i = 0; i < 12; i += 1) {
          const region = active[pick(active.length)]!;
          const at = pick(20);
          const count = `n${at}` as ByteString;
          const kind = pick(4);
          if (kind < 2) {
            counts.set(count, (counts.get(count) ?? 0) + 1);
            under.push(
              region.submit({ needs: [{ key: count, value: true }], run: (tx) => tx.increment(count, 1) }),
            );
          } else if (kind === 2) {
            const set = `s${at}`;
            const member = `m${pick(1000)}`;
            members.set(set, (members.get(set) ?? new Set()).add(member));
            under.push(region.change(set, [member], true));
          } else {
            const key = `t${at}` as ByteString;
            const blind = random() < 0.5;
            under.push(
              region.submit({
                needs: [blind ? { key, blind } : { key, value: true }],
                run: (tx) => tx.set(key, `v${round}` as ByteString, 'clear'),
              }),
            );
          }
        }
        if (random() < 0.1) await raw.call('CLIENT', 'KILL', 'TYPE', 'normal');
        if (random() < 0.8) await Promise.all(under.splice(0));
      }
      await Promise.all(under);
      for (const [key, count] of counts) assert.equal(await raw.get(key), String(count), key);
      for (const [key, all] of members)
        assert.deepEqual((await raw.smembers(key)).sort(), [...all].sort(), key);
      const { store } = regions[0]!;
      const digests = await recomputed(store);
      for (const [slot, digest] of await store.digests())
        assert.equal(digest, digests.get(slot), `slot ${slot}`);
    });
  }
});
