/**
 * A Valkey that is there and can't do its work: no memory, no disk, no password, busy, loading, standing still. Each on a real
 * server, through the embed API and through RESP, while another region writes. Nothing is acknowledged that isn't committed,
 * every error says what it is, and the node goes on without a restart when the server is well again.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { createNode, type MeshNode } from '../src/node.js';
import { silentLogger } from '../src/options.js';
import { type FrontDoor, startFrontDoor } from '../src/resp/front-door.js';
import { type LaunchedValkey, type LaunchOptions, launchValkey } from '../src/valkey-server/launch.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;
const options = { deadlineMs: DEADLINE_MS };

interface World {
  readonly valkey: LaunchedValkey;
  readonly node: MeshNode;
  /** A client of the node's front door. */
  readonly door: Redis;
  /** Straight to the server. */
  readonly admin: Redis;
  /** Another region, in memory. */
  readonly other: MeshNode;
}

const endings: (() => Promise<unknown> | unknown)[] = [];
async function end(): Promise<void> {
  for (const each of endings.splice(0).reverse()) await each();
}

async function world(launch: LaunchOptions = {}, login = ''): Promise<World> {
  const user = login === '' ? [] : ['--user', 'app', 'on', `>${login}`, '~*', '+@all'];
  const valkey = await launchValkey({ ...launch, args: [...(launch.args ?? []), ...user] });
  endings.push(() => valkey.stop());
  const client = (port: number) => {
    const made = new Redis({
      host: '127.0.0.1',
      port,
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
      enableReadyCheck: false,
    });
    made.on('error', () => {});
    endings.push(() => made.disconnect());
    return made;
  };
  const admin = client(valkey.port);
  const store = login === '' ? valkey.url : `redis://app:${login}@127.0.0.1:${valkey.port}`;
  const node = await createNode({ region: 'eu', store, heartbeatMs: 100, antiEntropyMs: 1000 });
  endings.push(() => node.stop());
  const door: FrontDoor = await startFrontDoor({
    engine: node.engine,
    host: '127.0.0.1',
    port: 0,
    logger: silentLogger,
  });
  endings.push(() => door.stop());
  const other = await createNode({
    region: 'us',
    peers: node.addresses(),
    heartbeatMs: 100,
    antiEntropyMs: 1000,
  });
  endings.push(() => other.stop());
  await waitFor(
    () =>
      [node, other].every(
        (each) => each.status().state === 'ready' && each.status().peers.some(({ connected }) => connected),
      ),
    { ...options, what: 'both are ready and connected' },
  );
  return { valkey, node, door: client(door.port), admin, other };
}

