import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import type { NodeStatus } from '../src/engine.js';
import { readIdentity } from '../src/mesh/identity.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { CliProcess, isPortFree, killLeftovers, runCli } from './support/process.js';
import { waitFor } from './support/wait.js';

const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-peer-'));
const inFolder = (name: string) => join(folder, name);
after(() => rmSync(folder, { recursive: true, force: true }));
afterEach(killLeftovers);

const ANY_RESP = ['--resp', '127.0.0.1:0'];

/** Runs a few commands on a RESP port. */
async function withClient<T>(
  port: number,
  use: (client: Redis) => Promise<T>,
  password?: string,
): Promise<T> {
  const client = new Redis({
    host: '127.0.0.1',
    port,
    retryStrategy: null,
    ...(password !== undefined && { password }),
  });
  client.on('error', () => {});
  try {
    return await use(client);
  } finally {
    client.disconnect();
  }
}

/** Holds a port of 127.0.0.1. */
async function occupy(): Promise<{ port: number; server: Server }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert(typeof address === 'object' && address !== null);
  return { port: address.port, server };
}

describe('A peer', () => {
  it('says in one line of JSON that it is ready, serves, and stops in order on SIGTERM', async () => {
    const peer = new CliProcess(['peer', '--region', 'eu', ...ANY_RESP, '--http', '127.0.0.1:0']);
    const ready = await peer.ready();
    assert.deepEqual(Object.keys(ready), ['peerId', 'region', 'multiaddrs', 'resp', 'http', 'store', 'pid']);
    assert.deepEqual([ready.region, ready.store, ready.pid], ['eu', 'memory', peer.child.pid]);
    assert.match(ready.multiaddrs[0]!, new RegExp(`^/ip4/127.0.0.1/tcp/\\d+/p2p/${ready.peerId}$`));

    const { port } = ready.resp;
    assert.equal(
      await withClient(port, async (client) => [await client.set('k', 'v'), await client.get('k')].join()),
      'OK,v',
    );
    const door = `http://127.0.0.1:${ready.http!.port}`;
    assert.equal((await fetch(`${door}/readyz`)).status, 200);
    const status = (await (await fetch(`${door}/api/status`)).json()) as NodeStatus;
    assert.deepEqual([status.region, status.peerId, status.state], ['eu', ready.peerId, 'ready']);
    const shown = await runCli(['status', '--url', door]);
    assert.match(shown.stdout, new RegExp(`^peer id +${ready.peerId}$`, 'm'));

    assert.deepEqual(await peer.end('SIGTERM'), { code: 0, signal: null });
    assert.equal(peer.stdout.trimEnd().split('\n').length, 1, 'standard output has the ready line only');
    for (const line of peer.stderr.trimEnd().split('\n')) {
      const { region, msg } = JSON.parse(line) as { region: string; msg: string };
      assert.deepEqual([region, typeof msg], ['eu', 'string']);
    }
    assert(await isPortFree(port), 'the RESP port is free again');
    assert(await isPortFree(ready.http!.port), 'the HTTP port is free again');
  });

  it('stops in order on SIGINT, and with --exit-with-parent when standard input ends', async () => {
    const first = new CliProcess(['peer', '--region', 'eu', ...ANY_RESP]);
    const second = new CliProcess(['peer', '--region', 'eu', ...ANY_RESP, '--exit-with-parent']);
    await Promise.all([first.ready(), second.ready()]);
    second.child.stdin!.end();
    assert.deepEqual(await first.end('SIGINT'), { code: 0, signal: null });
    assert.deepEqual(await second.ended, { code: 0, signal: null });
    assert.match(second.stderr, /standard input ended/);
  });

  it('stops at once with --exit-with-parent when there is no standard input', async () => {
    const peer = new CliProcess(['peer', '--region', 'eu', ...ANY_RESP, '--exit-with-parent'], {}, 'ignore');
    assert.deepEqual(await peer.ended, { code: 0, signal: null });
  });

  it('takes its settings from a file, and flags win over it', async () => {
    writeFileSync(
      inFolder('peer.json'),
      JSON.stringify({ region: 'eu', resp: '127.0.0.1:0', http: '127.0.0.1:0' }),
    );
    const peer = new CliProcess(['peer', '--config', inFolder('peer.json'), '--region', 'us']);
    const ready = await peer.ready();
    assert.equal(ready.region, 'us');
    assert.notEqual(ready.http, null);
  });

  it('makes its identity if the file is missing, and keeps it over a restart', async () => {
    const identity = inFolder('identity.key');
    const flags = ['peer', '--region', 'eu', ...ANY_RESP, '--identity', identity];
    const first = new CliProcess(flags);
    const { peerId } = await first.ready();
    await first.end();
    assert.equal(statSync(identity).mode & 0o777, 0o600);
    assert.equal(readIdentity(readFileSync(identity)).peerId, peerId);
    assert.match(first.stderr, /made a new identity/);
    const second = new CliProcess(flags);
    assert.equal((await second.ready()).peerId, peerId);
    assert.doesNotMatch(second.stderr, /made a new identity/);
  });

  it('asks clients for the password of --resp-password', async () => {
    writeFileSync(inFolder('password'), 'open sesame\n', { mode: 0o600 });
    const peer = new CliProcess([
      'peer',
      '--region',
      'eu',
      '--resp',
      '0.0.0.0:0',
      '--resp-password',
      inFolder('password'),
    ]);
    const { port } = (await peer.ready()).resp;
    await assert.rejects(
      withClient(port, (client) => client.get('k')),
      /NOAUTH/,
    );
    assert.equal(await withClient(port, (client) => client.set('k', 'v'), 'open sesame'), 'OK');
  });

  it('holds keys to the rules that it was given', async () => {
    const peer = new CliProcess([
      ...['peer', '--region', 'eu', ...ANY_RESP, '--rule', 'tags:*=set', '--rule', 'seat:*=string:fww'],
    ]);
    const { port } = (await peer.ready()).resp;
    await withClient(port, async (client) => {
      await assert.rejects(client.set('tags:1', 'x'));
      assert.equal(await client.sadd('tags:1', 'x'), 1);
      assert.equal(await client.set('seat:1', 'ann'), 'OK');
      await client.set('seat:1', 'bob').catch(() => {});
      assert.equal(await client.get('seat:1'), 'ann', 'the first write wins');
    });
  });

  it('fails with exit code 1, and says which, when a port is in use', async () => {
    const { port, server } = await occupy();
    const taken = [
      [['--resp', `127.0.0.1:${port}`]],
      [[...ANY_RESP, '--http', `127.0.0.1:${port}`]],
      [[...ANY_RESP, '--listen', `/ip4/127.0.0.1/tcp/${port}`]],
    ] as const;
    const results = await Promise.all(taken.map(([flags]) => runCli(['peer', '--region', 'eu', ...flags])));
    server.close();
    for (const { code, stdout, stderr } of results) {
      assert.equal(code, 1, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, new RegExp(`^valkey-mesh: .*${port}.* in use`, 'm'));
      assert.doesNotMatch(stderr, /^\s+at /m);
    }
  });

  it('fails with exit code 1 when its Valkey can’t be reached', async () => {
    const { port, server } = await occupy();
    await new Promise((resolve) => server.close(resolve));
    const failed = await runCli([
      'peer',
      '--region',
      'eu',
      ...ANY_RESP,
      '--store',
      `redis://:secret@127.0.0.1:${port}`,
    ]);
    assert.equal(failed.code, 1);
    assert.equal(failed.stdout, '');
    assert.match(failed.stderr, new RegExp(`^valkey-mesh: .*127.0.0.1:${port}`, 'm'));
    assert.doesNotMatch(failed.stderr, /secret/, 'the password stays out of the log');
  });
});

