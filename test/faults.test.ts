/**
 * What breaks in production, on real processes: peers and Valkeys that are killed, frozen or wiped in the middle of
 * writing. Whatever it is: nothing acknowledged is lost, nothing counts twice, and the regions are equal again.
 */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { LaunchedValkey } from '../src/valkey-server/launch.js';
import { Ledger } from './support/ledger.js';
import { runCli } from './support/process.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;

let regions: Regions;
let a: Region;
let b: Region;
let c: Region;

before(async () => {
  regions = await Regions.start({ valkeyArgs: ['--appendfsync', 'always'] });
  [a, b, c] = regions.all as [Region, Region, Region];
});
after(() => regions?.stop());
afterEach(() => regions.heal());

/** Waits until a region's node says that it serves, or that it can't. */
async function isIn(state: 'ready' | 'store-unavailable', region: Region): Promise<void> {
  await waitFor(async () => (await region.status()).state === state, {
    deadlineMs: DEADLINE_MS,
    what: `${region.name} is ${state}`,
  });
}

/** Waits until a region's node serves under another replica id than before. */
/** Waits until a region that lost its data has caught up, and serves. */
async function serves(region: Region): Promise<void> {
  await waitFor(async () => (await region.status()).state === 'ready', {
    deadlineMs: DEADLINE_MS,
    what: `${region.name} to be loaded`,
  });
}

async function hasNewEpoch(region: Region, before: string): Promise<void> {
  await waitFor(
    async () => {
      const { state, replica } = await region.status();
      return (state === 'ready' || state === 'loading') && replica !== before;
    },
    { deadlineMs: DEADLINE_MS, what: `${region.name} begins a new epoch` },
  );
}

/** Removes the data of a Valkey that is not running. */
async function wipe(valkey: LaunchedValkey): Promise<void> {
  for (const name of await readdir(valkey.dir)) {
    if (name !== 'valkey.log') await rm(join(valkey.dir, name), { recursive: true });
  }
}