/** Counts through the API, through RESP and in the other region, and knows how much of it was acknowledged. */
class Tally {
  readonly errors = new Map<string, number>();
  #acknowledged = 0;
  /** Those of the node itself, not of the other region. */
  #here = 0;
  #unknown = 0;
  #over = false;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(
    readonly world: World,
    readonly key: string,
  ) {}

  begin(): void {
    endings.push(() => {
      this.#over = true;
    });
    const { node, other, door } = this.world;
    const ways = [
      () => node.counter(this.key).increment(1),
      () => door.incr(this.key),
      () => other.counter(this.key).increment(1),
    ];
    this.#writing = Promise.all(
      ways.map(async (way, at) => {
        while (!this.#over) {
          await way().then(
            () => {
              this.#acknowledged += 1;
              if (at < 2) this.#here += 1;
            },
            (error: Error & { code?: string }) => this.#failed(error),
          );
          // As a client that waits a moment before it tries again.
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
      }),
    );
  }

  #failed(error: Error & { code?: string }): void {
    const name = error.code ?? error.message.split(' ')[0]!;
    this.errors.set(name, (this.errors.get(name) ?? 0) + 1);
    if (/^STORE_UNAVAILABLE|^STOREDOWN/.test(name)) this.#unknown += 1;
  }

  async grows(by = 50): Promise<void> {
    const wanted = this.#here + by;
    await waitFor(() => this.#here >= wanted, {
      ...options,
      what: `${by} writes more, after ${JSON.stringify([...this.errors])}`,
    });
  }

  /** Waits until a client was told one of these. */
  async told(...names: string[]): Promise<void> {
    await waitFor(() => names.some((name) => this.errors.has(name)), {
      ...options,
      what: `${names.join(' or ')} among ${JSON.stringify([...this.errors])}`,
    });
  }

  /** Ends the writing; checks that both regions and the server have what was acknowledged, and no error but these came. */
  async check(...names: string[]): Promise<void> {
    this.#over = true;
    await this.#writing;
    const { node, other, admin } = this.world;
    for (const name of this.errors.keys()) assert.ok(names.includes(name), `${name} is not one of ${names}`);
    // Two that lack one increment each show equal values.
    await waitFor(async () => (await node.digest()) === (await other.digest()), {
      ...options,
      what: 'the regions are equal',
    });
    const value = Number(await node.counter(this.key).value());
    assert.equal(Number(await admin.get(this.key)), value);
    assert.ok(value >= this.#acknowledged, `${value} counted, ${this.#acknowledged} acknowledged`);
    assert.ok(value <= this.#acknowledged + this.#unknown, 'what was refused does not count');
  }
}

describe('A Valkey without memory', () => {
  after(end);

  it('refuses writes with OOM, serves reads, takes deletions, and catches up when it has memory again', async () => {
    const it = await world();
    const { node, door, admin, other } = it;
    await node.register('big').set('x'.repeat(1000));
    const tally = new Tally(it, 'count');
    tally.begin();
    await tally.grows();
    await admin.config('SET', 'maxmemory', '1');
    await tally.told('STORE_REFUSED');
    await tally.told('OOM');
    const refusal = { code: 'STORE_REFUSED', reason: 'OOM', message: /^OOM .*raise its maxmemory/ };
    await assert.rejects(node.register('more').set('v'), refusal);
    await assert.rejects(door.set('more', 'v'), /^ReplyError: OOM /);
    assert.equal((await node.register('big').get())?.length, 1000);
    assert.equal(await door.del('big'), 1);
    assert.equal(node.status().state, 'ready');
    await other.register('from us').set('v');
    await admin.config('SET', 'maxmemory', '0');
    await tally.grows();
    await waitFor(async () => (await door.get('from us')) === 'v', options);
    await tally.check('STORE_REFUSED', 'OOM');
    assert.equal(await admin.exists('more'), 0);
  });
});

describe('A Valkey without disk', () => {
  const dir = mkdtempSync(join(tmpdir(), 'valkey-mesh-disk-'));
  let mounted = '';
  before(() => {
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', dir], { stdio: 'pipe' });
    } catch (error) {
      mounted = `a small disk can't be mounted here (${(error as Error).message.trim().split('\n').at(-1)}): run this test as root`;
    }
  });
  after(async () => {
    await end();
    if (mounted === '') execFileSync('umount', [dir]);
    rmSync(dir, { recursive: true, force: true });
  });

  it('refuses writes with MISCONF, serves reads, and goes on when there is room again', async (t) => {
    if (mounted !== '') {
      process.stderr.write(`skipped: ${mounted}\n`);
      t.skip(mounted);
      return;
    }
    const it = await world({ dir, appendonly: true });
    const { node, door } = it;
    await node.register('before').set('v');
    const tally = new Tally(it, 'count');
    tally.begin();
    await tally.grows();
    const filler = join(dir, 'filler');
    const { bavail, bsize } = statfsSync(dir);
    writeFileSync(filler, Buffer.alloc(Math.max(0, bavail - 1) * bsize));
    // The last block fills with what is written meanwhile.
    const large = 'x'.repeat(8192);
    await waitFor(
      () =>
        node
          .register('large')
          .set(large)
          .then(
            () => false,
            () => true,
          ),
      options,
    );
    await tally.told('STORE_REFUSED');
    await tally.told('MISCONF');
    await assert.rejects(node.register('more').set('v'), { code: 'STORE_REFUSED', reason: 'MISCONF' });
    await assert.rejects(door.set('more', 'v'), /^ReplyError: MISCONF /);
    assert.equal(await node.register('before').get(), 'v');
    assert.equal(node.status().state, 'ready');
    truncateSync(filler, 0);
    await tally.grows();
    await tally.check('STORE_REFUSED', 'MISCONF');
  });
});

