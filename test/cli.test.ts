import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { ProgressLine } from '../src/cli/progress.js';
import { describeStatus } from '../src/cli/status.js';
import type { NodeStatus } from '../src/engine.js';
import { readIdentity, readMeshKey } from '../src/mesh/identity.js';
import { startHttp } from '../src/ops/http.js';
import { silentLogger } from '../src/options.js';
import { describeLoading } from '../src/sync/loading.js';
import { killLeftovers, runCli } from './support/process.js';
import { waitFor } from './support/wait.js';

const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-cli-'));
const inFolder = (name: string) => join(folder, name);
after(() => rmSync(folder, { recursive: true, force: true }));
afterEach(killLeftovers);

describe('The command line', () => {
  it('tells its version and its help', async () => {
    const version = await runCli(['--version']);
    const { version: expected } = JSON.parse(
      readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
    ) as {
      version: string;
    };
    assert.deepEqual([version.code, version.stdout], [0, `${expected}\n`]);
    const help = await runCli(['--help']);
    assert.equal(help.code, 0);
    for (const command of ['peer', 'demo', 'keygen', 'status'])
      assert.match(help.stdout, new RegExp(`^  ${command} `, 'm'));
  });

  writeFileSync(inFolder('unknown.json'), '{"region": "eu", "colour": "red"}');
  writeFileSync(inFolder('junk.key'), 'junk');
  writeFileSync(inFolder('empty'), '\n');
  const bad: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [['frobnicate'], /unknown command 'frobnicate'/],
    [['peer'], /--region is missing: name the region of this peer, for example --region eu/],
    [['peer', '--regoin', 'eu'], /unknown option '--regoin'[\s\S]*Did you mean --region/],
    [
      ['peer', '--region', 'eu', '--resp', '0.0.0.0:0'],
      /--resp 0.0.0.0:0 can be reached from other machines/,
    ],
    [['peer', '--region', 'eu', '--allow-flush'], /--allow-flush true: is not supported yet/],
    [
      ['peer', '--config', inFolder('none.json')],
      /--config .*none.json: there is no such file or folder; give the path/,
    ],
    [['peer', '--config', inFolder('unknown.json')], /unknown.json, "colour": there is no such setting/],
    [
      ['peer', '--region', 'eu', '--mesh-key', inFolder('junk.key')],
      /--mesh-key .*junk.key: the mesh key is not/,
    ],
    [
      ['peer', '--region', 'eu', '--identity', inFolder('junk.key')],
      /--identity .*junk.key: the identity .* is not a private key/,
    ],
    [['peer', '--region', 'eu', '--resp-password', inFolder('empty')], /--resp-password .*empty: is empty/],
    [['demo', '--regions', '1'], /--regions "1": give a whole number from 2 to 8/],
    [['demo', '--base-port', '8079'], /--http-port 8080 overlaps with --base-port: port 8080 is in both/],
    [['status', '--url', 'localhost'], /--url "localhost": give the URL of a peer's --http door/],
  ];
  for (const [args, says] of bad) {
    it(`refuses: ${args.join(' ').replaceAll(folder, '')}`, async () => {
      const { code, stdout, stderr } = await runCli(args);
      assert.equal(code, 2, stderr);
      assert.match(stderr, says);
      assert.equal(stdout, '');
      assert.doesNotMatch(stderr, /^\s+at /m, 'no stack trace');
    });
  }
});

describe('keygen', () => {
  it('makes an identity and a mesh key that only their owner can read', async () => {
    const [out, meshKey] = [inFolder('a.key'), inFolder('mesh.key')];
    const made = await runCli(['keygen', '--out', out, '--mesh-key', meshKey, '--json']);
    assert.equal(made.code, 0, made.stderr);
    const { peerId } = readIdentity(readFileSync(out));
    assert.deepEqual(JSON.parse(made.stdout), { peerId, identity: out, meshKey });
    readMeshKey(readFileSync(meshKey));
    assert.deepEqual([statSync(out).mode & 0o777, statSync(meshKey).mode & 0o777], [0o600, 0o600]);
  });

  it('prints the PeerId for a person, too', async () => {
    const out = inFolder('b.key');
    const made = await runCli(['keygen', '--out', out]);
    assert.equal(made.stdout, `identity  ${out}  ${readIdentity(readFileSync(out)).peerId}\n`);
  });

  it('makes only a mesh key when only that is asked for', async () => {
    const made = await runCli(['keygen', '--mesh-key', inFolder('only.key'), '--json']);
    assert.deepEqual(JSON.parse(made.stdout), {
      peerId: null,
      identity: null,
      meshKey: inFolder('only.key'),
    });
  });

  it('never overwrites a key', async () => {
    writeFileSync(inFolder('precious.key'), 'precious');
    const refused = await runCli([
      'keygen',
      '--out',
      inFolder('fresh.key'),
      '--mesh-key',
      inFolder('precious.key'),
    ]);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /--mesh-key .*precious.key: exists already and is not overwritten/);
    assert.equal(readFileSync(inFolder('precious.key'), 'utf8'), 'precious');
    assert.throws(() => statSync(inFolder('fresh.key')), 'nothing else is written either');
  });
});

