/**
 * The store on a Valkey Cluster while the cluster changes under it: slots that move in both directions, writers that end in the middle of a commit,
 * servers that fail over. A commit is there as a whole or not at all, once, whatever happened.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { keySlot } from '../src/store/slots.js';
import type { Store } from '../src/store/store.js';
import type { ValkeyStoreOptions } from '../src/store/valkey.js';
import { ValkeyClusterStore } from '../src/store/valkey-cluster.js';
import type { LaunchedValkey } from '../src/valkey-server/launch.js';
import { scanned } from './support/big-set-compliance.js';
import { ValkeyCluster } from './support/cluster.js';
import { b, frame, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

const KEYS = 40;
const keys = Array.from({ length: KEYS }, (_, i) => b(`key:${i}`));

/** Commits that each count on several keys; what each key must hold is known. */
class Counting {
  readonly store: Store;
  readonly counts = new Map<ByteString, number>();
  commits = 0;
  refusals = 0;
  #headers = new Map<ByteString, ByteString>();

  constructor(store: Store) {
    this.store = store;
  }

  /** Counts once on each of some keys, in one commit. */
  async count(some: readonly ByteString[]): Promise<void> {
    const number = this.commits + 1;
    const writes = some.map((key) => {
      const next = (this.counts.get(key) ?? 0) + 1;
      return write(key, {
        expected: this.#headers.get(key) ?? null,
        header: b(`h${next}`),
        digest: 1,
        entries: [[b(`e${next}`), b('x')]],
        native: { kind: 'set', add: [b(`e${next}`)], remove: [] },
      });
    });
    await this.store.commit({ writes, frame: frame(number) });
    this.commits = number;
    for (const { key, header } of writes) {
      this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
      this.#headers.set(key, header!);
    }
  }

  /** Counts on changing keys until told to end. A refusal wrote nothing, so it is tried again. */
  async countUntil(over: () => boolean): Promise<void> {
    for (let turn = 0; !over(); turn += 1) {
      const width = [1, 2, 5, 20][turn % 4]!;
      const some = Array.from({ length: width }, (_, i) => keys[(turn * 7 + i * 3) % KEYS]!);
      try {
        await this.count([...new Set(some)]);
      } catch (error) {
        if ((error as { code?: string }).code !== 'STORE_REFUSED') throw error;
        this.refusals += 1;
      }
    }
  }

  /** Checks that a store holds each count, once, everywhere. */
  async check(store: Store): Promise<void> {
    const total = [...this.counts.values()].reduce((sum, count) => sum + count, 0);
    const loaded = await store.load(keys.map((key) => ({ key, elements: 'all' as const })));
    for (const [i, key] of keys.entries()) {
      const count = this.counts.get(key) ?? 0;
      assert.equal(loaded[i]!.header, count === 0 ? null : `h${count}`, key);
      assert.equal(loaded[i]!.entries.size, count, key);
      assert.equal(await store.cardinality(key), count, key);
    }
    const digests = await store.digests();
    assert.equal(
      [...digests.values()].reduce((sum, digest) => sum + digest, 0),
      total,
      'digests',
    );
    assert.equal(await store.count(), this.counts.size);
    const numbers = (await store.readFrames('me.1', 1, 1e9)).map(({ number }) => number);
    assert.deepEqual(
      numbers,
      Array.from({ length: this.commits }, (_, i) => i + 1),
    );
  }
}

let cluster: ValkeyCluster;
const endings: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function opened(options: ValkeyStoreOptions = {}): Promise<ValkeyClusterStore> {
  const store = new ValkeyClusterStore(cluster.url, options);
  endings.push(() => store.close());
  await store.open();
  return store;
}

before(async () => {
  cluster = await ValkeyCluster.start({ replicas: 1 });
});
after(() => cluster?.stop());
beforeEach(async () => {
  await cluster.flush();
});

