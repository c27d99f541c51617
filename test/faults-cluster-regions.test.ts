/**
 * A region on a Valkey Cluster of three primaries, one of which has a replica, beside a region on a single server, while both write: slots move,
 * a primary is killed and its replica takes over, the node is killed and started again. Nothing acknowledged is lost, not even
 * what Valkey lost, and nothing counts twice.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { keySlot } from '../src/store/slots.js';
import type { LaunchedValkey } from '../src/valkey-server/launch.js';
import { ValkeyCluster } from './support/cluster.js';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;

/** What a client may be told meanwhile: unknown outcome, no store, or a plain refusal. */
const CLEAR = /^(STOREDOWN|MASTERDOWN|READONLY|LOADING|EXECABORT|TRYAGAIN|CLUSTERDOWN) /;

let cluster: ValkeyCluster;
let regions: Regions;
let a: Region;
let b: Region;

before(async () => {
  cluster = await ValkeyCluster.start({ replicas: 1 });
  regions = await Regions.start({ count: 2, stores: [cluster] });
  [a, b] = regions.all as [Region, Region];
});
after(async () => {
  await regions?.stop();
  await cluster?.stop();
});
afterEach(() => regions.heal());

/** A ledger that counts on the first server, the one with a replica, and notes on another one. */
function ledgerOfTwo(name: string): Ledger {
  return ledgerIn(name, [0, 5000], [6000, 16383]);
}

/** A ledger whose count and whose notes are in slots of these ranges. */
function ledgerIn(name: string, count: [number, number], entries: [number, number]): Ledger {
  const within = (key: string, [from, to]: [number, number]) => {
    const slot = keySlot(key as ByteString);
    return slot >= from && slot <= to;
  };
  for (let i = 0; ; i += 1) {
    const full = `${name} ${i}`;
    if (within(`${full} count`, count) && within(`${full} entries`, entries)) return new Ledger(full);
  }
}

/** Waits until a replica has become a primary. */
const takesOver = (replica: LaunchedValkey) =>
  waitFor(() => cluster.isPrimary(replica), { deadlineMs: DEADLINE_MS, what: 'the replica takes over' });

const ready = () =>
  waitFor(async () => (await a.status()).state === 'ready', {
    deadlineMs: DEADLINE_MS,
    what: 'the node is ready',
  });

/** Writes in both regions while something happens; then checks that nothing is lost, and that both are equal. */
async function whileWriting(ledger: Ledger, happens: () => Promise<void>): Promise<void> {
  let over = false;
  const writing = [a, b].map((region) => ledger.writeUntil(() => over, region.door, 20));
  try {
    await ledger.grows(200);
    await happens();
    await ready();
    await ledger.grows(200);
  } finally {
    over = true;
    await Promise.all(writing);
  }
  for (const message of ledger.errors.keys()) assert.match(message, CLEAR);
  await regions.synchronise();
  await ledger.check(regions);
}

describe('A region on a cluster', () => {
  it('goes on while slots are moved, and tells no client of it', async (t) => {
    const ledger = new Ledger('moved slots');
    const [one, two] = cluster.servers;
    await whileWriting(ledger, async () => {
      await cluster.reshard(one!, two!, 60);
      await cluster.reshard(two!, one!, 60);
    });
    t.diagnostic(`${ledger.acknowledged.size} entries`);
    assert.deepEqual([...ledger.errors.keys()], []);
  });

  it('serves scans, counts and verification over all servers', async () => {
    await Promise.all(Array.from({ length: 60 }, (_, i) => a.door.set(`scanned:${i}`, 'v')));
    await regions.synchronise();
    assert.equal((await a.door.keys('scanned:*')).length, 60);
    const found = new Set<string>();
    let cursor = '0';
    do {
      const page = await a.door.scan(cursor, 'MATCH', 'scanned:*', 'COUNT', 10);
      cursor = page[0];
      for (const key of page[1]) found.add(key);
    } while (cursor !== '0');
    assert.equal(found.size, 60);
    assert.equal(await a.door.dbsize(), await b.door.dbsize());
    const report = (await b.door.call('MESH', 'VERIFY', 'DEEP')) as unknown[];
    assert.equal(report[report.indexOf('outcome') + 1], 'identical', report.join(' '));
  });

  it('is started again after a clean end and after kill -9, and has everything', async () => {
    const ledger = new Ledger('restarts');
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      let over = false;
      const writing = ledger.writeUntil(() => over, a.door, 20);
      await ledger.grows(100);
      await a.kill(signal);
      over = true;
      await writing;
      await a.start();
      await regions.connected();
    }
    await ledger.write(a.door, 20);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('goes on with the replica of a killed primary, and has what that one never got', async (t) => {
    const ledger = ledgerOfTwo('killed primary');
    const { primary, replica } = await cluster.roles();
    const start = performance.now();
    await whileWriting(ledger, async () => {
      await primary.kill('SIGKILL');
      await takesOver(replica);
    });
    t.diagnostic(`${Math.round(performance.now() - start)} ms, ${ledger.acknowledged.size} entries`);
    await primary.restart();
    await cluster.settled();
    await ledger.write(a.door, 50);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('has what the new primary never got, from the memory of its node and from the other region', async () => {
    const { primary, replica } = await cluster.roles();
    const ledger = ledgerOfTwo('lost tail');
    await ledger.write(a.door, 100);
    await regions.synchronise();
    const { replica: epoch } = await a.status();
    await replica.kill('SIGKILL');
    // Acknowledged by the primary alone; and of the second half nobody else hears.
    assert.equal(await ledger.write(a.door, 50), 50);
    regions.cut(a);
    assert.equal(await ledger.write(a.door, 50), 50);
    await primary.kill('SIGKILL');
    await replica.restart();
    await takesOver(replica);
    await waitFor(
      async () => {
        const status = await a.status();
        return status.state === 'ready' && status.replica !== epoch;
      },
      { deadlineMs: DEADLINE_MS, what: 'a new epoch begins' },
    );
    assert.equal(await ledger.write(a.door, 50), 50);
    regions.heal();
    await regions.synchronise();
    await ledger.check(regions);
    await primary.restart();
    // It comes back as what it was, until it hears that it isn't any more.
    await waitFor(async () => !(await cluster.isPrimary(primary)), {
      deadlineMs: DEADLINE_MS,
      what: 'the old primary is a replica',
    });
    await cluster.settled();
  });

  it("loses nothing when a primary is killed in the middle of a slot's move from it, and the move goes on afterwards", async (t) => {
    const { primary, replica } = await cluster.roles();
    const second = cluster.servers[1]!;
    // Each entry touches the slot that moves, and one of the third server.
    const ledger = ledgerIn('moved', [0, 5000], [11_500, 16_383]);
    const slot = keySlot(`${ledger.name} count` as ByteString);
    const start = performance.now();
    await whileWriting(ledger, async () => {
      await cluster.beginMove(slot, primary, second, 1);
      await primary.kill('SIGKILL');
      await takesOver(replica);
      await cluster.beginMove(slot, replica, second);
      await cluster.endMove(slot, replica, second);
    });
    t.diagnostic(
      `${Math.round(performance.now() - start)} ms, ${ledger.acknowledged.size} entries, ${[...ledger.errors.keys()].join()}`,
    );
    await ledger.write(a.door, 20);
    await regions.synchronise();
    await ledger.check(regions);
  });
});
