/** Verification at the doors: what RESP, HTTP and the command line take, and how they tell the outcome. */
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { type HttpDoor, startHttp } from '../src/ops/http.js';
import { silentLogger } from '../src/options.js';
import { startFrontDoor } from '../src/resp/front-door.js';
import { describeVerify } from '../src/verify/describe.js';
import type { VerifyReport } from '../src/verify/report.js';
import { FakeEngine } from './support/fake-engine.js';
import { freePorts, killLeftovers, runCli } from './support/process.js';
import { connectTo } from './support/regions.js';

const engine = new FakeEngine();
const identical = engine.report;
let door: HttpDoor;
before(async () => {
  door = await startHttp({ engine });
});
after(() => door.stop());
afterEach(async () => {
  engine.report = identical;
  engine.verified.length = 0;
  await killLeftovers();
});

const post = (body: string, type = 'application/json'): Promise<Response> =>
  fetch(`http://127.0.0.1:${door.port}/api/verify`, {
    method: 'POST',
    headers: { 'content-type': type },
    body,
  });

const REGION = {
  region: 'eu',
  peerId: 'p',
  state: 'compared',
  reason: null,
  digest: '00000000000a',
  keys: 3,
} as const;

it('takes options over HTTP, as JSON that no page of another origin can send', async () => {
  const answer = await post('{"deep":true,"timeoutMs":500}');
  assert.deepEqual([answer.status, await answer.json()], [200, identical]);
  assert.deepEqual(engine.verified, [{ deep: true, timeoutMs: 500 }]);
  for (const [body, says] of [
    ['nonsense', /not JSON/],
    ['[]', /must be an object/],
    ['{"depp":true}', /no option 'depp'/],
    ['{"deep":1}', /deep must be a boolean/],
    [`{"deep":${' '.repeat(2_000)}true}`, /longer than/],
  ] as const) {
    const refused = await post(body);
    assert.equal(refused.status, 400);
    assert.match(((await refused.json()) as { error: string }).error, says);
  }
  assert.equal((await post('{}', 'text/plain')).status, 415);
  assert.equal((await fetch(`http://127.0.0.1:${door.port}/api/verify`)).status, 405);
  assert.equal(engine.verified.length, 1);
});

it('tells the outcome by the exit code of the command line', async () => {
  const url = `http://127.0.0.1:${door.port}`;
  for (const [outcome, code] of [
    ['identical', 0],
    ['different', 1],
    ['unverified', 3],
  ] as const) {
    engine.report = { ...identical, outcome, regions: [REGION] };
    const run = await runCli([
      'verify',
      '--url',
      url,
      ...(outcome === 'different' ? ['--json', '--repair'] : []),
    ]);
    assert.equal(run.code, code, run.stdout + run.stderr);
    if (outcome === 'different') assert.deepEqual(JSON.parse(run.stdout), engine.report);
    else assert.match(run.stdout, /^(identical|not verified: only eu)/);
  }
  assert.deepEqual(engine.verified[1], { deep: false, repair: true });
  const nobody = await runCli(['verify', '--url', `http://127.0.0.1:${await freePorts(1)}`]);
  assert.equal(nobody.code, 3);
  assert.match(nobody.stderr, /^not verified: no answer from .*ECONNREFUSED/);
  assert.equal((await runCli(['verify', '--url', 'nonsense'])).code, 2);
});

it('answers MESH VERIFY', async () => {
  const resp = await startFrontDoor({ engine, logger: silentLogger, host: '127.0.0.1', port: 0 });
  const client = connectTo(resp.port);
  const answer = (await client.call('MESH', 'VERIFY', 'deep', 'TIMEOUT', '700')) as unknown[];
  assert.equal(answer[answer.indexOf('outcome') + 1], 'identical');
  assert.deepEqual(engine.verified, [{ deep: true, timeoutMs: 700 }]);
  await assert.rejects(client.call('MESH', 'VERIFY', 'FAST'), /ERR syntax error/);
  await assert.rejects(client.call('MESH', 'VERIFY', 'TIMEOUT'), /ERR syntax error/);
  client.disconnect();
  await resp.stop();
});

it('shows findings in lines, and lets no member write to the terminal', () => {
  const report: VerifyReport = {
    ...identical,
    outcome: 'different',
    regions: [
      REGION,
      { ...REGION, region: 'us', state: 'away', reason: 'it is away\u001b[2J', digest: null, keys: null },
    ],
    heldMs: 12,
    deep: {
      checked: 3,
      inFlux: 0,
      more: 1,
      findings: [
        {
          region: 'eu',
          peerId: 'p',
          kind: 'native missing',
          key: { text: 'k' },
          slot: 1,
          detail: 'a string',
          repair: 'repaired',
          why: null,
        },
        {
          region: 'eu',
          peerId: 'p',
          kind: 'unreplicated',
          key: { text: 'x' },
          slot: 2,
          detail: 'past',
          repair: 'left',
          why: 'never',
        },
      ],
    },
  };
  assert.equal(
    describeVerify(report),
    [
      'different: eu',
      '  eu: digest 00000000000a, 3 keys',
      '  us: away: it is away\\x1b[2J',
      '  at the cut before the first write',
      '  operations were held for 12 ms',
      '  3 keys were compared with their native values, 0 changed too often for it',
      '  eu: native missing: "k": a string; repaired',
      '  eu: unreplicated: "x": past; left: never',
      '  and 1 more findings',
    ].join('\n'),
  );
});