describe('A peer that is killed', () => {
  it('between two writes keeps what it acknowledged, though nobody else had heard of it', async () => {
    await a.door.set('between', 'before');
    await a.door.incr('between count');
    await regions.synchronise();
    regions.cut(a);
    await a.door.set('between', 'acknowledged');
    await a.door.incrby('between count', 10);
    await a.door.sadd('between set', 'acknowledged');
    await a.kill('SIGKILL');
    await b.door.incrby('between count', 100);
    regions.heal();
    await a.start();
    await a.door.incrby('between count', 1000);
    await regions.synchronise();
    for (const { name, native } of regions.all) {
      assert.equal(await native.get('between'), 'acknowledged', name);
      assert.equal(await native.get('between count'), '1111', name);
      assert.deepEqual(await native.smembers('between set'), ['acknowledged'], name);
    }
  });

  it('in mid-pipeline loses nothing that it acknowledged, and nothing counts twice', async (t) => {
    const ledger = new Ledger('mid-pipeline');
    for (let round = 0; round < 2; round += 1) {
      const writing = ledger.writeUntil(() => false, a.connect(), 500);
      const others = [b, c].map((region) => ledger.write(region.door, 200));
      await ledger.grows(800);
      await a.kill('SIGKILL');
      await Promise.all([writing, ...others]);
      await a.start();
    }
    await regions.synchronise();
    await ledger.check(regions);
    ledger.checkErrors();
    t.diagnostic(`${ledger.acknowledged.size} of ${ledger.attempted} entries acknowledged`);
    assert(ledger.acknowledged.size < ledger.attempted, 'it was killed while entries were under way');
  });

  it('together with its Valkey, as when a machine dies, comes back with what it acknowledged', async () => {
    const ledger = new Ledger('machine');
    const writing = ledger.writeUntil(() => false, a.connect());
    await ledger.grows(300);
    await Promise.all([a.valkey.kill('SIGKILL'), a.kill('SIGKILL')]);
    await writing;
    await a.valkey.restart();
    await a.start();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('while it catches up on what others write catches up after the next start', async () => {
    const ledger = new Ledger('catching up');
    let over = false;
    const writing = [a, b].map((region) => ledger.writeUntil(() => over, region.door, 10));
    for (let round = 0; round < 2; round += 1) {
      await c.kill('SIGKILL');
      await ledger.grows(500);
      await c.start();
      await ledger.grows(100);
    }
    over = true;
    await Promise.all(writing);
    await regions.synchronise();
    await ledger.check(regions);
    assert.deepEqual([...ledger.errors], []);
  });
});

describe('A Valkey', () => {
  it('that is killed while it is written to: clear errors, and its peer goes on without a restart', async () => {
    const ledger = new Ledger('killed');
    const { pid } = a;
    let over = false;
    const writing = ledger.writeUntil(() => over, a.door);
    await ledger.grows(300);
    await a.valkey.kill('SIGKILL');
    await isIn('store-unavailable', a);
    // Refused before anything is tried, so these fail at once.
    await waitFor(() => ledger.errors.size > 0, { what: 'clients get errors' });
    await a.valkey.restart();
    await isIn('ready', a);
    await ledger.grows(300);
    over = true;
    await writing;
    await regions.synchronise();
    await ledger.check(regions);
    ledger.checkErrors();
    assert.equal(a.pid, pid);
  });

  it('that loses the connection of its peer again and again in mid-batch commits each batch once', async () => {
    const ledger = new Ledger('client kill');
    let over = false;
    const writing = ledger.writeUntil(() => over, a.door, 200);
    let killed = 0;
    while (killed < 15) {
      await ledger.grows(100);
      killed += Number(await a.native.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'));
    }
    over = true;
    await writing;
    await regions.synchronise();
    await ledger.check(regions);
    assert.deepEqual([...ledger.errors], [], 'the peer finds out what took effect, so nobody is bothered');
  });

  it('that stands still acknowledges nothing; clients get a clear error, and it goes on where it stood', async () => {
    const ledger = new Ledger('frozen');
    await ledger.write(a.door, 50);
    await a.valkey.kill('SIGSTOP');
    try {
      const during = ledger.write(a.connect(), 200);
      await isIn('store-unavailable', a);
      assert.equal(await during, 0, 'nothing is acknowledged meanwhile');
      ledger.checkErrors();
      assert(ledger.errors.size > 0);
      await assert.rejects(a.door.get('frozen count'), /MASTERDOWN/);
      assert.equal(await ledger.write(b.door, 50), 50, 'the other regions go on');
    } finally {
      await a.valkey.kill('SIGCONT');
    }
    await isIn('ready', a);
    assert.equal(await ledger.write(a.door, 50), 50);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that stands still for a moment delays writes, and fails none', async () => {
    const ledger = new Ledger('slow');
    await a.valkey.kill('SIGSTOP');
    // More than come in one piece: two commits may be under way, and the rest waits.
    const writing = ledger.write(a.door, 2_000);
    await waitFor(async () => (await a.status()).queue.operations > 0, { what: 'operations wait' }).finally(
      () => a.valkey.kill('SIGCONT'),
    );
    assert.equal(await writing, 2_000);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that comes back empty gets its data from the other regions, and its peer begins a new epoch', async () => {
    const ledger = new Ledger('emptied');
    await ledger.write(a.door, 100);
    await ledger.write(b.door, 100);
    await regions.synchronise();
    const { replica } = await a.status();
    await a.valkey.kill('SIGKILL');
    await wipe(a.valkey);
    await a.valkey.restart();
    // Nobody writes, so the peer has to look by itself.
    await hasNewEpoch(a, replica);
    await serves(a);
    assert.equal(await ledger.write(a.door, 50), 50);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that comes back empty has what only its own peer knew, from the peer’s memory', async () => {
    const ledger = new Ledger('from memory');
    regions.cut(a);
    await ledger.write(a.door, 100);
    const { replica } = await a.status();
    await a.valkey.kill('SIGKILL');
    await wipe(a.valkey);
    await a.valkey.restart();
    await hasNewEpoch(a, replica);
    regions.heal();
    await serves(a);
    await regions.synchronise();
    await ledger.check(regions);
    assert.equal(ledger.acknowledged.size, 100);
  });

  it('that is empty when its peer starts gets everything from the other regions', async () => {
    const ledger = new Ledger('new machine');
    await ledger.write(a.door, 100);
    await regions.synchronise();
    await Promise.all([a.kill('SIGKILL'), a.valkey.kill('SIGKILL')]);
    await wipe(a.valkey);
    await ledger.write(b.door, 100);
    await a.valkey.restart();
    await a.start();
    await serves(a);
    assert.equal(await ledger.write(a.door, 50), 50);
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that was restored from a backup repeats no count and no frame', async (t) => {
    const ledger = new Ledger('backup');
    await ledger.write(a.door, 100);
    await regions.synchronise();
    const backup = await mkdtemp(join(tmpdir(), 'valkey-mesh-backup-'));
    t.after(() => rm(backup, { recursive: true, force: true }));
    // A backup of a region that was shut down cleanly: it says so of itself for ever.
    await a.kill('SIGTERM');
    await a.valkey.kill('SIGTERM');
    await cp(a.valkey.dir, backup, { recursive: true });
    await a.valkey.restart();
    await a.start();
    await ledger.write(a.door, 100);
    await regions.synchronise();
    await a.kill('SIGTERM');
    await a.valkey.kill('SIGTERM');
    await wipe(a.valkey);
    await cp(backup, a.valkey.dir, { recursive: true });
    await a.valkey.restart();
    regions.cut(a);
    await a.start();
    assert.equal(await ledger.write(a.door, 30), 30);
    regions.heal();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that falls back to an older copy under a running peer gets the lost tail back, and counts it once', async (t) => {
    const ledger = new Ledger('failover');
    await ledger.write(a.door, 50);
    await regions.synchronise();
    const copy = await mkdtemp(join(tmpdir(), 'valkey-mesh-copy-'));
    t.after(() => rm(copy, { recursive: true, force: true }));
    await a.valkey.kill('SIGKILL');
    await cp(a.valkey.dir, copy, { recursive: true });
    await a.valkey.restart();
    await waitFor(async () => (await ledger.write(a.door, 10)) === 10, { deadlineMs: DEADLINE_MS });
    await ledger.write(b.door, 50);
    await regions.synchronise();
    // And some that nobody else has heard of.
    regions.cut(a);
    await ledger.write(a.door, 50);
    const { replica } = await a.status();
    await a.valkey.kill('SIGKILL');
    await wipe(a.valkey);
    await cp(copy, a.valkey.dir, { recursive: true });
    await a.valkey.restart();
    await hasNewEpoch(a, replica);
    await serves(a);
    assert.equal(await ledger.write(a.door, 20), 20);
    regions.heal();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('that stands still when a peer starts: exit code 1, and a message that says where', async () => {
    await a.valkey.kill('SIGSTOP');
    try {
      const failed = await runCli([
        'peer',
        '--region',
        'eu',
        '--resp',
        '127.0.0.1:0',
        '--store',
        a.valkey.url,
      ]);
      assert.equal(failed.code, 1, failed.stderr);
      assert.match(failed.stderr, new RegExp(`^valkey-mesh: .*127.0.0.1:${a.valkey.port}`, 'm'));
    } finally {
      await a.valkey.kill('SIGCONT');
    }
    await isIn('ready', a);
    // The peer that ran all the while may still have to find out that its Valkey is back.
    const writes = () =>
      a.door.set('back', 'v').then(
        () => true,
        () => false,
      );
    await waitFor(writes, { deadlineMs: DEADLINE_MS, what: 'the region takes writes again' });
    await regions.synchronise();
  });
});

describe('Everything at once', () => {
  it('a power cut in every region, in the middle of writing, loses nothing acknowledged', async () => {
    const ledger = new Ledger('power cut');
    const writing = regions.all.map((region) => ledger.writeUntil(() => false, region.connect()));
    await ledger.grows(1_000);
    await Promise.all(
      regions.all.flatMap((region) => [region.valkey.kill('SIGKILL'), region.kill('SIGKILL')]),
    );
    await Promise.all(writing);
    await Promise.all(regions.all.map((region) => region.valkey.restart()));
    await Promise.all(regions.all.map((region) => region.start()));
    await regions.connected();
    await regions.synchronise();
    await ledger.check(regions);
  });
});