describe('Two peers on two Valkeys', () => {
  const valkeys: LaunchedValkey[] = [];
  before(async () => {
    valkeys.push(...(await Promise.all([launchValkey(), launchValkey()])));
  });
  after(() => Promise.all(valkeys.map((valkey) => valkey.stop())));

  it('that share a mesh key and allow each other replicate, natively into both', async () => {
    const made = await runCli([
      'keygen',
      '--out',
      inFolder('eu.key'),
      '--mesh-key',
      inFolder('mesh.key'),
      '--json',
    ]);
    const eu = (JSON.parse(made.stdout) as { peerId: string }).peerId;
    const us = (
      JSON.parse((await runCli(['keygen', '--out', inFolder('us.key'), '--json'])).stdout) as {
        peerId: string;
      }
    ).peerId;
    const start = (region: string, at: number, extra: readonly string[]) =>
      new CliProcess([
        ...['peer', '--region', region, '--store', valkeys[at]!.url, ...ANY_RESP, '--http', '127.0.0.1:0'],
        ...[
          '--identity',
          inFolder(`${region}.key`),
          '--mesh-key',
          inFolder('mesh.key'),
          '--allow',
          eu,
          '--allow',
          us,
        ],
        ...extra,
      ]);
    const first = start('eu', 0, []);
    const a = await first.ready();
    const second = start('us', 1, ['--peer', a.multiaddrs[0]!]);
    const b = await second.ready();
    assert.deepEqual([a.peerId, b.peerId, a.store], [eu, us, valkeys[0]!.url]);

    await withClient(a.resp.port, (client) => client.set('k', 'from eu'));
    const nativeUs = (key: string) => withClient(valkeys[1]!.port, (client) => client.get(key));
    await waitFor(async () => (await nativeUs('k')) === 'from eu', {
      deadlineMs: 60_000,
      what: 'k in the Valkey of us',
    });
    await withClient(b.resp.port, (client) => client.incrby('n', 3));
    const nativeEu = () => withClient(valkeys[0]!.port, (client) => client.get('n'));
    await waitFor(async () => (await nativeEu()) === '3', {
      deadlineMs: 60_000,
      what: 'n in the Valkey of eu',
    });

    assert.equal((await first.end()).code, 0);
    assert.equal((await second.end()).code, 0);
  });
});

