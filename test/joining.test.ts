/** Empty and lost regions are brought up to the others: real peers beside real Valkeys. On virtual time: loading.test.ts. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const KEYS = 4_000;
const DEADLINE_MS = 60_000;

const isReady = async (region: Region): Promise<boolean> => (await region.status()).state === 'ready';

/** The reply of a command, or the first word of the error. */
const wordOf = async (reply: Promise<unknown>): Promise<unknown> =>
  reply.catch((error: Error) => error.message.split(' ')[0]);

/** Writes one counter step after another until it is stopped, whatever comes; counts those that were acknowledged. */
class Steps {
  acknowledged = 0;
  readonly refused = new Set<unknown>();
  readonly #region: Region;
  readonly #key: string;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(region: Region, key: string) {
    this.#region = region;
    this.#key = key;
    this.#done = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const reply = await wordOf(this.#region.door.incr(this.#key));
      if (typeof reply === 'number') this.acknowledged += 1;
      else this.refused.add(reply);
      // A steady rate, not all that the machine can do.
      await new Promise<void>((resolve) => setTimeout(resolve, 5));
    }
  }
}

describe('an empty region beside two that hold data', () => {
  let regions: Regions;
  let eu: Region;
  let us: Region;
  let ap: Region;

  before(async () => {
    regions = await Regions.start({ late: 1, appendonly: false });
    [eu, us, ap] = regions.all as [Region, Region, Region];
    for (let from = 0; from < KEYS; from += 500) {
      const pipeline = eu.door.pipeline();
      for (let i = from; i < from + 500; i += 1) pipeline.set(`key:${i}`, 'x'.repeat(100));
      await pipeline.exec();
    }
  });
  after(() => regions?.stop());

  it('joins while all take writes: LOADING until it has caught up, then it serves; all are equal at the end', async () => {
    regions.cut(ap);
    await ap.start();
    assert.equal(await wordOf(ap.door.get('key:0')), 'LOADING');
    assert.deepEqual([await ap.http('/healthz'), await ap.http('/readyz')], [200, 503]);
    assert.equal((await ap.status()).state, 'loading');
    const writers = [new Steps(eu, 'n'), new Steps(us, 'n'), new Steps(ap, 'n')];
    regions.heal();
    await waitFor(() => isReady(ap), { deadlineMs: DEADLINE_MS, what: 'ap is ready' });
    assert.equal(await ap.http('/readyz'), 200);
    assert.deepEqual((await ap.door.get(`key:${KEYS - 1}`))?.length, 100);
    await waitFor(() => writers[2]!.acknowledged > 0, { what: 'ap takes writes' });
    for (const writer of writers) await writer.stop();
    assert.deepEqual([...writers[2]!.refused], ['LOADING']);
    assert.deepEqual([...writers[0]!.refused, ...writers[1]!.refused], []);
    await regions.synchronise();
    const sum = writers.reduce((total, { acknowledged }) => total + acknowledged, 0);
    assert.equal(await ap.door.get('n'), String(sum));
    assert.match(ap.log, /caught up with the other members/);
  });

  it('is filled again when its Valkey loses everything while it runs', async () => {
    await ap.valkey.kill('SIGKILL');
    const writers = [new Steps(eu, 'm'), new Steps(us, 'm')];
    await ap.valkey.restart();
    await waitFor(async () => (await wordOf(ap.door.get('key:1'))) === 'x'.repeat(100), {
      deadlineMs: DEADLINE_MS,
      what: 'ap serves again',
    });
    for (const writer of writers) await writer.stop();
    await regions.synchronise();
    assert.match(ap.log, /nothing is in the store/);
    assert.equal(await ap.native.get('key:2'), 'x'.repeat(100));
  });

  it('goes on with another giver when the one that gives is killed', async () => {
    await ap.kill('SIGKILL');
    await ap.native.flushall();
    await ap.start();
    let giver: Region | undefined;
    // It may be too fast to be seen: then someone is killed who has given.
    await waitFor(
      async () => {
        const { loading, state } = await ap.status();
        giver = regions.all.find(({ name }) => name === loading?.region);
        return giver !== undefined || state === 'ready';
      },
      { deadlineMs: DEADLINE_MS, what: 'somebody gives' },
    );
    giver ??= eu;
    await giver.kill('SIGKILL');
    await waitFor(() => isReady(ap), { deadlineMs: DEADLINE_MS, what: 'ap is ready without its giver' });
    assert.equal(await ap.door.get(`key:${KEYS - 1}`), 'x'.repeat(100));
    await giver.start();
    await regions.connected();
    await regions.synchronise();
  });

  it('takes writes and gives stale reads meanwhile when told to serve', async () => {
    await ap.kill('SIGKILL');
    await ap.native.flushall();
    regions.cut(ap);
    await ap.start(['--while-loading', 'serve']);
    assert.deepEqual([await ap.door.incr('served'), await ap.door.get('key:0')], [1, null]);
    assert.deepEqual([(await ap.status()).state, await ap.http('/readyz')], ['loading', 503]);
    regions.heal();
    await waitFor(() => isReady(ap), { deadlineMs: DEADLINE_MS, what: 'ap is ready' });
    await regions.synchronise();
    assert.deepEqual([await ap.door.get('key:0'), await eu.door.get('served')], ['x'.repeat(100), '1']);
  });

  it('serves what it has when nobody can be reached for as long as its patience', async () => {
    await ap.kill('SIGKILL');
    await ap.native.flushall();
    regions.cut(ap);
    await ap.start(['--loading-patience', '0.5']);
    await waitFor(async () => (await wordOf(ap.door.set('alone', '1'))) === 'OK', {
      deadlineMs: DEADLINE_MS,
      what: 'ap gives up',
    });
    assert.match(ap.log, /loading is given up/);
  });
});

it('three empty regions that start at once are ready as soon as they have met', async () => {
  const regions = await Regions.start({ appendonly: false });
  try {
    for (const region of regions.all) {
      const end = /"outcome":"([a-z ]+)".*"tookMs":(\d+)/.exec(region.log);
      assert.equal(end?.[1], 'nothing there', region.log);
      assert.equal(await region.door.set(`from ${region.name}`, 'v'), 'OK');
    }
    await regions.synchronise();
  } finally {
    await regions.stop();
  }
});
