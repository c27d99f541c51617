import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { LatencyProxy } from '../src/demo/latency-proxy.js';
import { CliProcess, freePorts, isPortFree, killLeftovers } from './support/process.js';
import { waitFor } from './support/wait.js';

afterEach(killLeftovers);

describe('A latency proxy', () => {
  const ONE_WAY_MS = 60;
  const echo = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  let proxy: LatencyProxy;
  before(async () => {
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
    proxy = await LatencyProxy.listen(ONE_WAY_MS);
  });
  after(async () => {
    await proxy.stop();
    await new Promise((resolve) => echo.close(resolve));
  });
  const dial = () =>
    new Promise<Socket>((resolve, reject) => {
      const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
      socket.once('connect', () => resolve(socket));
      socket.once('error', reject);
    });
  const closed = (socket: Socket) =>
    new Promise<void>((resolve) => {
      socket.on('error', () => {});
      socket.once('close', () => resolve());
      socket.resume();
    });

  /** Waits until a new connection is reset, while it is made or just after. */
  const refused = () => closed(connect({ port: proxy.port, host: '127.0.0.1' }));

  it('refuses until it has a target', async () => {
    await refused();
    const address = echo.address();
    assert(typeof address === 'object' && address !== null);
    proxy.forwardTo({ host: '127.0.0.1', port: address.port });
  });

  it('delays both directions, and keeps every byte in order, through a half-closed connection too', async () => {
    const socket = await dial();
    const started = performance.now();
    let firstMs = 0;
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => {
      firstMs ||= performance.now() - started;
      chunks.push(chunk);
    });
    const sent = Buffer.alloc(3_000_000, 'abcdefghijklm');
    socket.end(sent);
    await new Promise((resolve) => socket.once('end', resolve));
    // Timers may fire up to a millisecond early.
    assert(firstMs >= 2 * ONE_WAY_MS - 2, `the first byte came back after ${firstMs} ms`);
    assert(Buffer.concat(chunks).equals(sent));
    socket.destroy();
  });

  it('breaks connections when it is cut, refuses new ones, and lets them in when it is healed', async () => {
    const socket = await dial();
    const gone = closed(socket);
    proxy.cut();
    await gone;
    await refused();
    proxy.heal();
    const again = await dial();
    again.write('back');
    const [back] = (await new Promise((resolve) => again.once('data', (...args) => resolve(args)))) as [
      Buffer,
    ];
    assert.equal(String(back), 'back');
    again.destroy();
  });
});

/** Ids of the processes that a process has started, and theirs. */
function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // It ended while we looked.
    }
  }
  const found = [pid];
  for (const each of found) for (const [child, parent] of parents) if (parent === each) found.push(child);
  return found.slice(1);
}

/** Says whether a process runs; one that has ended and only waits to be collected doesn't. */
function runs(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z';
  } catch {
    return false;
  }
}

async function startDemo(...flags: string[]): Promise<{ demo: CliProcess; ports: number[] }> {
  const first = await freePorts(6);
  const demo = new CliProcess([
    'demo',
    '--base-port',
    String(first),
    '--http-port',
    String(first + 3),
    ...flags,
  ]);
  return { demo, ports: [0, 1, 2, 3, 4, 5].map((at) => first + at) };
}

async function assertNothingIsLeft(pids: readonly number[], ports: readonly number[]): Promise<void> {
  await waitFor(() => !pids.some(runs), {
    deadlineMs: 30_000,
    what: `the end of the processes ${pids.join(', ')}`,
  });
  for (const port of ports) assert(await isPortFree(port), `port ${port} is free again`);
}

const folders = () => readdirSync(tmpdir()).filter((name) => name.startsWith('valkey-mesh-demo-'));

