/** Metrics: what a scrape gives, and that Prometheus can read it. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { NodeStatus } from '../src/engine.js';
import { type HttpDoor, startHttp } from '../src/ops/http.js';
import { meshMetrics } from '../src/ops/metrics.js';
import { FakeEngine } from './support/fake-engine.js';
import { MeshWorld } from './support/mesh-world.js';

interface Scrape {
  /** Name and labels, as written → value. */
  readonly series: ReadonlyMap<string, number>;
  readonly types: ReadonlyMap<string, string>;
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const SAMPLE = new RegExp(`^((${NAME})(?:\\{${LABEL}(?:,${LABEL})*\\})?) (\\S+)$`);

/** Reads Prometheus's text format 0.0.4, and fails on what isn't. */
function parse(text: string): Scrape {
  const series = new Map<string, number>();
  const types = new Map<string, string>();
  let current = '';
  assert.ok(text.endsWith('\n'));
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const help = new RegExp(`^# HELP (${NAME}) \\S`).exec(line);
    const type = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary)$`).exec(line);
    if (help !== null) {
      current = help[1]!;
      assert.ok(!types.has(current), `${current} comes once`);
    } else if (type !== null) {
      assert.equal(type[1], current, 'a type follows its help');
      types.set(current, type[2]!);
    } else {
      const [, id, name, value] = SAMPLE.exec(line) ?? assert.fail(`no sample: ${line}`);
      assert.ok(
        types.has(name!) || types.has(name!.replace(/_(?:bucket|sum|count)$/, '')),
        `${name} has a type`,
      );
      assert.ok(!series.has(id!), `${id} comes once`);
      const number = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value);
      assert.ok(!Number.isNaN(number) || value === 'Nan', line);
      series.set(id!, number);
    }
  }
  return { series, types };
}

const FULL: NodeStatus = {
  ...{ version: '0.1.0', peerId: 'P1', region: 'eu', replica: 'abcdefgh.1', state: 'loading' },
  loading: {
    ...{ peer: 'P2', region: 'us', keys: 250, keysTotal: 1000, bytes: 4096 },
    ...{ keysPerSecond: 50, secondsLeft: 15, sinceMs: 1 },
  },
  ...{ addresses: [], startedAtMs: 1_700_000_000_000, uptimeMs: 65_500 },
  store: { kind: 'valkey', warnings: 'appendonly is off; set it', problem: 'login refused' },
  frames: { own: 10, applied: 2, heldBack: 3, skewed: 4, repaired: 5, refused: 6 },
  ...{ queue: { operations: 7, bytes: 8 }, conflicts: 9 },
  clock: { offsetMs: -1500, spreadMs: 1600, off: true, heard: 2, warning: 'run NTP' },
  forgetting: {
    ...{ stableMs: 1_700_000_000_000, members: ['P2', 'P3'], waitingFor: ['P3'], forgotten: 11, swept: 12 },
  },
  peers: [
    {
      ...{ peerId: 'P2', region: 'us', replica: 'r2', connected: true, appliedNumber: 8, behindFrames: 13 },
      ...{ silentMs: 250, clockOffsetMs: 1500, refused: null },
    },
    {
      ...{ peerId: 'P3', region: '', replica: '', connected: false, appliedNumber: 0, behindFrames: 0 },
      ...{ silentMs: null, clockOffsetMs: null, refused: 'other rules' },
    },
  ],
};

describe('A status as metrics', () => {
  it('gives every value in base units, with labels for peers and states', async () => {
    const { series, types } = parse(await meshMetrics(FULL));
    const us = '{peer_id="P2",region="us"}';
    const other = '{peer_id="P3",region=""}';
    const expected: Record<string, number> = {
      'info{version="0.1.0",region="eu",peer_id="P1",replica="abcdefgh.1"}': 1,
      ready: 0,
      'state{state="starting"}': 0,
      'state{state="loading"}': 1,
      'state{state="ready"}': 0,
      'state{state="store-unavailable"}': 0,
      'state{state="stopping"}': 0,
      start_time_seconds: 1_700_000_000,
      frames_own_total: 10,
      frames_applied_total: 2,
      frames_repaired_total: 5,
      frames_refused_total: 6,
      frames_held: 3,
      replicas_skewed: 4,
      queue_operations: 7,
      queue_bytes: 8,
      conflicts_total: 9,
      clock_offset_seconds: -1.5,
      clock_spread_seconds: 1.6,
      clock_off: 1,
      clock_warning: 1,
      stable_stamp_age_seconds: 65.5,
      forgetting_waits_for_members: 1,
      forgotten_keys_total: 11,
      swept_keys_total: 12,
      loading: 1,
      loading_keys: 250,
      loading_keys_expected: 1000,
      loading_bytes: 4096,
      store_warning: 1,
      store_problem: 1,
      [`peer_connected${us}`]: 1,
      [`peer_connected${other}`]: 0,
      [`peer_refused${us}`]: 0,
      [`peer_refused${other}`]: 1,
      [`peer_behind_frames${us}`]: 13,
      [`peer_behind_frames${other}`]: 0,
      [`peer_unapplied_frames${us}`]: 2,
      [`peer_unapplied_frames${other}`]: 10,
      [`peer_silent_seconds${us}`]: 0.25,
      [`peer_clock_offset_seconds${us}`]: 1.5,
    };
    assert.deepEqual(
      Object.fromEntries(series),
      Object.fromEntries(Object.entries(expected).map(([name, value]) => [`valkey_mesh_${name}`, value])),
    );
    for (const [name, type] of types) {
      assert.equal(type, name.endsWith('_total') ? 'counter' : 'gauge', name);
      assert.doesNotMatch(name, /_(?:ms|kb|milliseconds)\b/, 'base units only');
    }
  });

  it('leaves out what is not known', async () => {
    const { series } = parse(
      await meshMetrics({
        ...FULL,
        state: 'ready',
        loading: null,
        store: { kind: 'memory' },
        clock: { offsetMs: 0, spreadMs: 0, off: false, heard: 0, warning: null },
        forgetting: { stableMs: null, members: [], waitingFor: [], forgotten: 0, swept: 0 },
        peers: [],
      }),
    );
    for (const name of [
      'clock_offset_seconds',
      'clock_spread_seconds',
      'stable_stamp_age_seconds',
      'loading_keys',
      'loading_keys_expected',
      'loading_bytes',
    ])
      assert.ok(!series.has(`valkey_mesh_${name}`), name);
    for (const name of [
      'clock_off',
      'clock_warning',
      'loading',
      'store_warning',
      'store_problem',
      'forgotten_keys_total',
    ])
      assert.equal(series.get(`valkey_mesh_${name}`), 0, name);
    assert.equal(series.get('valkey_mesh_ready'), 1);
    assert.deepEqual(
      [...series.keys()].filter((id) => id.startsWith('valkey_mesh_peer_')),
      [],
    );
  });

  it('escapes what a label can not hold as it is', async () => {
    const nasty = 'a"b\\c\nd';
    const { series } = parse(await meshMetrics({ ...FULL, region: nasty }));
    assert.ok([...series.keys()].some((id) => id.includes('region="a\\"b\\\\c\\nd"')));
  });
});

describe('/metrics', () => {
  const engine = new FakeEngine();
  let door: HttpDoor;
  before(async () => {
    door = await startHttp({ engine });
  });
  after(() => door.stop());
  const scrape = (init?: RequestInit) => fetch(`http://127.0.0.1:${door.port}/metrics`, init);

  it('gives the status of the moment and the process, scrape after scrape', async () => {
    const answer = await scrape();
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4; charset=utf-8$/i);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    const { series } = parse(await answer.text());
    assert.equal(series.get('valkey_mesh_ready'), 1);
    assert.equal(series.get('valkey_mesh_forgotten_keys_total'), 5);
    assert.ok((series.get('process_resident_memory_bytes') ?? 0) > 1e6);
    engine.loading = { ...FULL.loading!, keys: 900 };
    const [one, two] = await Promise.all([scrape(), scrape()]);
    engine.loading = null;
    for (const each of [one, two]) {
      const again = parse(await each.text()).series;
      assert.equal(again.get('valkey_mesh_ready'), 0);
      assert.equal(again.get('valkey_mesh_loading_keys'), 900);
      assert.equal(again.get('valkey_mesh_forgotten_keys_total'), 5, 'counters are not added up');
    }
    assert.ok(!parse(await (await scrape()).text()).series.has('valkey_mesh_loading_keys'));
  });

  it('answers HEAD, refuses other methods with 405, and is named at paths that are not there', async () => {
    assert.equal((await scrape({ method: 'HEAD' })).status, 200);
    for (const method of ['POST', 'DELETE']) {
      const refused = await scrape({ method });
      assert.deepEqual([refused.status, refused.headers.get('allow')], [405, 'GET, HEAD']);
    }
    const missing = await fetch(`http://127.0.0.1:${door.port}/metrics/x`);
    assert.equal(missing.status, 404);
    assert.match(await missing.text(), /\/metrics/);
  });

  it('fails as a whole when there is no status', async () => {
    const broken = await startHttp({
      engine: {
        status: () => {
          throw new Error('no status today');
        },
      },
    });
    const answer = await fetch(`http://127.0.0.1:${broken.port}/metrics`);
    assert.equal(answer.status, 500);
    assert.doesNotMatch(await answer.text(), /today|valkey_mesh_/);
    await broken.stop();
  });
});

