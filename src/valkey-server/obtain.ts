/**
 * Finds a `valkey-server`, or obtains one without changing the system: on Debian and its relatives, the distribution's
 * own packages are downloaded and unpacked into a cache folder. The demo and the tests need it; a node doesn't.
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MeshError } from '../../crdts/errors.js';
import { distributionSources } from './apt-sources.js';

const run = promisify(execFile);

/** Servers that can be obtained: Valkey, and for the tests the Redis that speaks the same protocol. */
export type ServerProduct = 'valkey' | 'redis';

const PRODUCTS = {
  valkey: {
    variable: 'VALKEY_SERVER',
    install: 'Valkey 7.2 or later',
    packages: ['valkey-tools', 'valkey-server', 'libjemalloc2', 'liblzf1', 'libatomic1'],
  },
  redis: {
    variable: 'REDIS_SERVER',
    install: 'Redis 7.0 or later',
    packages: ['redis-tools', 'redis-server', 'libjemalloc2', 'liblzf1', 'libatomic1'],
  },
} as const;

/** Thrown when there is no `valkey-server` here and none can be obtained; the message says what to do. */
export class ValkeyServerMissingError extends MeshError {
  constructor(reason: string, options: { cause?: unknown; product?: ServerProduct } = {}) {
    const { product = 'valkey', ...rest } = options;
    const { variable, install } = PRODUCTS[product];
    super(
      'VALKEY_SERVER_MISSING',
      `no ${product}-server: ${reason}. Install ${install} so that ${product}-server is on the PATH, or set ${variable} to its path`,
      rest,
    );
  }
}

/** A Valkey that can be started. */
export interface ValkeyBinaries {
  /** Path of `valkey-server`. */
  readonly path: string;
  /** Path of `valkey-cli`; null when it isn't there. */
  readonly cli: string | null;
  /** Path of `valkey-benchmark`; null when it isn't there. */
  readonly benchmark: string | null;
  /** Environment to start any of them with: this process's, with a library path where the binaries need one. */
  readonly env: NodeJS.ProcessEnv;
  /** For example '8.0.1'. */
  readonly version: string;
  /** Where it came from: the VALKEY_SERVER (REDIS_SERVER) variable, the PATH, or a package of the distribution. */
  readonly source: 'variable' | 'path' | 'package';
}

/** Options of {@link obtainValkey}. */
export interface ObtainOptions {
  /** Default: 'valkey'. */
  readonly product?: ServerProduct;
  /** Environment to read PATH and VALKEY_SERVER (REDIS_SERVER) from. Default: this process's. */
  readonly env?: NodeJS.ProcessEnv;
  /** Folder of unpacked packages. Default: node_modules/.cache/valkey-mesh, else the user's cache folder. */
  readonly cacheDir?: string;
  /** Folder whose etc/os-release and etc/apt tell which distribution this is. Default: '/'. */
  readonly systemRoot?: string;
  /** Told once when something has to be downloaded, which takes seconds. */
  readonly onDownload?: (cacheDir: string) => void;
}

const DOWNLOAD_DEADLINE_MS = 180_000;

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function onPath(name: string, env: NodeJS.ProcessEnv): Promise<string | null> {
  for (const dir of (env.PATH ?? '').split(delimiter)) {
    if (dir !== '' && (await isExecutable(join(dir, name)))) return join(dir, name);
  }
  return null;
}

/** Runs `--version`; throws when the binary doesn't run here. */
async function versionOf(path: string, env: NodeJS.ProcessEnv): Promise<string> {
  const { stdout } = await run(path, ['--version'], { env, timeout: 20_000 });
  const version = /\bv=(\d+(?:\.\d+)*)/.exec(stdout)?.[1];
  if (version === undefined)
    throw new Error(`${path} --version says ${JSON.stringify(stdout.slice(0, 200))}`);
  return version;
}

async function installed(
  path: string,
  env: NodeJS.ProcessEnv,
  source: 'variable' | 'path',
  product: ServerProduct,
): Promise<ValkeyBinaries> {
  const beside = async (name: string) => {
    const sibling = join(dirname(path), name);
    return (await isExecutable(sibling)) ? sibling : onPath(name, env);
  };
  return {
    path,
    cli: await beside(`${product}-cli`),
    benchmark: await beside(`${product}-benchmark`),
    env,
    version: await versionOf(path, env),
    source,
  };
}

