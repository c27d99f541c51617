/**
 * What deleting many keys leaves behind, in three real regions: nothing, once every member knows. And what becomes of a region that
 * was away meanwhile, and of one that was forgotten. FORGET_KEYS=100000 deletes more. The figures are in the test's own output.
 */
import assert from 'node:assert/strict';
import { after, before, it, type TestContext } from 'node:test';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const KEYS = Number(process.env.FORGET_KEYS ?? 10_000);
const DEADLINE_MS = 180_000;
const BATCH = 1_000;

let regions: Regions;
before(async () => {
  regions = await Regions.start({ flags: ['--tombstone-grace', '1'] });
});
after(() => regions?.stop());

interface Usage {
  /** Keys of ours. */
  readonly reserved: number;
  /** All that the server uses. */
  readonly bytes: number;
}

async function usage({ native }: Region): Promise<Usage> {
  await native.call('MEMORY', 'PURGE');
  const info = await native.info('memory');
  const reserved = Number(await native.hget('__mesh:meta', 'reserved'));
  return { reserved, bytes: Number(/used_memory:(\d+)/.exec(info)![1]) };
}

function inBatches(run: (first: number, end: number) => Promise<unknown>): Promise<void> {
  return Array.from({ length: Math.ceil(KEYS / BATCH) }, (_, i) => i * BATCH).reduce(
    (before, first) => before.then(() => run(first, Math.min(KEYS, first + BATCH))).then(() => {}),
    Promise.resolve(),
  );
}

/** Four of five keys are strings, the others sets. */
async function fill(region: Region): Promise<void> {
  await inBatches((first, end) => {
    const pipeline = region.door.pipeline();
    for (let at = first; at < end; at += 1) {
      if (at % 5 === 4) pipeline.sadd(`gone:${at}`, 'a', 'b', `c${at}`);
      else pipeline.set(`gone:${at}`, `value ${at}`);
    }
    return pipeline.exec();
  });
}

async function empty(region: Region): Promise<void> {
  await inBatches((first, end) =>
    region.door.del(Array.from({ length: end - first }, (_, i) => `gone:${first + i}`)),
  );
}

/** Waits until a region holds no more than before. */
async function untilForgotten(t: TestContext, some: readonly Region[], was: readonly Usage[]): Promise<void> {
  const startedMs = performance.now();
  for (const [i, region] of some.entries()) {
    // The server keeps the buffers of busy clients for some seconds.
    const most = was[i]!.bytes * 1.05;
    await waitFor(
      async () => {
        const now = await usage(region);
        return now.reserved <= was[i]!.reserved + 1 && now.bytes <= most;
      },
      {
        deadlineMs: DEADLINE_MS,
        what: `${region.name} to hold ${most} bytes, as before, and nothing of deleted keys`,
      },
    );
  }
  const tookMs = Math.round(performance.now() - startedMs);
  for (const [i, region] of some.entries()) {
    const now = await usage(region);
    t.diagnostic(
      `${region.name}: ${now.bytes} bytes used, ${was[i]!.bytes} before; ${now.reserved} keys of ours; ${tookMs} ms after the regions were equal`,
    );
    assert.equal(await region.native.exists('gone:0', 'gone:4', `gone:${KEYS - 1}`), 0);
  }
}

it('deleting many keys leaves nothing once every region knows', async (t) => {
  const [a, b, c] = regions.all as [Region, Region, Region];
  // What a first use allocates belongs to the empty keyspace.
  await fill(a);
  await regions.synchronise();
  await empty(b);
  await regions.synchronise();
  await waitFor(async () => (await usage(c)).reserved < 20, {
    deadlineMs: DEADLINE_MS,
    what: 'a quiet start',
  });
  const was = await Promise.all(regions.all.map(usage));

  await fill(a);
  await regions.synchronise();
  for (const region of regions.all)
    t.diagnostic(`${region.name}: full, ${JSON.stringify(await usage(region))}`);
  await empty(b);
  await regions.synchronise();
  await untilForgotten(t, regions.all, was);
});

it('a region that was away does not bring deleted keys back, and holds forgetting up only until it returns', async (t) => {
  const [a, b, c] = regions.all as [Region, Region, Region];
  const was = await Promise.all(regions.all.map(usage));
  await fill(a);
  await regions.synchronise();
  await c.kill('SIGKILL');
  await empty(b);
  await waitFor(async () => (await a.native.exists('gone:0', `gone:${KEYS - 1}`)) === 0, {
    deadlineMs: DEADLINE_MS,
    what: 'the deletions in a',
  });
  assert.ok((await usage(a)).reserved > was[0]!.reserved + 100, 'what c has not seen deleted is remembered');
  await c.start();
  await regions.synchronise();
  await untilForgotten(t, regions.all, was);
});

it('a region that was forgotten begins anew when it returns, and brings nothing back', async (t) => {
  const [a, b, c] = regions.all as [Region, Region, Region];
  const was = await Promise.all(regions.all.map(usage));
  const { peerId } = await c.status();
  await a.door.set('kept', 'in all regions');
  await fill(a);
  await regions.synchronise();
  await c.kill('SIGKILL');
  await empty(b);
  await waitFor(
    async () => (await a.status()).peers.some((peer) => peer.peerId === peerId && !peer.connected),
    { deadlineMs: DEADLINE_MS, what: 'a to see that c is gone' },
  );
  await a.door.call('MESH', 'FORGET', peerId);
  await untilForgotten(
    t,
    [a, b],
    was.slice(0, 2).map((usage) => ({ ...usage, reserved: usage.reserved + 1 })),
  );
  assert.equal(await c.native.get('gone:0'), 'value 0', 'it still has them');
  await c.start();
  await waitFor(async () => /data is dropped/.test(c.log) && (await c.status()).state === 'ready', {
    deadlineMs: DEADLINE_MS,
    what: 'c to begin anew',
  });
  await regions.synchronise();
  assert.equal(await c.native.get('kept'), 'in all regions');
  for (const region of regions.all) assert.equal(await region.native.exists('gone:0', `gone:${KEYS - 1}`), 0);
});
