/**
 * A Valkey Cluster one of whose servers has a full disk: what touches that server is refused as a whole, all else goes on, nothing acknowledged
 * is lost, and the node goes on without a restart when there is room again.
 *
 * Not part of \`npm test\` but \`npm run disk\`: once in fifteen runs, on a busy machine, nothing more was answered after there was room again.
 * Why is not known yet.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { createNode, type MeshNode } from '../src/node.js';
import { silentLogger } from '../src/options.js';
import { startFrontDoor } from '../src/resp/front-door.js';
import { keySlot } from '../src/store/slots.js';
import { ValkeyCluster } from './support/cluster.js';
import { connectTo } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 30_000;

/** A key of the first server, or of the second. */
function keyOn(server: 0 | 1, name: string): string {
  for (let i = 0; ; i += 1) {
    const key = `${name}:${i}`;
    if (keySlot(key as ByteString) < 8192 === (server === 0)) return key;
  }
}

/** Writes until told to end, and counts what came of it. */
class Writer {
  acknowledged = 0;
  unknown = 0;
  readonly errors = new Map<string, number>();
  #over = false;
  readonly #writing: Promise<void>;

  constructor(write: () => Promise<unknown>) {
    this.#writing = this.#run(write);
  }

  async #run(write: () => Promise<unknown>): Promise<void> {
    while (!this.#over) {
      try {
        await write();
        this.acknowledged += 1;
      } catch (error) {
        const { message } = error as Error;
        const prefix = message.split(' ')[0]!;
        // EXECABORT tells in its text why.
        const name = prefix === 'EXECABORT' ? message : prefix;
        this.errors.set(name, (this.errors.get(name) ?? 0) + 1);
        if (prefix === 'STOREDOWN') this.unknown += 1;
      }
      // As a client that waits a moment before it tries again.
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async grows(by = 30): Promise<void> {
    const wanted = this.acknowledged + by;
    await waitFor(() => this.acknowledged >= wanted, {
      deadlineMs: DEADLINE_MS,
      what: `${by} writes more, after ${JSON.stringify([...this.errors])}`,
    });
  }

  end(): Promise<void> {
    this.#over = true;
    return this.#writing;
  }
}

describe('A cluster one of whose servers has no disk', () => {
  const dir = mkdtempSync(join(tmpdir(), 'valkey-mesh-disk-'));
  const endings: (() => Promise<unknown> | unknown)[] = [];
  let mounted = '';
  before(() => {
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', dir], { stdio: 'pipe' });
    } catch (error) {
      mounted = `a small disk can't be mounted here (${(error as Error).message.trim().split('\n').at(-1)}): run this test as root`;
    }
  });
  after(async () => {
    for (const end of endings.splice(0).reverse()) await end();
    if (mounted === '') execFileSync('umount', [dir]);
    rmSync(dir, { recursive: true, force: true });
  });

  it('refuses what touches it with MISCONF, as a whole, serves the rest, and goes on when there is room again', async (t) => {
    if (mounted !== '') {
      process.stderr.write(`skipped: ${mounted}\n`);
      t.skip(mounted);
      return;
    }
    const cluster = await ValkeyCluster.start({ primaries: 2, dirs: { 0: dir } });
    endings.push(() => cluster.stop());
    const start = async (options: Parameters<typeof createNode>[0]): Promise<MeshNode> => {
      const node = await createNode({ heartbeatMs: 100, antiEntropyMs: 1000, ...options });
      endings.push(() => node.stop());
      return node;
    };
    const node = await start({ region: 'eu', store: cluster.url });
    const other = await start({ region: 'us', peers: node.addresses() });
    const settings = { engine: node.engine, host: '127.0.0.1', port: 0, logger: silentLogger };
    const frontDoor = await startFrontDoor(settings);
    endings.push(() => frontDoor.stop());
    const door = connectTo(frontDoor.port);
    endings.push(() => door.disconnect());
    await waitFor(
      () => [node, other].every((each) => each.status().peers.some(({ connected }) => connected)),
      { deadlineMs: DEADLINE_MS, what: 'both are connected' },
    );
    const filler = join(dir, 'filler');
    /** Leaves no room but the last block, which fills with what is written next. */
    const fill = () => {
      const { bavail, bsize } = statfsSync(dir);
      writeFileSync(filler, Buffer.alloc(Math.max(0, bavail - 1) * bsize), { flag: 'a' });
    };
    const counters: [Writer, string[]][] = [];
    const writes = (write: () => Promise<unknown>, ...keys: string[]): Writer => {
      const writer = new Writer(write);
      counters.push([writer, keys]);
      endings.push(() => writer.end());
      return writer;
    };
    const said = () => JSON.stringify(counters.map(([{ errors }, keys]) => [keys, [...errors]]));
    /** Ends the writers; every counter has in both regions what was acknowledged, and no more than what may have been. */
    const check = async (...allowed: string[]): Promise<void> => {
      for (const [writer] of counters) await writer.end();
      await waitFor(async () => (await node.digest()) === (await other.digest()), {
        deadlineMs: DEADLINE_MS,
        what: 'the regions are equal',
      });
      const client = cluster.client();
      endings.push(async () => client.disconnect());
      for (const [{ acknowledged, unknown, errors }, keys] of counters.splice(0)) {
        for (const name of errors.keys())
          assert.ok(allowed.includes(name), `${name} is not one of ${allowed}`);
        const values = await Promise.all(keys.map(async (key) => Number(await client.get(key))));
        assert.equal(new Set(values).size, 1, `all or nothing: ${keys} are ${values}`);
        for (const key of keys) assert.equal(Number(await other.counter(key).value()), values[0], key);
        assert.ok(values[0]! >= acknowledged, `${keys}: ${values[0]} counted, ${acknowledged} acknowledged`);
        assert.ok(values[0]! <= acknowledged + unknown, `${keys}: what was refused does not count`);
      }
    };

    const large = 'x'.repeat(8192);
    const key = keyOn(0, 'large');
    await node.register(keyOn(0, 'before')).set('v');
    fill();
    const isRefused = () =>
      node
        .register(key)
        .set(large)
        .then(
          () => false,
          () => true,
        );
    await waitFor(isRefused, { deadlineMs: DEADLINE_MS, what: 'the disk is full' });
    const [full, fine, left, right] = [
      keyOn(0, 'full'),
      keyOn(1, 'fine'),
      keyOn(0, 'left'),
      keyOn(1, 'right'),
    ];
    const refusal = { code: 'STORE_REFUSED', reason: 'MISCONF', message: /^MISCONF .*free some space/ };
    await assert.rejects(node.register(full).set('v'), refusal);
    await assert.rejects(door.set(full, 'v'), /^ReplyError: MISCONF /);
    await assert.rejects(door.multi().incr(left).incr(right).exec());
    assert.deepEqual(await door.mget(left, right), [null, null], 'of a refused batch nothing is there');
    assert.equal(await door.get(keyOn(0, 'before')), 'v');
    const onFull = writes(() => door.incr(full), full);
    const both = writes(() => door.multi().incr(left).incr(right).exec(), left, right);
    const onFine = writes(() => door.incr(fine), fine);
    await onFine.grows();
    assert.deepEqual([...onFine.errors.keys()], [], 'what does not touch that server is not refused');
    for (const writer of [onFull, both]) assert.equal(writer.acknowledged, 0);
    assert.equal(node.status().state, 'ready');
    const spare = keyOn(1, 'spare');
    writes(() => other.counter(spare).increment(1), spare);
    truncateSync(filler, 0);
    for (const [writer] of counters) await writer.grows();
    t.diagnostic(said());
    await check('MISCONF');

    // Under way, a batch may be decided just before: then it is finished when there is room, and all waits for it.
    const [here, there] = [keyOn(0, 'here'), keyOn(1, 'there')];
    const batches = writes(() => door.multi().incr(here).incr(there).exec(), here, there);
    writes(() => other.counter(keyOn(0, 'from us')).increment(1), keyOn(0, 'from us'));
    await batches.grows();
    fill();
    await waitFor(() => batches.errors.size > 0, { deadlineMs: DEADLINE_MS, what: 'the disk is full again' });
    truncateSync(filler, 0);
    for (const [writer] of counters) await writer.grows();
    t.diagnostic(said());
    await check('MISCONF', 'STOREDOWN', 'MASTERDOWN', 'LOADING');
  });
});