describe('A peer whose Valkey goes away', () => {
  let valkey: LaunchedValkey;
  before(async () => {
    valkey = await launchValkey({ appendonly: true });
  });
  after(() => valkey.stop());

  it('says so, refuses writes, and serves again when it is back', async () => {
    const peer = new CliProcess([
      ...['peer', '--region', 'eu', '--store', valkey.url, ...ANY_RESP, '--http', '127.0.0.1:0'],
    ]);
    const { resp, http } = await peer.ready();
    const readiness = async () => {
      const answer = await fetch(`http://127.0.0.1:${http!.port}/readyz`);
      return { code: answer.status, ...((await answer.json()) as { reason?: string }) };
    };
    await withClient(resp.port, async (client) => {
      assert.equal(await client.set('k', 'v'), 'OK');
      await valkey.kill('SIGKILL');
      await assert.rejects(client.set('k', 'w'), /^Error \[ReplyError\]|^ReplyError/);
      await waitFor(async () => (await readiness()).code === 503, {
        deadlineMs: 60_000,
        what: '503 of /readyz',
      });
      assert.equal((await readiness()).reason, "the node can't reach its store");
      assert.equal((await fetch(`http://127.0.0.1:${http!.port}/healthz`)).status, 200);
      await valkey.restart();
      await waitFor(async () => (await readiness()).code === 200, {
        deadlineMs: 60_000,
        what: '200 of /readyz',
      });
      assert.equal(await client.set('k', 'x'), 'OK');
    });
    assert.equal(await withClient(valkey.port, (client) => client.get('k')), 'x');
    assert.deepEqual(await peer.end(), { code: 0, signal: null });
  });

  it('ends at once on a second signal, when it can’t stop in order', async () => {
    const peer = new CliProcess(['peer', '--region', 'eu', '--store', valkey.url, ...ANY_RESP]);
    const { resp } = await peer.ready();
    await valkey.kill('SIGSTOP');
    try {
      const stuck = withClient(resp.port, (client) => client.set('k', 'never')).catch(() => {});
      peer.child.kill('SIGTERM');
      await peer.says(/"msg":"stopping"/);
      let ended = false;
      void peer.ended.then(() => {
        ended = true;
      });
      // Signals that come close together count as one, so it is asked again until it is heard.
      await waitFor(() => !peer.child.kill('SIGTERM') || ended, { what: 'the end of the peer' });
      assert.deepEqual(await peer.ended, { code: 143, signal: null });
      await stuck;
    } finally {
      await valkey.kill('SIGCONT');
    }
  });
});
