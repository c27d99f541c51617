/**
 * A region whose Valkey fails over under Sentinel while every region writes: its node goes on with the new primary by itself,
 * nothing acknowledged is lost, not even what Valkey lost, and nothing counts twice.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { ValkeyStore } from '../src/store/valkey.js';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { SentinelGroup } from './support/sentinels.js';
import { b, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;

/** What a client may be told while the primary changes: unknown outcome, no store, or a plain refusal. */
const CLEAR = /^(STOREDOWN|MASTERDOWN|READONLY|LOADING|EXECABORT) /;

let group: SentinelGroup;
let regions: Regions;
let a: Region;
let b2: Region;

before(async () => {
  group = await SentinelGroup.start();
  regions = await Regions.start({ count: 2, stores: [group] });
  [a, b2] = regions.all as [Region, Region];
});
after(async () => {
  await regions?.stop();
  await group?.stop();
});
afterEach(() => regions.heal());

/** Says which server the node of region a is connected with. */
async function servedBy(): Promise<unknown> {
  return (await a.status()).store.address;
}

/** Writes in two regions while `failover` happens, until both are written to again; then checks that nothing is lost. */
async function whileWriting(ledger: Ledger, failover: () => Promise<void>): Promise<void> {
  let over = false;
  const writing = [a, b2].map((region) => ledger.writeUntil(() => over, region.door, 20));
  try {
    await ledger.grows(300);
    await failover();
    const { primary } = await group.roles();
    await waitFor(async () => (await servedBy()) === `127.0.0.1:${primary.port}`, {
      deadlineMs: DEADLINE_MS,
      what: 'the node uses the new primary',
    });
    await waitFor(async () => (await a.status()).state === 'ready', { deadlineMs: DEADLINE_MS });
    await ledger.grows(300);
  } finally {
    over = true;
    await Promise.all(writing);
  }
  for (const message of ledger.errors.keys()) assert.match(message, CLEAR);
  await regions.synchronise();
  await ledger.check(regions);
}

describe('A region under Sentinel', () => {
  it('has what the new primary never got, from the memory of its node and from the others', async () => {
    const ledger = new Ledger('lost tail');
    await ledger.write(a.door, 100);
    await regions.synchronise();
    const { primary, other } = await group.roles();
    const { replica } = await a.status();
    await other.kill('SIGKILL');
    // Acknowledged by the primary alone; and of the second half nobody else hears.
    assert.equal(await ledger.write(a.door, 50), 50);
    regions.cut(a);
    assert.equal(await ledger.write(a.door, 50), 50);
    await primary.kill('SIGKILL');
    await other.restart();
    await group.failedOver(primary);
    await waitFor(
      async () => {
        const status = await a.status();
        return status.state === 'ready' && status.replica !== replica;
      },
      { deadlineMs: DEADLINE_MS, what: 'a new epoch begins' },
    );
    assert.equal(await ledger.write(a.door, 50), 50);
    regions.heal();
    await primary.restart();
    await regions.synchronise();
    await ledger.check(regions);
    await group.settled();
  });

  it('leaves the old primary at once when it is changed in good order, though that one still takes writes', async (t) => {
    const ledger = new Ledger('switch over');
    const { primary } = await group.roles();
    let waited = 0;
    await whileWriting(ledger, async () => {
      await group.switchOver();
      await group.failedOver(primary);
      const start = performance.now();
      await waitFor(async () => (await servedBy()) !== `127.0.0.1:${primary.port}`, {
        deadlineMs: DEADLINE_MS,
      });
      waited = performance.now() - start;
    });
    t.diagnostic(`${Math.round(waited)} ms after the sentinels, ${ledger.acknowledged.size} entries`);
    await group.settled();
  });

  it('goes on with the new primary when the old one is killed in the middle of writing, and when it comes back as a replica', async (t) => {
    const ledger = new Ledger('killed primary');
    const { pid } = a;
    const { primary } = await group.roles();
    const start = performance.now();
    await whileWriting(ledger, async () => {
      await primary.kill('SIGKILL');
      await group.failedOver(primary);
    });
    t.diagnostic(`${Math.round(performance.now() - start)} ms, ${ledger.acknowledged.size} entries`);
    await primary.restart();
    await group.settled();
    assert.notEqual((await group.roles()).primary, primary);
    assert.equal(await ledger.write(a.door, 50), 50);
    assert.notEqual(await servedBy(), `127.0.0.1:${primary.port}`);
    assert.equal(a.pid, pid, 'without a restart');
    await regions.synchronise();
    await ledger.check(regions);
  });
});

describe('The store under Sentinel', () => {
  it('needs one sentinel that answers, and says what is wrong when there is none, or when it does not know the name', async () => {
    const ports = group.sentinels.map(({ port }) => port);
    const port = ports[0]!;
    const stores: ValkeyStore[] = [];
    const storeAt = (url: string) => {
      const store = new ValkeyStore(url, { answerTimeoutMs: 1000 });
      stores.push(store);
      return store;
    };
    try {
      await storeAt(`redis+sentinel://127.0.0.1:1,127.0.0.1:${port}/main`).open();
      await assert.rejects(storeAt(`redis+sentinel://127.0.0.1:${port}/other`).open(), {
        code: 'CONFIG',
        message: /knows no primary named other/,
      });
      await assert.rejects(storeAt('redis+sentinel://127.0.0.1:1/main').open(), {
        code: 'STORE_UNAVAILABLE',
        message: /no sentinel answers: 127\.0\.0\.1:1: .*ECONNREFUSED/,
      });
      const login = `redis+sentinel://127.0.0.1:${port}/main?sentinel-username=u&sentinel-password=s3cret`;
      await assert.rejects(storeAt(login).open(), {
        code: 'CONFIG',
        message: /sentinel at 127.*refused the login.*check sentinel-username/,
      });
      const asObject = new ValkeyStore({ sentinels: [{ host: '127.0.0.1', port }], name: 'main', db: 1 });
      stores.push(asObject);
      await asObject.open();
      await asObject.commit({ writes: [write('k', { native: { kind: 'string', value: b('v') } })] });
    } finally {
      for (const store of stores) await store.close();
    }
  });
});