/** What was unpacked in a folder; null when it is absent or doesn't run. */
async function unpacked(
  root: string,
  env: NodeJS.ProcessEnv,
  product: ServerProduct,
): Promise<ValkeyBinaries | null> {
  const bin = join(root, 'usr', 'bin');
  const path = join(bin, `${product}-server`);
  if (!(await isExecutable(path))) return null;
  const lib = join(root, 'usr', 'lib');
  const folders = (await readdir(lib, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const libraries = [...folders.map((entry) => join(lib, entry.name)), env.LD_LIBRARY_PATH ?? ''];
  const withLibraries = { ...env, LD_LIBRARY_PATH: libraries.filter((dir) => dir !== '').join(':') };
  try {
    const version = await versionOf(path, withLibraries);
    const cli = join(bin, `${product}-cli`);
    const benchmark = join(bin, `${product}-benchmark`);
    return { path, cli, benchmark, env: withLibraries, version, source: 'package' };
  } catch {
    return null;
  }
}

/** The first of the candidate folders that this process may write to, created. */
async function cacheFolder(env: NodeJS.ProcessEnv): Promise<string> {
  const candidates: string[] = [];
  let dir = dirname(fileURLToPath(import.meta.url));
  while (dirname(dir) !== dir) {
    if (await isExecutable(join(dir, 'node_modules'))) {
      candidates.push(join(dir, 'node_modules', '.cache', 'valkey-mesh'));
      break;
    }
    dir = dirname(dir);
  }
  candidates.push(join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'valkey-mesh'));
  for (const candidate of candidates) {
    try {
      await mkdir(candidate, { recursive: true });
      await access(candidate, constants.W_OK);
      return candidate;
    } catch {}
  }
  throw new ValkeyServerMissingError(
    `no folder to unpack it in: ${candidates.join(' and ')} can't be written`,
  );
}

async function readAptSources(systemRoot: string): Promise<{ name: string; content: string }[]> {
  const parts = join(systemRoot, 'etc/apt/sources.list.d');
  const names = (await readdir(parts).catch(() => []))
    .filter((name) => name.endsWith('.sources') || name.endsWith('.list'))
    .map((name) => join(parts, name))
    .sort();
  const files = [];
  for (const name of [join(systemRoot, 'etc/apt/sources.list'), ...names]) {
    const content = await readFile(name, 'utf8').catch(() => null);
    if (content !== null) files.push({ name, content });
  }
  return files;
}

/** Downloads the packages into `work` with a private apt state, and unpacks them into `work/root`. */
async function download(
  work: string,
  codename: string,
  systemRoot: string,
  env: NodeJS.ProcessEnv,
  product: ServerProduct,
): Promise<string> {
  const sources = distributionSources(await readAptSources(systemRoot), codename);
  if (sources === null) {
    throw new ValkeyServerMissingError(`the apt sources of this machine don't name the suite ${codename}`, {
      product,
    });
  }
  const folders = ['state/lists/partial', 'cache/archives/partial', 'sources', 'empty', 'debs', 'root'];
  for (const folder of folders) await mkdir(join(work, folder), { recursive: true });
  await writeFile(join(work, 'sources', 'mesh.list'), sources.list);
  await writeFile(join(work, 'sources', 'mesh.sources'), sources.sources);
  await writeFile(join(work, 'status'), '');

  // The machine's own hooks (Post-Invoke …) must not run, so its apt.conf.d is left out; only how to reach the mirror is kept.
  const { stdout: machine } = await run('apt-config', ['dump'], { env });
  const reach = machine.split('\n').filter((line) => /^Acquire::(https?|Retries|ForceIPv[46])\b/i.test(line));
  const own = [
    `Dir::State "${work}/state"`,
    `Dir::State::status "${work}/status"`,
    `Dir::Cache "${work}/cache"`,
    `Dir::Etc::sourcelist "/dev/null"`,
    `Dir::Etc::sourceparts "${work}/sources"`,
    `Dir::Etc::parts "${work}/empty"`,
    `Dir::Etc::main "/dev/null"`,
    `Dir::Etc::preferences "/dev/null"`,
    `Dir::Etc::preferencesparts "${work}/empty"`,
    // apt would drop to its own user, who can't write here; as a plain user, naming that user changes nothing.
    `APT::Sandbox::User "${userInfo().username}"`,
    `Acquire::Languages "none"`,
  ];
  await writeFile(join(work, 'apt.conf'), `${[...reach, ...own.map((line) => `${line};`)].join('\n')}\n`);

  const aptEnv = { ...env, APT_CONFIG: join(work, 'apt.conf'), LC_ALL: 'C' };
  const options = { env: aptEnv, cwd: join(work, 'debs'), timeout: DOWNLOAD_DEADLINE_MS };
  // A suite that the mirror lacks fails the update, yet leaves the others usable: the download decides.
  const updated = await run('apt-get', ['update'], options).then(
    () => null,
    (cause: unknown) => cause,
  );
  await run('apt-get', ['download', ...PRODUCTS[product].packages], options).catch((cause: unknown) => {
    throw updated ?? cause;
  });
  for (const name of await readdir(join(work, 'debs'))) {
    if (name.endsWith('.deb'))
      await run('dpkg-deb', ['-x', join(work, 'debs', name), join(work, 'root')], { env });
  }
  return join(work, 'root');
}

/** Runs `task` while no other process of this machine that uses the same lock file does; a dead owner's lock is taken over. */
async function exclusively<T>(lockFile: string, task: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + DOWNLOAD_DEADLINE_MS;
  for (;;) {
    try {
      const lock = await open(lockFile, 'wx');
      await lock.writeFile(String(process.pid));
      await lock.close();
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = Number(await readFile(lockFile, 'utf8').catch(() => ''));
    if ((owner > 0 && !isAlive(owner)) || Date.now() > deadline) await rm(lockFile, { force: true });
    else await new Promise((resolve) => setTimeout(resolve, 50));
  }
  try {
    return await task();
  } finally {
    await rm(lockFile, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function fromPackage(options: ObtainOptions, env: NodeJS.ProcessEnv): Promise<ValkeyBinaries> {
  const { product = 'valkey' } = options;
  const systemRoot = options.systemRoot ?? '/';
  const release = await readFile(join(systemRoot, 'etc/os-release'), 'utf8').catch(() => '');
  const codename = /^VERSION_CODENAME="?([\w.-]+)/m.exec(release)?.[1];
  for (const tool of ['apt-get', 'apt-config', 'dpkg-deb']) {
    if (codename === undefined || (await onPath(tool, env)) === null) {
      throw new ValkeyServerMissingError(
        'it is not on the PATH, and this is no Debian to take its package from',
        { product },
      );
    }
  }
  const cache = options.cacheDir ?? (await cacheFolder(env));
  await mkdir(cache, { recursive: true });
  const target = join(cache, `${product}-server-${codename}-${process.arch}`);
  const present = await unpacked(target, env, product);
  if (present !== null) return present;

  return exclusively(`${target}.lock`, async () => {
    const meanwhile = await unpacked(target, env, product);
    if (meanwhile !== null) return meanwhile;
    options.onDownload?.(cache);
    const work = await mkdtemp(join(cache, 'download-'));
    try {
      const root = await download(work, codename ?? '', systemRoot, env, product);
      if ((await unpacked(root, env, product)) === null)
        throw new Error(`the unpacked ${product}-server does not run here`);
      await rm(target, { recursive: true, force: true });
      await rename(root, target);
    } catch (cause) {
      if (cause instanceof MeshError) throw cause;
      const text =
        cause instanceof Error ? cause.message.trim().split('\n').slice(-3).join(' | ') : String(cause);
      throw new ValkeyServerMissingError(`its package could not be obtained (${text})`, { cause, product });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    const result = await unpacked(target, env, product);
    if (result === null)
      throw new ValkeyServerMissingError(`what was unpacked in ${target} does not run`, { product });
    return result;
  });
}

/**
 * Finds or obtains a Valkey server (or a Redis one): the one that VALKEY_SERVER (REDIS_SERVER) names, else the one on the PATH, else the distribution's
 * package, unpacked in a cache. Safe to call from several processes at once. The system stays as it is.
 *
 * Throws {@link ValkeyServerMissingError} when that is impossible: another distribution, or no way to its mirror.
 */
export async function obtainValkey(options: ObtainOptions = {}): Promise<ValkeyBinaries> {
  const { env = process.env, product = 'valkey' } = options;
  const { variable } = PRODUCTS[product];
  const forced = env[variable];
  if (forced !== undefined && forced !== '') {
    return installed(forced, env, 'variable', product).catch((cause: unknown) => {
      throw new ValkeyServerMissingError(`${variable} is ${JSON.stringify(forced)}, which does not run`, {
        cause,
        product,
      });
    });
  }
  const found = await onPath(`${product}-server`, env);
  if (found !== null) {
    // One that doesn't run (a broken install) is as good as none.
    const usable = await installed(found, env, 'path', product).catch(() => null);
    if (usable !== null) return usable;
  }
  return fromPackage(options, env);
}