describe('the progress of loading', () => {
  const loading = {
    ...{ peer: 'P2', region: 'us', keys: 250, keysTotal: 1000, bytes: 3 * 1024 * 1024 },
    ...{ keysPerSecond: 50, secondsLeft: 15, sinceMs: 1 },
  };
  const LINE = 'loading from us: 250 of 1000 keys, 3.0 MiB, 50 keys/s, 15 s left';

  it('is one line of a terminal that the log steps over, and is gone at the end', async () => {
    let written = '';
    const line = new ProgressLine({ isTTY: true, columns: 80, write: (text) => (written += text) });
    const logger = line.around({ ...silentLogger, warn: (_fields, message) => (written += `${message}\n`) });
    line.follow(() => loading);
    await waitFor(() => written !== '');
    assert.equal(written, `\r\x1b[2K${LINE}`);
    written = '';
    logger.warn({}, 'said');
    assert.equal(written, `\r\x1b[2Ksaid\n\r\x1b[2K${LINE}`);
    written = '';
    line.stop();
    assert.equal(written, '\r\x1b[2K');
  });

  it('is not written where there is no terminal', () => {
    const line = new ProgressLine({ write: () => assert.fail('written') });
    assert.equal(line.around(silentLogger), silentLogger);
    line.follow(() => loading);
    line.stop();
  });

  it('is told by status, and so is what is missing without a giver', () => {
    assert.equal(describeLoading(loading), LINE);
    const waiting = {
      ...loading,
      peer: null,
      region: null,
      keys: 0,
      keysTotal: 0,
      bytes: 0,
      secondsLeft: null,
    };
    assert.equal(describeLoading(waiting), 'loading: waiting for a member that has the data');
  });
});

describe('status', () => {
  const found: NodeStatus = {
    version: '0.1.0',
    peerId: 'P1',
    region: 'eu',
    replica: 'abcdefgh.1',
    state: 'ready',
    loading: null,
    addresses: ['/ip4/127.0.0.1/tcp/1'],
    startedAtMs: 1,
    uptimeMs: 65_000,
    store: { kind: 'memory' },
    frames: { own: 1, applied: 2, heldBack: 3, skewed: 4, repaired: 5, refused: 6 },
    queue: { operations: 0, bytes: 0 },
    conflicts: 7,
    clock: {
      ...{ offsetMs: 1_500, spreadMs: 3_000, off: false, heard: 1 },
      warning: 'clocks differ: run NTP',
    },
    forgetting: {
      ...{ stableMs: 1_700_000_000_000, members: ['P2', 'P3'], waitingFor: ['P3'] },
      ...{ forgotten: 8, swept: 9 },
    },
    peers: [
      {
        peerId: 'P2',
        region: 'us',
        replica: 'r2',
        connected: true,
        appliedNumber: 1,
        behindFrames: 0,
        silentMs: 12,
        clockOffsetMs: -3_000,
        refused: null,
      },
      {
        peerId: 'P3',
        region: 'ap',
        replica: 'r3',
        connected: false,
        appliedNumber: 0,
        behindFrames: 9,
        silentMs: null,
        clockOffsetMs: null,
        refused: null,
      },
    ],
  };
  let url = '';
  let stop: () => Promise<void>;
  before(async () => {
    const door = await startHttp({ engine: { status: () => found } });
    url = `http://127.0.0.1:${door.port}`;
    stop = () => door.stop();
  });
  after(() => stop());

  it('says how far loading is', () => {
    const loading = {
      ...{ peer: 'P2', region: 'us', keys: 250, keysTotal: 0, bytes: 1024 * 1024 },
      ...{ keysPerSecond: 50, secondsLeft: null, sinceMs: 1 },
    };
    const text = describeStatus({ ...found, state: 'loading', loading });
    assert.match(text, /^state +loading\nprogress +loading from us: 250 keys, 1\.0 MiB, 50 keys\/s$/m);
  });

  it('prints a table of the facts and the peers', async () => {
    const { code, stdout } = await runCli(['status', '--url', url]);
    assert.equal(code, 0);
    assert.match(stdout, /^region +eu$/m);
    assert.match(stdout, /^up for +65 s$/m);
    assert.match(stdout, /^frames +1 own, 2 applied, 3 held back, 4 skewed, 5 repaired, 6 refused$/m);
    assert.match(stdout, /^us +P2 +yes +1 +0 +12 ms +-3000 ms$/m);
    assert.match(stdout, /^ap +P3 +no +0 +9 +never heard +unknown$/m);
    assert.match(stdout, /^WARNING +clocks differ: run NTP$/m);
    assert.match(stdout, /^clock +\+1500 ms from the median of 2 members, 3000 ms between the extremes$/m);
    assert.match(
      stdout,
      /^forgetting +stable up to 2023-11-14T22:13:20.000Z, with 2 other members; 8 .* 9 expired/m,
    );
    assert.match(stdout, /^waits for +ap: it keeps deleted keys .*: MESH FORGET P3$/m);
  });

  it('warns of nothing while all is well', () => {
    const text = describeStatus({
      ...found,
      clock: { offsetMs: 0, spreadMs: 0, off: false, heard: 0, warning: null },
      forgetting: { stableMs: null, members: [], waitingFor: [], forgotten: 0, swept: 0 },
    });
    assert.doesNotMatch(text, /WARNING|waits for/);
    assert.match(text, /^clock +compared with no other member yet$/m);
    assert.match(text, /^forgetting +nothing is stable yet, with 0 other members/m);
  });

  it('prints JSON when asked to', async () => {
    const { stdout } = await runCli(['status', '--url', url, '--json']);
    assert.deepEqual(JSON.parse(stdout), found);
  });

  it('says so when nobody answers, or somebody else does', async () => {
    const stranger: Server = createServer((request, response) => {
      response.statusCode = request.url === '/api/status' ? 200 : 404;
      response.end('<html>');
    });
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    const other = `http://127.0.0.1:${(stranger.address() as AddressInfo).port}`;
    const wrong = await runCli(['status', '--url', other]);
    await new Promise((resolve) => stranger.close(resolve));
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /is not a peer's --http door: its answer isn't JSON/);
    const nobody = await runCli(['status', '--url', other]);
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /no answer from .* \(ECONNREFUSED\); is the peer running, and with --http\?/);
  });
});