describe('The demo', () => {
  it('tells its story on three real Valkeys, and leaves nothing behind', async () => {
    const before = folders();
    const { demo, ports } = await startDemo('--exit');
    await demo.says(/1\. Every region takes writes/, 120_000);
    const pids = descendants(demo.child.pid!);
    assert(pids.length >= 6, `three peers and three Valkeys run: ${pids.length}`);
    const { code } = await demo.ended;
    assert.equal(code, 0, demo.stdout + demo.stderr);
    assert.match(
      demo.stdout,
      /3 regions, each with its own Valkey \d+\.\d+\.\d+\n.* 20 ms each way: 40 ms apart/,
    );
    assert.equal(
      demo.stdout.match(/Converged \d+ ms after .*; all 3 digests are equal: [0-9a-f]{12}\n/g)?.length,
      2,
    );
    // Each region's own Valkey holds the plain values.
    for (const region of ['eu', 'us', 'ap']) {
      assert.match(
        demo.stdout,
        new RegExp(`^ +${region} :\\d+ +hello from eu +30 +Austin Berlin Tokyo$`, 'm'),
      );
    }
    // The two sides differ while they are cut off …
    const [, divided = '', healed = ''] = demo.stdout.split(/^[23]\. /m);
    assert.match(divided, /^ +us +written in eu +35 +Austin Tokyo$/m);
    assert.match(divided, /^ +ap +written in ap, later +130 +Austin Berlin Paris Tokyo$/m);
    // … and are equal afterwards.
    for (const region of ['eu', 'us', 'ap']) {
      assert.match(
        healed,
        new RegExp(`^ +${region} +written in ap, later +135 +Austin Berlin Paris Tokyo$`, 'm'),
      );
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what must not be there
    assert.doesNotMatch(demo.stdout, /\u001b/, 'no colours when it is not a terminal');
    await assertNothingIsLeft(pids, ports);
    assert.deepEqual(folders(), before);
  });

  it('works without a Valkey, stays up for clients, and ends on Ctrl-C with nothing left', async () => {
    const { demo, ports } = await startDemo('--store', 'memory', '--latency', '0');
    await demo.says(/the regions stay up until Ctrl-C[\s\S]*valkey-cli -p \d+/, 120_000);
    assert.match(demo.stdout, /3 regions, each with values in memory/);
    const client = new Redis({ host: '127.0.0.1', port: ports[1]! });
    assert.equal(await client.get('visits'), '135');
    client.disconnect();
    const pids = descendants(demo.child.pid!);
    assert.deepEqual(await demo.end('SIGINT'), { code: 0, signal: null });
    await assertNothingIsLeft(pids, ports);
  });

  it('leaves no process when it is killed, in the middle of the story too', async () => {
    const before = new Set(folders());
    const { demo, ports } = await startDemo();
    await demo.says(/1\. Every region takes writes/, 120_000);
    const pids = descendants(demo.child.pid!);
    assert(pids.length >= 6);
    await demo.end('SIGKILL');
    await assertNothingIsLeft(pids, ports);
    // Nobody is left who could remove its folder.
    for (const name of folders()) if (!before.has(name)) rmSync(join(tmpdir(), name), { recursive: true });
  });

  it('ends on SIGTERM while it is still starting', async () => {
    const { demo, ports } = await startDemo('--store', 'memory');
    await demo.says(/Starting/);
    const pids = descendants(demo.child.pid!);
    assert.deepEqual(await demo.end('SIGTERM'), { code: 0, signal: null });
    await assertNothingIsLeft(pids, ports);
  });

  it('says which flag to change when a port is in use, before it starts anything', async () => {
    const first = await freePorts(6);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(first + 4, '127.0.0.1', resolve));
    const demo = new CliProcess(['demo', '--base-port', String(first), '--http-port', String(first + 3)]);
    const { code } = await demo.ended;
    server.close();
    assert.equal(code, 1);
    assert.equal(
      demo.stderr,
      `valkey-mesh: port ${first + 4} on 127.0.0.1 is in use; choose other ports with --http-port\n`,
    );
    assert.equal(demo.stdout, '');
  });

  it('falls back to memory, and says so, where there is no valkey-server', async () => {
    const demo = new CliProcess(
      [
        'demo',
        '--base-port',
        String(await freePorts(6)),
        '--http-port',
        String(await freePorts(3)),
        '--exit',
      ],
      { VALKEY_SERVER: '/nonexistent/valkey-server' },
    );
    const { code } = await demo.ended;
    assert.equal(code, 0, demo.stderr);
    assert.match(demo.stdout, /no valkey-server: [\s\S]*So this demo keeps its values in memory instead\./);
    assert.match(demo.stdout, /Everything is stopped\./);
  });
});
