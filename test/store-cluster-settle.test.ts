/** How a store on a cluster settles a commit that it finds prepared: also when a failover has brought it back, and lost how it ended. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Redis } from 'ioredis';
import type { ByteString } from '../crdts/bytes.js';
import { slotTags } from '../src/store/slots.js';
import { ValkeyClusterStore } from '../src/store/valkey-cluster.js';
import { ValkeyCluster } from './support/cluster.js';
import { b, frame, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

let cluster: ValkeyCluster;
const endings: (() => Promise<unknown> | unknown)[] = [];

before(async () => {
  cluster = await ValkeyCluster.start({ appendonly: false });
});
after(() => cluster?.stop());
beforeEach(() => cluster.flush());
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function opened(): Promise<ValkeyClusterStore> {
  const store = new ValkeyClusterStore(cluster.url);
  endings.push(() => store.close());
  await store.open();
  return store;
}

/** One key for each server. */
const [one, two, three] = [100, 6000, 12_000].map((slot) => b(`{${slotTags()[slot]}}`)) as [
  ByteString,
  ByteString,
  ByteString,
];

/** What a server's part holds while something is prepared there: its lock, and what it kept, as DUMP gives it. */
interface Prepared {
  readonly meta: string;
  readonly lock: Buffer;
  readonly pending: Buffer;
}

/** Catches what the first server keeps while a commit is refused that stands in the way of nobody there. */
async function caught(store: ValkeyClusterStore, admin: Redis): Promise<Prepared> {
  const [meta = ''] = await admin.keys('__mesh:{*}m');
  const found: Prepared[] = [];
  let over = false;
  const watching = (async () => {
    while (!over) {
      const [lock, pending] = await Promise.all([
        admin.hgetBuffer(meta, 'lock'),
        admin.dumpBuffer(`${meta}:p`),
      ]);
      if (lock !== null && pending !== null) found.push({ meta, lock, pending });
    }
  })();
  try {
    for (let tries = 0; found.length === 0 && tries < 500; tries += 1) {
      // Refused, because the second server has nothing there.
      const writes = [write(one, { header: b('refused') }), write(two, { expected: b('nothing') })];
      await assert.rejects(store.commit({ writes }), { code: 'STALE_COMMIT' });
    }
  } finally {
    over = true;
    await watching;
  }
  assert.ok(found.length > 0, 'it was seen while it was prepared');
  return found.at(-1)!;
}

describe('A commit that is found prepared,', () => {
  for (const [title, later] of [
    ['and a later one on a server of it', [two]],
    ['and a later one on another server', [three]],
    ['and later ones everywhere', [one, two, three]],
  ] as const) {
    it(`is not written when it was refused, ${title}`, async () => {
      const admin = cluster.admin(cluster.servers[0]!);
      endings.push(() => admin.disconnect());
      const store = await opened();
      await store.commit({ writes: [write(three, { header: b('first') })], frame: frame(1) });
      const { meta, lock, pending } = await caught(store, admin);
      let number = 1;
      for (const key of later) {
        number += 1;
        const expected = key === three ? b('first') : null;
        await store.commit({ writes: [write(key, { expected, header: b('later') })], frame: frame(number) });
      }
      await store.close();
      // As after a failover to a copy that has the first step of it, and not how it ended.
      if (later.length === 3) await admin.hdel(`__mesh:${/\{.*\}/.exec(one)}h`, one);
      await admin.restore(`${meta}:p`, 0, pending, 'REPLACE');
      await admin.hset(meta, 'lock', lock);
      const next = await opened();
      const [loaded] = await next.load([{ key: one }]);
      assert.equal(loaded!.header, null);
      await waitFor(async () => (await admin.hexists(meta, 'lock')) === 0, { what: 'the lock is gone' });
      assert.equal(await admin.exists(`${meta}:p`), 0);
    });
  }
});