it('the metrics of nodes tell of their peers, their frames and their clocks', async () => {
  const world = new MeshWorld();
  const [a, b] = await world.startAll(['a', 'b']);
  for (let i = 0; i < 3; i += 1) await world.run(a!.counter('n').increment());
  await world.run(a!.waitFor(1));
  await world.timers.advance(5000);
  const ofB = parse(await meshMetrics(b!.status())).series;
  assert.equal(ofB.get('valkey_mesh_frames_applied_total'), 3);
  assert.equal(ofB.get('valkey_mesh_peer_connected{peer_id="a",region="a"}'), 1);
  assert.equal(ofB.get('valkey_mesh_peer_behind_frames{peer_id="a",region="a"}'), 0);
  assert.ok(Math.abs(ofB.get('valkey_mesh_clock_offset_seconds')!) <= 0.01);
  assert.ok(ofB.has('valkey_mesh_stable_stamp_age_seconds'));
  const ofA = parse(await meshMetrics(a!.status())).series;
  assert.equal(ofA.get('valkey_mesh_frames_own_total'), 3);
  assert.equal(ofA.get('valkey_mesh_peer_unapplied_frames{peer_id="b",region="b"}'), 0);
  world.network.cut('a', 'b');
  await world.run(a!.counter('n').increment());
  await world.timers.advance(30_000);
  const apart = parse(await meshMetrics(a!.status())).series;
  assert.equal(apart.get('valkey_mesh_peer_connected{peer_id="b",region="b"}'), 0);
  assert.equal(apart.get('valkey_mesh_peer_unapplied_frames{peer_id="b",region="b"}'), 1);
  assert.equal(apart.get('valkey_mesh_forgetting_waits_for_members'), 1);
  assert.ok(apart.get('valkey_mesh_peer_silent_seconds{peer_id="b",region="b"}')! > 20);
  await world.stop();
});
