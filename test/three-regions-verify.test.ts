/** Verification of three real peers with three real Valkeys: under load, with what someone did past a node, and with a region away. */
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { keySlot, slotTags } from '../src/store/slots.js';
import type { VerifyOptions, VerifyReport } from '../src/verify/report.js';
import { runCli } from './support/process.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

/** Writes per second over all regions, and how many may be under way: a machine that is too slow for the rate gets fewer. */
const RATE = 1_000;
const MAX_PENDING = 300;
const TICK_MS = 10;

let regions: Regions;
before(async () => {
  regions = await Regions.start();
});
after(() => regions?.stop());

async function verify(region: Region, options: VerifyOptions = {}): Promise<VerifyReport> {
  const answer = await fetch(`${region.url}/api/verify`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(options),
  });
  return (await answer.json()) as VerifyReport;
}

const shown = (report: VerifyReport): string => JSON.stringify(report, null, 1);

/** Writes strings, counters and sets in every region until it is stopped; tells how many, and the longest time that one took. */
function load(): { stop(): Promise<{ written: number; longestMs: number; ms: number }> } {
  const startedMs = performance.now();
  const pending = new Set<Promise<unknown>>();
  let [at, skipped, written, longestMs] = [0, 0, 0, 0];
  const timer = setInterval(() => {
    const due = ((performance.now() - startedMs) / 1000) * RATE;
    for (; at + skipped < due; at += 1) {
      if (pending.size >= MAX_PENDING) {
        skipped = due - at;
        break;
      }
      const door = regions.all[at % 3]!.door;
      const begunMs = performance.now();
      const key = `load:${at % 97}`;
      const write = (
        at % 4 === 0
          ? door.incr(`${key}:n`)
          : at % 4 === 1
            ? door.sadd(`${key}:s`, `m${at % 31}`)
            : at % 4 === 2
              ? door.set(`${key}:t`, `v${at}`)
              : at % 8 === 3
                ? door.del(`load:${at % 13}:t`)
                : door.set(`${key}:e`, `v${at}`, 'PX', 1_500)
      ).then(() => {
        written += 1;
        longestMs = Math.max(longestMs, performance.now() - begunMs);
      });
      pending.add(write);
      void write.finally(() => pending.delete(write));
    }
  }, TICK_MS);
  return {
    async stop() {
      clearInterval(timer);
      const ms = performance.now() - startedMs;
      await Promise.all(pending);
      return { written, longestMs, ms };
    },
  };
}

it('finds the regions identical under continuing writes, each time it is asked', async (t) => {
  const writers = load();
  t.after(() => writers.stop());
  await waitFor(async () => (await regions.all[0]!.native.dbsize()) > 200, { what: 'there is some data' });
  const held: number[] = [];
  const took: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    const report = await verify(regions.all[round % 3]!, { timeoutMs: 60_000 });
    assert.equal(report.outcome, 'identical', shown(report));
    assert.equal(new Set(report.regions.map(({ digest }) => digest)).size, 1);
    held.push(report.heldMs);
    took.push(report.tookMs);
  }
  const deep = await verify(regions.all[1]!, { deep: true, timeoutMs: 60_000 });
  assert.equal(deep.outcome, 'identical', shown(deep));
  assert.deepEqual(deep.deep!.findings, []);
  assert.ok(deep.deep!.checked > 300);
  const { written, longestMs, ms } = await writers.stop();
  t.diagnostic(
    `${written} writes in ${Math.round(ms)} ms, the longest took ${Math.round(longestMs)} ms; operations were held for ${held.join(', ')} ms, ` +
      `verifications took ${took.join(', ')} ms; deep: ${deep.tookMs} ms, ${deep.deep!.checked} keys, ${deep.deep!.inFlux} in flux`,
  );
  assert.ok(held.every((ms) => ms < 2_000));
  await regions.synchronise();
});

