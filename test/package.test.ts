import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePorts } from './support/process.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TSC = join(ROOT, 'node_modules', '.bin', 'tsc');

/** Runs a program; gives its output, and throws with all of it when it fails. */
function run(cwd: string, command: string, ...args: string[]): Promise<string> {
  // A test process tells its children that they are tests, and npm tells its own which package it runs: neither is true here.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_TEST)/.test(name)),
  );
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd, env, maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${command} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error }));
    });
  });
}

const CONSUMER = `
import { createNode } from 'valkey-mesh';
import { utf8 } from 'valkey-mesh/crdts';

const node = await createNode({ region: 'eu', listen: [] });
node.on('change', () => {});
await node.register('greeting').set('hello');
const greeting: string | null = await node.register('greeting').get();
// @ts-expect-error: it may be absent, so the types are really there, and strict
const certain: string = await node.register('greeting').get();
const visits: bigint | number = await node.counter('visits').increment(2);
await node.set('cities').add('Berlin', 'Austin');
const cities: string[] = [];
for await (const city of node.set('cities')) cities.push(city);
await node.stop();
console.log(JSON.stringify({ greeting, certain, visits: String(visits), cities: cities.sort(), bytes: utf8('é').length }));
`;

describe('The package, packed and installed in an empty folder', () => {
  const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-package-'));
  const project = join(folder, 'project');
  let packed: { filename: string; files: { path: string }[] };
  before(async () => {
    // By itself first: under `npm pack` what the compiler says gets lost.
    await run(ROOT, 'npm', 'run', 'build');
    const output = await run(ROOT, 'npm', 'pack', '--json', '--pack-destination', folder);
    [packed] = JSON.parse(output.slice(output.indexOf('[\n'))) as [typeof packed];
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{ "name": "consumer", "private": true, "type": "module" }');
    const tarball = join(folder, packed.filename);
    await run(project, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('holds the built code, its types, the README and the licence, and nothing else', () => {
    const paths = packed.files.map((file) => file.path);
    const others = paths.filter((path) => !/^dist\/(?:src|crdts)\/.*(?:\.js|\.d\.ts)$/.test(path));
    assert.deepEqual(others.toSorted(), ['LICENSE', 'README.md', 'package.json']);
    for (const path of [
      'dist/src/index.js',
      'dist/src/index.d.ts',
      'dist/src/cli.js',
      'dist/crdts/index.js',
    ]) {
      assert(paths.includes(path), path);
    }
  });

  it('is typed for a strict consumer, and does what its README shows', async () => {
    writeFileSync(join(project, 'consumer.ts'), CONSUMER);
    const compilerOptions = {
      ...{
        target: 'es2023',
        module: 'nodenext',
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: true,
      },
      ...{ types: ['node'], typeRoots: [join(ROOT, 'node_modules', '@types')] },
    };
    writeFileSync(
      join(project, 'tsconfig.json'),
      JSON.stringify({ compilerOptions, files: ['consumer.ts'] }),
    );
    await run(project, TSC, '-p', 'tsconfig.json');
    const printed = await run(project, process.execPath, 'consumer.js');
    assert.deepEqual(JSON.parse(printed), {
      ...{ greeting: 'hello', certain: 'hello', visits: '2', cities: ['Austin', 'Berlin'], bytes: 2 },
    });
  });

  it('installs its binary', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    assert.equal((await run(project, 'npx', '--no-install', 'valkey-mesh', '--version')).trim(), version);
    const made = await run(
      project,
      'npx',
      '--no-install',
      'valkey-mesh',
      'keygen',
      '--out',
      'id.key',
      '--json',
    );
    assert.match((JSON.parse(made) as { peerId: string }).peerId, /^12D3KooW/);
  });

  it('runs its demo from the installed binary', async () => {
    const story = await run(
      project,
      ...([
        'npx',
        '--no-install',
        'valkey-mesh',
        'demo',
        '--store',
        'memory',
        '--regions',
        '2',
        '--latency',
        '2',
      ] as const),
      ...['--base-port', String(await freePorts(2)), '--http-port', String(await freePorts(2)), '--exit'],
    );
    assert.match(story, /all 2 digests are equal/);
  });
});

describe('The repository', () => {
  const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).trimEnd().split('\n');

  it('has nothing at its top but what belongs there', () => {
    const allowed = new Set([
      'src',
      'crdts',
      'bench',
      'test',
      'package.json',
      'tsconfig.json',
      'LICENSE',
      'README.md',
      'package-lock.json',
    ]);
    const found = new Set(tracked.map((path) => path.split('/')[0]!));
    assert.deepEqual(
      [...found].filter((name) => !name.startsWith('.') && !allowed.has(name)),
      [],
    );
  });

  it('locks the optional packages of every platform, without which npm ci refuses, and no address', () => {
    // npm leaves those out that the registry at hand doesn't have: then add them by hand, as they stand for the others.
    type Locked = { resolved?: string; optionalDependencies?: Record<string, string> };
    const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, Locked>;
    };
    for (const [path, { resolved, optionalDependencies = {} }] of Object.entries(lock.packages)) {
      assert.equal(resolved, undefined, path);
      for (const name of Object.keys(optionalDependencies)) {
        const found = [`node_modules/${name}`, `${path}/node_modules/${name}`].some(
          (at) => at in lock.packages,
        );
        assert(found, `${name}, which ${path} names, isn't in package-lock.json`);
      }
    }
  });

  it('names no package registry and no mirror', () => {
    // The lock file is npm's own and names where each package came from, unless npm was told to omit it.
    const hosts = /\b(?:registry|mirror|proxy)\.[a-z0-9-]+\.[a-z]+\b|\bdeb\.[a-z]+\.org\b/;
    for (const path of tracked.filter(
      (each) => /\.(?:ts|json|md|yml|yaml|sh)$|^\.ci\//.test(each) && each !== 'package-lock.json',
    )) {
      const [found] = hosts.exec(readFileSync(join(ROOT, path), 'utf8')) ?? [];
      assert.equal(found, undefined, `${path} names ${found}`);
    }
  });
});
