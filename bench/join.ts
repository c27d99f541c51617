/**
 * How long does an empty region take to join, while the others go on taking writes? A mesh of two regions, each a peer process
 * beside its Valkey, holds the keys; a third peer with an empty Valkey is started, and timed from its open doors until it is
 * ready (it has caught up, and answers clients no more with LOADING). Then the writes end, and all digests must be equal.
 *
 * The other side: a plain Valkey with the same keys, under the same writes, and an empty one that is told REPLICAOF, timed until
 * its link is up. That copies one server's memory as a file; a region that joins merges states that may be in conflict with
 * its own, keeps what merging needs beside each key, and works across versions and with a mesh that changes.
 *
 * Peaks of memory are those of the join alone (VmHWM; Linux only), the greatest of the rounds.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ReadyLine } from '../src/cli/peer.js';
import { PeerProcess } from '../src/demo/peer-process.js';
import type { NodeStatus } from '../src/engine.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { type Bench, type BenchOptions, expect, median, type Row } from './harness.js';
import { ask, fill, peakMiB, resetPeak, until, Writer } from './load.js';

const BENCH = 'join';
const KEYS = 1_000_000;
const WRITES_PER_SECOND = 1_000;
const MOST_ROUNDS = 3;
/** How long one step may take before the run fails. */
const DEADLINE_MS = 1_800_000;

interface Region {
  readonly name: string;
  readonly valkey: LaunchedValkey;
  readonly peer: PeerProcess;
  readonly ready: ReadyLine;
}

async function startRegion(name: string, folder: string, valkey: LaunchedValkey, peers: readonly Region[]) {
  const flags = [
    ...['--region', name, '--store', valkey.url, '--log-level', 'info'],
    ...['--resp', '127.0.0.1:0', '--http', '127.0.0.1:0'],
    ...peers.flatMap(({ ready }) => ['--peer', ready.multiaddrs[0]!]),
  ];
  const peer = new PeerProcess(flags, join(folder, `${name}-${Date.now()}.log`));
  try {
    return { name, valkey, peer, ready: await peer.ready };
  } catch (error) {
    await peer.stop();
    throw error;
  }
}

const statusOf = async ({ ready }: Region): Promise<NodeStatus> =>
  (await (await fetch(`http://127.0.0.1:${ready.http!.port}/api/status`)).json()) as NodeStatus;

/** Waits until all regions have the same digest and nothing is missing anywhere. */
function equal(regions: readonly Region[]): Promise<void> {
  return until('all regions are equal', DEADLINE_MS, async () => {
    for (const region of regions) {
      const { state, peers } = await statusOf(region);
      if (state !== 'ready' || peers.some(({ behindFrames }) => behindFrames > 0)) return false;
    }
    const digests = await Promise.all(regions.map(({ ready }) => ask(ready.resp.port, 'MESH', 'DIGEST')));
    return new Set(digests).size === 1;
  });
}

/** Peak memory since {@link resetPeak}, by what it is the memory of. */
type Peaks = Map<string, number>;

function notePeak(peaks: Peaks, name: string, pid: number): void {
  const peak = peakMiB(pid);
  if (peak !== null) peaks.set(name, Math.max(peaks.get(name) ?? 0, peak));
}

/** One join; gives how long it took, and how long the regions then took to be equal, in seconds. */
async function joinOnce(mesh: readonly Region[], folder: string, peaks: Peaks, keys: number) {
  const valkey = await launchValkey();
  const writers = mesh.map(
    ({ ready }, i) => new Writer(ready.resp.port, WRITES_PER_SECOND / mesh.length, keys, i),
  );
  let joining: Region | null = null;
  try {
    for (const { ready, valkey: own } of mesh) for (const pid of [ready.pid, own.pid]) resetPeak(pid);
    for (const writer of writers) await writer.start();
    joining = await startRegion('ap', folder, valkey, mesh);
    const began = performance.now();
    const region = joining;
    await until('the region has joined', DEADLINE_MS, async () => (await statusOf(region)).state === 'ready');
    const seconds = (performance.now() - began) / 1000;
    const written = await Promise.all(writers.map((writer) => writer.stop()));
    const ended = performance.now();
    const all = [...mesh, joining];
    await equal(all);
    const settled = (performance.now() - ended) / 1000;
    const sizes = await Promise.all(all.map(({ ready }) => ask(ready.resp.port, 'DBSIZE')));
    expect(sizes[2], sizes[0], 'keys of the region that joined');
    expect(Number(sizes[0]!.slice(1)) >= keys, true, 'all keys are there');
    notePeak(peaks, 'node that joins', joining.ready.pid);
    notePeak(peaks, 'Valkey of it', valkey.pid);
    for (const { ready, valkey: own } of mesh) {
      notePeak(peaks, 'nodes of the others', ready.pid);
      notePeak(peaks, 'Valkeys of the others', own.pid);
    }
    return { seconds, settled, written: written.reduce((sum, each) => sum + each, 0) };
  } finally {
    for (const writer of writers) writer.close();
    await joining?.peer.stop();
    await valkey.stop();
  }
}

