/** Finding, obtaining and launching a Valkey server. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { distributionSources } from '../src/valkey-server/apt-sources.js';
import { type LaunchedValkey, type LaunchOptions, launchValkey } from '../src/valkey-server/launch.js';
import { obtainValkey } from '../src/valkey-server/obtain.js';
import { waitFor } from './support/wait.js';

const endings: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function folder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'valkey-mesh-test-'));
  endings.push(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function script(path: string, lines: string): Promise<void> {
  await writeFile(path, `#!/bin/sh\n${lines}\n`);
  await chmod(path, 0o755);
}

const STUB_SERVER = 'echo "Valkey server v=9.8.7 sha=0 bits=64"';

describe('obtainValkey', () => {
  it('takes the server that VALKEY_SERVER names, and says so when it does not run', async () => {
    const dir = await folder();
    await script(join(dir, 'server'), STUB_SERVER);
    await script(join(dir, 'valkey-cli'), '');
    const { version, source, path, cli, benchmark } = await obtainValkey({
      env: { PATH: '', VALKEY_SERVER: join(dir, 'server') },
    });
    assert.deepEqual(
      [version, source, path, cli, benchmark],
      ['9.8.7', 'variable', join(dir, 'server'), join(dir, 'valkey-cli'), null],
    );
    await assert.rejects(obtainValkey({ env: { PATH: dir, VALKEY_SERVER: '/nowhere' } }), {
      code: 'VALKEY_SERVER_MISSING',
      message: /VALKEY_SERVER.*nowhere.*does not run/,
    });
  });

  it('takes the server on the PATH', async () => {
    const dir = await folder();
    await script(join(dir, 'valkey-server'), STUB_SERVER);
    const { version, source, path } = await obtainValkey({ env: { PATH: `/nowhere:${dir}` } });
    assert.deepEqual([version, source, path], ['9.8.7', 'path', join(dir, 'valkey-server')]);
  });

  it('finds a server for these tests, which runs', async () => {
    const { version, path, env } = await obtainValkey();
    assert.match(version, /^\d+\.\d+/);
    assert.ok(existsSync(path));
    assert.ok(env.PATH);
  });

  /** A machine with stubs for apt, which count their calls. */
  async function machine(apt: { update?: string; download?: string } = {}) {
    const dir = await folder();
    const bin = join(dir, 'bin');
    await mkdir(join(dir, 'etc/apt/sources.list.d'), { recursive: true });
    await mkdir(bin);
    await writeFile(join(dir, 'etc/os-release'), 'NAME="Some"\nVERSION_CODENAME=someone\n');
    await writeFile(join(dir, 'etc/apt/sources.list'), 'deb [arch=any] mirror:/here someone main\n');
    const makeDeb = 'for name in "$@"; do case $name in -*|download) ;; *) echo x > "$name.deb";; esac; done';
    await script(
      join(bin, 'apt-get'),
      `PATH=/usr/bin:/bin
echo "$1" >> ${dir}/calls; cp "$APT_CONFIG" ${dir}/apt.conf; cat "$(dirname "$APT_CONFIG")"/sources/* > ${dir}/sources
if [ "$1" = update ]; then ${apt.update ?? 'exit 0'}; else ${apt.download ?? makeDeb}; fi`,
    );
    await script(
      join(bin, 'apt-config'),
      'echo \'Acquire::http::Proxy "proxy";\'; echo \'APT::Update::Post-Invoke:: "evil";\'',
    );
    await script(
      join(bin, 'dpkg-deb'),
      `PATH=/usr/bin:/bin
mkdir -p "$3/usr/bin" "$3/usr/lib/some-arch"
printf '#!/bin/sh\\n[ -n "$LD_LIBRARY_PATH" ] && echo v=8.7.6\\n' > "$3/usr/bin/valkey-server"; chmod +x "$3/usr/bin/valkey-server"`,
    );
    const calls = async () => (await readFile(join(dir, 'calls'), 'utf8').catch(() => '')).trim().split('\n');
    return { dir, calls, options: { env: { PATH: bin }, cacheDir: join(dir, 'cache'), systemRoot: dir } };
  }

  it('unpacks the package of the distribution once, for all who ask at once and later', async () => {
    const { dir, calls, options } = await machine();
    const all = await Promise.all([1, 2, 3].map(() => obtainValkey(options)));
    all.push(await obtainValkey(options));
    for (const { version, source, env } of all) {
      assert.deepEqual([version, source], ['8.7.6', 'package']);
      assert.match(env.LD_LIBRARY_PATH ?? '', /usr\/lib\/some-arch$/);
    }
    assert.deepEqual(await calls(), ['update', 'download']);
    assert.equal((await readdir(options.cacheDir)).length, 1);
    const conf = await readFile(join(dir, 'apt.conf'), 'utf8');
    assert.match(conf, /Acquire::http::Proxy "proxy"/);
    assert.doesNotMatch(conf, /evil/);
    assert.equal(
      await readFile(join(dir, 'sources'), 'utf8'),
      'deb [arch=any] mirror:/here someone main\ndeb [arch=any] mirror:/here someone-backports main\n',
    );
  });

  it('goes on when only one suite of the mirror can be read', async () => {
    const { options } = await machine({ update: 'echo "E: no backports" >&2; exit 100' });
    assert.equal((await obtainValkey(options)).version, '8.7.6');
  });

  it('takes the lock of a process over that died', async () => {
    const { options } = await machine();
    const dead = spawn('/bin/true');
    await new Promise((resolve) => dead.once('exit', resolve));
    await mkdir(options.cacheDir);
    await writeFile(join(options.cacheDir, `valkey-server-someone-${process.arch}.lock`), String(dead.pid));
    assert.equal((await obtainValkey(options)).version, '8.7.6');
  });

  it('says what to do where it is impossible, and leaves nothing behind', async () => {
    const offline = await machine({
      update: 'echo "E: offline" >&2; exit 100',
      download: 'echo "E: none" >&2; exit 100',
    });
    await assert.rejects(obtainValkey(offline.options), {
      code: 'VALKEY_SERVER_MISSING',
      message: /offline.*Install Valkey.*VALKEY_SERVER/s,
    });
    assert.deepEqual(await readdir(offline.options.cacheDir), []);
    const elsewhere = await machine();
    await writeFile(join(elsewhere.dir, 'etc/os-release'), 'VERSION_CODENAME=other\n');
    await assert.rejects(obtainValkey(elsewhere.options), { message: /don't name the suite other/ });
    await assert.rejects(obtainValkey({ ...elsewhere.options, env: { PATH: '' } }), { message: /no Debian/ });
  });
});