describe('The store on a cluster, while slots move,', () => {
  it('loses nothing and counts nothing twice', async (t) => {
    const [one, two] = cluster.servers;
    const counting = new Counting(await opened({ answerTimeoutMs: 30_000 }));
    let over = false;
    const running = counting.countUntil(() => over);
    await waitFor(() => counting.commits > 20, { what: 'the first commits' });
    try {
      await cluster.reshard(one!, two!, 60);
      await cluster.reshard(two!, one!, 60);
    } finally {
      over = true;
    }
    await running;
    t.diagnostic(`${counting.commits} commits, ${counting.refusals} refused`);
    await counting.check(counting.store);
    await counting.check(await opened());
  });

  it('goes on when the slot moves in which it keeps the facts of a server, and when that slot comes back', async (t) => {
    const [one, two] = cluster.servers;
    const counting = new Counting(await opened({ answerTimeoutMs: 30_000 }));
    let over = false;
    const running = counting.countUntil(() => over);
    const goesOn = async () => {
      const before = counting.commits;
      await waitFor(() => counting.commits > before + 10, { what: 'more commits', deadlineMs: 30_000 });
    };
    await goesOn();
    try {
      const anchor = await anchorOf(one!);
      await cluster.moveSlot(anchor, one!, two!);
      await goesOn();
      assert.notEqual(await anchorOf(one!), anchor);
      await cluster.moveSlot(anchor, two!, one!);
      await goesOn();
    } finally {
      over = true;
    }
    await running;
    t.diagnostic(`${counting.commits} commits, ${counting.refusals} refused`);
    await counting.check(counting.store);
    await counting.check(await opened());
  });

  it('takes all pages of a big set along, while it grows and is read', async (t) => {
    const [one, two] = cluster.servers;
    const store = await opened({ answerTimeoutMs: 30_000 });
    const key = keys.find((each) => keySlot(each) < 5000)!;
    const all = new Map<ByteString, ByteString>();
    const read = async (from: Store) => {
      const [named] = await from.load([{ key, elements: [...all.keys()] }]);
      assert.deepEqual(named!.entries, all);
      const [loaded] = await from.load([{ key, elements: 'all' }]);
      assert.equal(loaded!.entries.size, all.size);
      assert.equal((await scanned(from, key, 500)).size, all.size);
    };
    let [commits, over] = [0, false];
    const grow = async (count: number) => {
      const entries = Array.from(
        { length: count },
        (_, i) => [b(`e${all.size + i}`), b(`at ${commits}`)] as const,
      );
      const expected = commits === 0 ? null : b(`h${commits}`);
      await store.commit({ writes: [write(key, { expected, header: b(`h${commits + 1}`), entries })] });
      commits += 1;
      for (const [element, entry] of entries) all.set(element, entry);
    };
    await grow(2000);
    const running = (async () => {
      while (!over) {
        await grow(30);
        await read(store);
      }
    })();
    try {
      await cluster.moveSlot(keySlot(key), one!, two!);
      const before = commits;
      await waitFor(() => commits > before + 5, { what: 'more commits', deadlineMs: 30_000 });
      await cluster.moveSlot(keySlot(key), two!, one!);
    } finally {
      over = true;
    }
    await running;
    t.diagnostic(`${commits} commits, ${all.size} entries`);
    const other = await opened();
    await read(other);
    assert.equal(await other.count(), 0);
    await store.commit({ writes: [write(key, { expected: b(`h${commits}`), header: null })] });
    assert.equal(await other.count(), 0);
    assert.deepEqual((await other.load([{ key, elements: 'all' }]))[0]!.entries, new Map());
  });

  it('refuses for a while, and writes nothing, when a move stands still, and serves what does not touch that slot', async () => {
    const [one, two] = cluster.servers;
    const [here, elsewhere] = [
      keys.find((key) => keySlot(key) < 5000)!,
      keys.find((key) => keySlot(key) > 6000)!,
    ];
    const counting = new Counting(await opened({ answerTimeoutMs: 300 }));
    await counting.count([here, elsewhere]);
    const slot = keySlot(here);
    const back = () => cluster.moveSlot(slot, two!, one!);
    endings.push(back);
    await cluster.moveSlot(slot, one!, two!, async () => {
      await assert.rejects(counting.count([here, elsewhere]), {
        code: 'STORE_REFUSED',
        message: /^TRYAGAIN /,
      });
      await counting.count([elsewhere]);
    });
    await counting.count([here, elsewhere]);
    await counting.check(counting.store);
  });
});

