/** The benchmarks run, on tiny sizes: every one gives rows, the JSON holds them, and misuse is told clearly. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { compare, median, type Row } from '../bench/harness.js';

const folder = mkdtempSync(join(tmpdir(), 'valkey-mesh-bench-'));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command as npm does. */
function bench(args: readonly string[], env: NodeJS.ProcessEnv): Promise<Ended> {
  const cwd = fileURLToPath(new URL('..', import.meta.url));
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', 'bench/run.ts', ...args],
      { cwd, env: { ...process.env, ...env }, timeout: 300_000 },
      (error, stdout, stderr) =>
        resolve({
          code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1,
          stdout,
          stderr,
        }),
    );
  });
}

test('every benchmark of data types runs, prints what it ran on, and writes its rows as JSON', async () => {
  const file = join(folder, 'rows.json');
  const { code, stdout, stderr } = await bench(['merge', 'sizes', '--json', file], {
    BENCH_SCALE: '0.0005',
    BENCH_ROUNDS: '1',
  });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /cores, \d+ GiB; Node v\d+/);
  assert.match(stdout, /yjs \d+\.\d+\.\d+, loro-crdt \d/);
  assert.match(stdout, /keep history, which we don't/);
  const rows = JSON.parse(readFileSync(file, 'utf8')) as Row[];
  assert.deepEqual([...new Set(rows.map((row) => row.bench))], ['merge', 'sizes']);
  for (const row of rows) {
    assert.deepEqual(Object.keys(row), ['bench', 'case', 'value', 'unit', 'baseline', 'ratio']);
    assert.ok(row.value > 0 && Number.isFinite(row.value), row.case);
    assert.equal(row.baseline === null, row.ratio === null, row.case);
    assert.ok(stdout.includes(row.case), row.case);
  }
  for (const library of ['yjs', 'loro-crdt', '@automerge/automerge', 'delta-crdts', 'crdts']) {
    assert.ok(
      rows.some((row) => row.case.includes(`| ${library}`)),
      `${library} took part`,
    );
  }
  const bytes = rows.find((row) => row.case.startsWith('bytes per delta'));
  assert.ok(bytes!.ratio! <= 1.3, 'a delta costs at most 1.3 × (key + value + 16) bytes');
});

test('an empty region joins two that hold 20,000 keys and take 1,000 writes/s, and has them all', async () => {
  const file = join(folder, 'join.json');
  // It fails by itself unless all keys come, and the digests are equal at the end.
  const { code, stderr } = await bench(['join', '--json', file], { BENCH_SCALE: '0.02', BENCH_ROUNDS: '1' });
  assert.equal(code, 0, stderr);
  const rows = JSON.parse(readFileSync(file, 'utf8')) as Row[];
  const find = (what: string) => rows.find((row) => row.case.endsWith(`| ${what}`));
  assert.equal(find('valkey-mesh')?.baseline, 'REPLICAOF');
  assert.ok(find('writes taken meanwhile')!.value > 0);
  const peak = find('peak memory, node that joins');
  assert.ok(process.platform !== 'linux' || peak!.value < 700, JSON.stringify(peak));
});

test('what writes, remote frames and memory cost is measured on real servers, each result checked before it counts', async () => {
  const file = join(folder, 'servers.json');
  const { code, stderr } = await bench(['write', 'remote', 'footprint', '--json', file], {
    BENCH_SCALE: '0.005',
    BENCH_ROUNDS: '1',
  });
  assert.equal(code, 0, stderr);
  const rows = JSON.parse(readFileSync(file, 'utf8')) as Row[];
  assert.deepEqual([...new Set(rows.map((row) => row.bench))], ['write', 'remote', 'footprint']);
  for (const row of rows) assert.ok(row.value >= 0 && Number.isFinite(row.value), row.case);
  const find = (what: string) => rows.find((row) => row.case.endsWith(what));
  assert.equal(find('2000 under way | register.set')?.baseline, 'SET');
  assert.equal(find('2000 under way | counter.increment')?.baseline, 'INCR');
  assert.equal(find('new members | applied from frames')?.baseline, 'acknowledged here');
  assert.ok(find('| sustained in each of three such regions')!.value > 0);
  const strings = rows.find((row) => row.bench === 'footprint' && row.case.endsWith('| valkey-mesh'));
  assert.ok(strings!.ratio! > 1, 'what makes data mergeable takes memory');
});

test('an unknown benchmark and an unknown flag are told, with the names that there are', async () => {
  const unknown = await bench(['speed'], {});
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /no benchmark speed: choose among merge, sizes, join/);
  assert.equal((await bench(['--jsn', 'x'], {})).code, 2);
  const scale = await bench(['sizes'], { BENCH_SCALE: 'big' });
  assert.equal(scale.code, 2);
  assert.match(scale.stderr, /BENCH_SCALE/);
});

test('nothing is timed whose result is wrong', () => {
  const rows: Row[] = [];
  const side = (check: () => void) => ({ name: 'side', work: 1, run: () => 1, check });
  const wrong = () => {
    throw new Error('2 instead of 1');
  };
  const options = { scale: 1, rounds: 5, done: (row: Row) => rows.push(row) };
  assert.throws(
    () => compare('bench', 'case', 'runs/s', [side(() => {}), side(wrong)], options),
    /2 instead of 1/,
  );
  assert.deepEqual(rows, []);
});

test('sides take turns, and ours is compared with the best of the others', () => {
  const order: string[] = [];
  const rows: Row[] = [];
  const side = (name: string, work: number) => ({
    name,
    work,
    run() {
      order.push(name);
      const end = performance.now() + 2;
      while (performance.now() < end);
    },
    check: () => {},
  });
  // Far apart: whatever else the machine does, a turn isn't a thousand times longer than another.
  const sides = [side('ours', 400_000), side('slower', 10), side('faster', 100_000)];
  compare('bench', 'case', 'runs/s', sides, { rounds: 3, done: (row) => rows.push(row) });
  assert.equal(
    order.join(' '),
    ['ours slower faster', 'ours slower faster', 'slower faster ours', 'faster ours slower'].join(' '),
  );
  assert.deepEqual(
    rows.map((row) => row.baseline),
    ['faster', null, null],
  );
  // How great it is depends on what else the machine does: the work here is only waiting.
  assert.ok(Number.isFinite(rows[0]!.ratio) && rows[0]!.ratio! > 0, JSON.stringify(rows));
});

test('the median is the middle one, or between the two', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
});