describe('distributionSources', () => {
  const find = (name: string, content: string) => distributionSources([{ name, content }], 'suite');

  it('reads one-line lists', () => {
    const content =
      '# deb mirror:/no suite main\ndeb-src mirror:/src suite main\ndeb mirror:/sec suite-security main\ndeb [signed-by=/k] mirror:/a suite main contrib # x\n';
    assert.equal(
      find('a.list', content)?.list,
      'deb [signed-by=/k] mirror:/a suite main contrib\ndeb [signed-by=/k] mirror:/a suite-backports main contrib\n',
    );
    assert.equal(find('a.list', 'deb mirror:/a other main\n'), null);
  });

  it('reads deb822 stanzas, with their keys', () => {
    const content = `Types: deb
URIs: mirror:/off
Suites: suite
Components: main
Enabled: no

# comment
Types: deb deb-src
URIs: mirror:/a
  mirror:/b
Suites: suite suite-updates
Components: main
Signed-By:
 -----BEGIN-----
 .
 key
`;
    assert.equal(
      find('a.sources', content)?.sources,
      ['suite', 'suite-backports']
        .map(
          (suite) =>
            `Types: deb\nURIs: mirror:/a mirror:/b\nSuites: ${suite}\nComponents: main\nSigned-By: \n -----BEGIN-----\n .\n key\n`,
        )
        .join('\n'),
    );
    assert.equal(find('a.sources', content.replace('Suites: suite suite-updates', 'Suites: other')), null);
  });
});