/** Says BUSY soon; takes a millisecond for each key when it loads, and answers meanwhile. */
const SLOW_LOADER = [
  ...['--busy-reply-threshold', '50'],
  ...['--key-load-delay', '1000', '--loading-process-events-interval-bytes', '1024'],
];

describe('A Valkey', () => {
  let it1: World;
  before(async () => {
    it1 = await world({ appendonly: true, args: SLOW_LOADER }, 'right');
  });
  after(end);

  /** Errors of a node whose store is away, at the API and over RESP; LOADING while it compares its data with the others' afterwards. */
  const AWAY = ['STORE_UNAVAILABLE', 'STOREDOWN', 'MASTERDOWN', 'LOADING'];

  /** What the status says is wrong with the store. */
  const problem = () => String(it1.node.status().store.problem);

  async function recovers(tally: Tally): Promise<void> {
    await waitFor(() => it1.node.status().state === 'ready', { ...options, what: 'the node is ready' });
    await tally.grows();
  }

  it('that runs a long script of someone else: clear errors until that ends', async () => {
    const tally = new Tally(it1, 'busy');
    tally.begin();
    await tally.grows();
    const script = new Redis(it1.valkey.url, { retryStrategy: null });
    script.on('error', () => {});
    const running = script.eval('while true do end', 0).catch((error: Error) => error);
    await tally.told('STORE_REFUSED', 'STORE_UNAVAILABLE');
    await tally.told('BUSY', 'STOREDOWN');
    await it1.admin.script('KILL' as 'FLUSH');
    assert.match(String(await running), /killed/i);
    script.disconnect();
    await recovers(tally);
    await tally.check('STORE_REFUSED', 'BUSY', ...AWAY);
  });

  it('whose password changes: clear errors, and it goes on when the password is right again', async () => {
    const tally = new Tally(it1, 'password');
    tally.begin();
    await tally.grows();
    await it1.admin.acl('SETUSER', 'app', 'resetpass', '>wrong');
    await it1.admin.call('CLIENT', 'KILL', 'USER', 'app');
    await waitFor(() => /WRONGPASS.*check user and password/.test(problem()), {
      ...options,
      what: 'the reason',
    });
    await it1.admin.acl('SETUSER', 'app', 'resetpass', '>right');
    await recovers(tally);
    await tally.check(...AWAY);
  });

  it('that loads its data for a while after a restart: clear errors, and all is there afterwards', async () => {
    await Promise.all(Array.from({ length: 500 }, (_, i) => it1.node.register(`key ${i}`).set('v')));
    await it1.admin.bgrewriteaof();
    await waitFor(
      async () =>
        /aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(await it1.admin.info('persistence')),
      options,
    );
    const tally = new Tally(it1, 'loading');
    tally.begin();
    await tally.grows();
    await it1.valkey.kill('SIGKILL');
    const restarted = it1.valkey.restart();
    await waitFor(() => /still loading its data/.test(problem()), { ...options, what: 'the reason' });
    await restarted;
    await recovers(tally);
    await tally.check(...AWAY);
  });

  it('that hangs up again and again under load counts each write once, in a queue that stays short', async () => {
    const tally = new Tally(it1, 'hung up');
    tally.begin();
    let most = 0;
    for (let killed = 0; killed < 40; ) {
      killed += Number(await it1.admin.call('CLIENT', 'KILL', 'USER', 'app'));
      most = Math.max(most, it1.node.status().queue.operations);
      await tally.grows(2);
    }
    await tally.check();
    assert.ok(most <= 2, `${most} operations waited, of two writers that wait for their answers`);
  });

  it('that stands still for ten seconds: errors after five, and it goes on where it stood', async () => {
    const tally = new Tally(it1, 'still');
    tally.begin();
    await tally.grows();
    const until = performance.now() + 10_000;
    await it1.valkey.kill('SIGSTOP');
    try {
      await tally.told('STORE_UNAVAILABLE');
      assert.ok(performance.now() < until, 'the errors come before the ten seconds are over');
      await assert.rejects(it1.door.get('still'), /MASTERDOWN/);
      await waitFor(() => performance.now() > until, { ...options, what: 'ten seconds' });
    } finally {
      await it1.valkey.kill('SIGCONT');
    }
    await recovers(tally);
    await tally.check(...AWAY);
  });
});