/** One REPLICAOF; gives how long it took, in seconds. */
async function replicateOnce(master: LaunchedValkey, peaks: Peaks, keys: number): Promise<number> {
  const replica = await launchValkey();
  const writer = new Writer(master.port, WRITES_PER_SECOND, keys, 0);
  try {
    await writer.start();
    const began = performance.now();
    await ask(replica.port, 'REPLICAOF', '127.0.0.1', String(master.port));
    await until('the replica is in sync', DEADLINE_MS, async () =>
      (await ask(replica.port, 'INFO', 'replication')).includes('master_link_status:up'),
    );
    const seconds = (performance.now() - began) / 1000;
    await writer.stop();
    const size = await ask(master.port, 'DBSIZE');
    await until(
      'the replica has it all',
      DEADLINE_MS,
      async () => (await ask(replica.port, 'DBSIZE')) === size,
    );
    notePeak(peaks, 'Valkey by REPLICAOF', replica.pid);
    return seconds;
  } finally {
    writer.close();
    await replica.stop();
  }
}

export const joinBench: Bench = {
  name: BENCH,
  about: `an empty region joins two others that take ${WRITES_PER_SECOND} writes/s, until it has caught up; against REPLICAOF of the same keys
  from a plain Valkey, which copies one server's memory and merges nothing. Keys of 12 bytes, values of 64. All on one machine.`,
  packages: [],

  async run({ scale, rounds, done }: BenchOptions): Promise<void> {
    const keys = Math.max(100, Math.round(KEYS * scale));
    const name = `${keys} keys under ${WRITES_PER_SECOND} writes/s`;
    const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-join-'));
    const valkeys: LaunchedValkey[] = [];
    const mesh: Region[] = [];
    const peaks: Peaks = new Map();
    const row = (what: string, value: number, unit: string, ratio: number | null = null): void => {
      const baseline = ratio === null ? null : 'REPLICAOF';
      done({ bench: BENCH, case: `${name} | ${what}`, value, unit, baseline, ratio } satisfies Row);
    };
    try {
      // A replica is served at once, not after the seconds in which more may come.
      const args = ['--repl-diskless-sync-delay', '0'];
      for (let i = 0; i < 3; i += 1) valkeys.push(await launchValkey({ args }));
      const [eu, us, plain] = valkeys as [LaunchedValkey, LaunchedValkey, LaunchedValkey];
      mesh.push(await startRegion('eu', folder, eu, []));
      mesh.push(await startRegion('us', folder, us, mesh));
      await until('the two have met', DEADLINE_MS, async () => (await statusOf(mesh[1]!)).state === 'ready');
      const filled = performance.now();
      await fill(mesh[0]!.ready.resp.port, keys);
      const rate = keys / ((performance.now() - filled) / 1000);
      await fill(plain.port, keys);
      await equal(mesh);
      const joins: Awaited<ReturnType<typeof joinOnce>>[] = [];
      const replicas: number[] = [];
      for (let round = 0; round < Math.min(rounds, MOST_ROUNDS); round += 1) {
        joins.push(await joinOnce(mesh, folder, peaks, keys));
        replicas.push(await replicateOnce(plain, peaks, keys));
      }
      const seconds = median(joins.map((each) => each.seconds));
      row('valkey-mesh', seconds, 's', median(joins.map((each, i) => each.seconds / replicas[i]!)));
      row('REPLICAOF', median(replicas), 's');
      row('keys that joined per second', keys / seconds, 'keys/s');
      row('equal after the last write', median(joins.map((each) => each.settled)), 's');
      row('writes taken meanwhile', median(joins.map((each) => each.written)), 'writes');
      row('filling one region before', rate, 'keys/s');
      for (const [what, peak] of peaks) row(`peak memory, ${what}`, peak, 'MiB');
    } catch (error) {
      const words = mesh.map(({ name: region, peer }) => `${region}: ${peer.lastWords()}`).join('\n');
      throw new Error(`${(error as Error).message}\n${words}`, { cause: error });
    } finally {
      await Promise.all(mesh.map(({ peer }) => peer.stop()));
      await Promise.all(valkeys.map((valkey) => valkey.stop()));
      rmSync(folder, { recursive: true, force: true });
    }
  },
};