/** Says whether something listens on a port. */
function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Processes of the session that a server leads: itself and its watchdog. Zombies, which no one may reap here, don't count. */
function sessionOf(pid: number): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const fields = readFileSync(`/proc/${name}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return fields[3] === String(pid) && fields[0] !== 'Z';
    } catch {
      return false;
    }
  });
}

async function launch(options: LaunchOptions = {}): Promise<LaunchedValkey> {
  const server = await launchValkey(options);
  endings.push(() => server.stop());
  return server;
}

describe('launchValkey', () => {
  it('starts servers side by side, and leaves nothing of them', async () => {
    const servers = await Promise.all([launch(), launch(), launch()]);
    assert.equal(new Set(servers.map(({ port }) => port)).size, 3);
    for (const { port, pid, dir } of servers) {
      assert.ok((await listens(port)) && existsSync(dir));
      assert.equal(sessionOf(pid).length, 2);
    }
    await Promise.all(servers.flatMap((server) => [server.stop(), server.stop()]));
    for (const { port, pid, dir } of servers) {
      assert.ok(!(await listens(port)) && !existsSync(dir));
      await waitFor(() => sessionOf(pid).length === 0, { what: 'the end of the watchdog' });
    }
  });

  it('restarts a server on its port, with its data when they are kept', async () => {
    for (const appendonly of [true, false]) {
      const server = await launch({ appendonly });
      const { port, pid } = server;
      const redis = new Redis(server.url);
      redis.on('error', () => {});
      endings.push(() => redis.disconnect());
      await redis.set('k', 'v');
      await server.kill('SIGKILL');
      assert.equal(await listens(port), false);
      await server.restart();
      assert.equal(server.port, port);
      assert.notEqual(server.pid, pid);
      assert.equal(await redis.get('k'), appendonly ? 'v' : null);
      await server.restart();
      assert.equal(await redis.get('k'), appendonly ? 'v' : null);
    }
  });

  it('stops a server that stands still', async () => {
    const server = await launch();
    await server.kill('SIGSTOP');
    await server.stop();
    assert.equal(await listens(server.port), false);
  });

  it('keeps a folder that it was given', async () => {
    const dir = join(await folder(), 'data');
    const server = await launch({ dir });
    await server.stop();
    assert.ok(existsSync(join(dir, 'valkey.log')));
  });

  it('says why a server did not start', async () => {
    await assert.rejects(launchValkey({ args: ['--no-such-option', 'x'] }), {
      code: 'VALKEY_SERVER_START',
      message: /no-such-option/,
    });
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    endings.push(() => new Promise((resolve) => taken.close(resolve)));
    const { port } = taken.address() as { port: number };
    await assert.rejects(launchValkey({ port }), {
      code: 'VALKEY_SERVER_START',
      message: /in use|Failed listening/,
    });
  });

  for (const signal of ['SIGKILL', 'SIGINT', 'SIGTERM'] as const) {
    it(`leaves no server behind when the process that started it gets ${signal}`, async () => {
      const child = spawn(
        process.execPath,
        ['--import', 'tsx', fileURLToPath(new URL('./support/launch-child.ts', import.meta.url))],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      endings.push(() => child.kill('SIGKILL'));
      const line = await new Promise<string>((resolve, reject) => {
        createInterface(child.stdout).once('line', resolve);
        child.once('exit', () => reject(new Error('the child ended before it launched a server')));
      });
      const { port, pid, dir } = JSON.parse(line) as { port: number; pid: number; dir: string };
      assert.ok(await listens(port));
      child.kill(signal);
      await waitFor(async () => !(await listens(port)), { what: 'the port to be closed' });
      await waitFor(() => sessionOf(pid).length === 0 && !existsSync(dir), {
        what: 'server, watchdog and folder to be gone',
      });
    });
  }
});