it('finds what was done to a Valkey past its node, puts it right, and finds it identical then', async () => {
  const [eu, us, ap] = regions.all as [Region, Region, Region];
  await eu.door.mset(
    't:set',
    'right',
    't:del',
    'right',
    't:expire',
    'right',
    't:header',
    'right',
    't:type',
    'right',
  );
  await us.door.sadd('t:members', 'a', 'b', 'c');
  await us.door.sadd('t:entries', 'a', 'b', 'c');
  await ap.door.set('t:evicted', 'right', 'EX', 3_600);
  await regions.synchronise();
  await us.native.set('t:set', 'forged');
  await us.native.del('t:del', 't:type');
  await us.native.hset('t:type', 'field', 'value');
  await us.native.expire('t:expire', 1_000);
  await us.native.srem('t:members', 'b');
  await us.native.sadd('t:members', 'forged');
  await us.native.del('t:evicted');
  const hash = (key: string): string => `__mesh:{${slotTags()[keySlot(key as ByteString)]}}`;
  assert.equal(await us.native.hdel(`${hash('t:header')}h`, 't:header'), 1);
  assert.equal(await us.native.hdel(`${hash('t:entries')}e:t:entries`, 'c'), 1);

  const found = await runCli(['verify', '--url', ap.url, '--deep']);
  assert.equal(found.code, 1, found.stdout + found.stderr);
  assert.match(found.stdout, /^different: ap, eu, us|^different: /);
  for (const line of [
    /us: native differs: "t:set": not the bytes that other regions have/,
    /us: native missing: "t:del": its header says: a string/,
    /us: native of another type: "t:type": natively a value of a type that is not replicated/,
    /us: expiry differs: "t:expire": natively expires at .*, by its header no expiry/,
    /us: members differ: "t:members": 1 natively missing, 1 natively too many/,
    /us: native missing: "t:evicted"/,
    /us: slot damaged: slot \d+: its digest is not that of its headers/,
    /us: entries damaged: "t:entries": 2 entries that are not those of its header, which counts 3/,
    /"t:header" \(slot \d+\) differs:\n {4}\w+: .*\n {4}\w+: .*\n/,
    /us: nothing lives/,
  ])
    assert.match(found.stdout, line);
  assert.doesNotMatch(found.stdout, /^ {2}(eu|ap): (native|members|expiry|slot|entries)/m);

  const repaired = await runCli(['verify', '--url', eu.url, '--repair', '--json']);
  const report = JSON.parse(repaired.stdout) as VerifyReport;
  assert.deepEqual(
    report.deep!.findings.filter(({ repair }) => repair !== 'repaired'),
    [],
    shown(report),
  );
  const again = await runCli(['verify', '--url', us.url, '--deep']);
  assert.equal(again.code, 0, again.stdout + again.stderr);
  assert.match(again.stdout, /^identical: us, /);
  for (const { native } of regions.all) {
    assert.deepEqual(
      await native.mget('t:set', 't:del', 't:expire', 't:header', 't:type', 't:evicted'),
      Array(6).fill('right'),
    );
    assert.deepEqual((await native.smembers('t:members')).sort(), ['a', 'b', 'c']);
    assert.deepEqual((await native.smembers('t:entries')).sort(), ['a', 'b', 'c']);
    assert.equal(await native.pttl('t:expire'), -1);
    assert.ok((await native.pttl('t:evicted')) > 3_000_000);
  }
});

it('brings back what a Valkey has evicted', async (t) => {
  const [eu, us] = regions.all as [Region, Region, Region];
  const keys = Array.from({ length: 300 }, (_, at) => `cached:${at}`);
  await Promise.all(keys.map((key) => eu.door.set(key, 'x'.repeat(2_000), 'EX', 3_600)));
  await regions.synchronise();
  await us.native.config('SET', 'maxmemory-policy', 'volatile-random');
  const used = Number(/used_memory:(\d+)/.exec(await us.native.info('memory'))![1]);
  await us.native.config('SET', 'maxmemory', String(used - 300_000));
  await waitFor(async () => (await us.native.exists(...keys)) < keys.length, { what: 'keys are evicted' });
  await us.native.config('SET', 'maxmemory', '0');
  const evicted = keys.length - (await us.native.exists(...keys));
  const found = await verify(eu, { deep: true });
  assert.equal(found.outcome, 'different', shown(found));
  assert.equal(
    // What an earlier test left with an expiry may have gone too.
    found.deep!.findings.filter(
      ({ kind, region, key }) =>
        kind === 'native missing' && region === us.name && JSON.stringify(key).includes('cached:'),
    ).length,
    evicted,
  );
  await verify(eu, { repair: true });
  const healed = await verify(eu, { deep: true });
  assert.equal(healed.outcome, 'identical', shown(healed));
  assert.equal(await us.native.exists(...keys), keys.length);
  t.diagnostic(
    `${evicted} of ${keys.length} keys were evicted and came back; the repair read ${healed.deep!.checked} keys`,
  );
});

it('says which region is away, on every door', async () => {
  const [eu, us, ap] = regions.all as [Region, Region, Region];
  regions.cut(ap);
  await waitFor(
    async () => (await eu.status()).peers.some(({ region, connected }) => region === ap.name && !connected),
    {
      deadlineMs: 60_000,
      what: 'eu has noticed that ap is away',
    },
  );
  await us.door.set('k', 'v');
  const away = await runCli(['verify', '--url', eu.url]);
  assert.equal(away.code, 3, away.stdout);
  assert.match(away.stdout, /^not verified: only eu, us were compared, and are identical$/m);
  assert.match(away.stdout, /region ap was not verified \(\w+\): it is away: not connected/);
  const resp = (await eu.door.call('MESH', 'VERIFY')) as unknown[];
  assert.equal(resp[resp.indexOf('outcome') + 1], 'unverified');
  regions.heal();
  await regions.connected();
  await regions.synchronise();
  assert.equal((await verify(ap)).outcome, 'identical');
});