/** The slot in which a server keeps its facts. */
async function anchorOf(server: LaunchedValkey): Promise<number> {
  const client = cluster.admin(server);
  try {
    const found = (await client.keys('__mesh:{*}m')) as ByteString[];
    for (const key of found) if ((await client.hexists(key, 'retired')) === 0) return keySlot(key);
    throw new Error('there is none');
  } finally {
    client.disconnect();
  }
}

describe('The store on a cluster, when a writer ends in the middle of a commit,', () => {
  it('has each commit as a whole or not at all', async (t) => {
    let settled = 0;
    for (let round = 0; round < 8; round += 1) {
      const store = await opened();
      const before = (await store.load([{ key: keys[0]! }]))[0]!.header;
      const at = Number(before ?? 0);
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
      const [first, second] = [commit(at + 1), commit(at + 2)];
      const outcomes = Promise.allSettled([first, second]);
      // Ends somewhere between the first step and the last.
      if (round % 2 === 1) await first;
      for (let turn = 0; turn < round * 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await store.close();
      for (const outcome of await outcomes) if (outcome.status === 'fulfilled') settled += 1;
      const next = await opened();
      const loaded = await next.load(keys.map((key) => ({ key })));
      const headers = new Set(loaded.map(({ header }) => header));
      assert.equal(headers.size, 1, `round ${round}: ${[...headers].join()}`);
      const now = Number([...headers][0] ?? 0);
      assert.ok(now >= settled, 'what was acknowledged is there');
      const digests = [...(await next.digests()).values()];
      assert.equal(
        digests.reduce((sum, digest) => sum + digest, 0),
        now * KEYS,
      );
      assert.equal((await next.readFrames('me.1', 1, 1e6)).length, now);
      await next.close();
    }
    t.diagnostic(`${settled} of 16 commits were acknowledged`);
  });
});

describe('Two stores on one cluster', () => {
  it("hold each other's commits apart, and count each once", async (t) => {
    const stores = [await opened({ answerTimeoutMs: 30_000 }), await opened({ answerTimeoutMs: 30_000 })];
    let stale = 0;
    const some = keys.slice(0, 12);
    const writing = stores.map(async (store, at) => {
      for (let number = 1; number <= 40; ) {
        // Now one key, now some of several servers; often the same ones.
        const mine = number % 3 === 0 ? some.slice(at, at + 1) : some.slice(0, 4 + (number % 8));
        const loaded = await store.load(mine.map((key) => ({ key })));
        const writes = mine.map((key, i) => {
          const header = loaded[i]!.header;
          return write(key, { expected: header, header: b(String(Number(header ?? 0) + 1)), digest: 1 });
        });
        try {
          await store.commit({ writes, frame: frame(number, { replica: `me.${at}` }) });
          number += 1;
        } catch (error) {
          if ((error as { code?: string }).code !== 'STALE_COMMIT') throw error;
          stale += 1;
        }
      }
    });
    await Promise.all(writing);
    const expected = new Map<ByteString, number>();
    for (const at of [0, 1]) {
      for (let number = 1; number <= 40; number += 1) {
        const mine = number % 3 === 0 ? some.slice(at, at + 1) : some.slice(0, 4 + (number % 8));
        for (const key of mine) expected.set(key, (expected.get(key) ?? 0) + 1);
      }
    }
    const loaded = await stores[0]!.load(some.map((key) => ({ key })));
    for (const [i, key] of some.entries())
      assert.equal(Number(loaded[i]!.header ?? 0), expected.get(key) ?? 0, key);
    const digests = [...(await stores[1]!.digests()).values()];
    assert.equal(
      digests.reduce((sum, digest) => sum + digest, 0),
      [...expected.values()].reduce((sum, count) => sum + count, 0),
    );
    t.diagnostic(`${stale} commits were stale`);
  });
});
