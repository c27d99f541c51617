/** The tools that come with Valkey, as programs, against the front door. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { silentLogger } from '../src/options.js';
import { type FrontDoor, startFrontDoor } from '../src/resp/front-door.js';
import { obtainValkey, type ValkeyBinaries } from '../src/valkey-server/obtain.js';
import { FakeEngine } from './support/fake-engine.js';

const run = promisify(execFile);
const DEADLINE_MS = 60_000;

describe('tools that come with Valkey', () => {
  let door: FrontDoor;
  let binaries: ValkeyBinaries;
  let engine: FakeEngine;
  before(async () => {
    binaries = await obtainValkey();
    engine = new FakeEngine();
    door = await startFrontDoor({ engine, port: 0, logger: silentLogger });
  });
  after(() => door.stop());

  const tool = async (path: string | null, ...args: string[]): Promise<string> => {
    assert.ok(path !== null, 'the tool came with the server');
    const { stdout, stderr } = await run(path, ['-p', String(door.port), ...args], {
      env: binaries.env,
      timeout: DEADLINE_MS,
    });
    return stdout + stderr;
  };

  it('valkey-cli sends commands in RESP2 and RESP3', async () => {
    assert.equal(await tool(binaries.cli, 'SET', 'k', 'v'), 'OK\n');
    assert.equal(await tool(binaries.cli, 'GET', 'k'), 'v\n');
    await tool(binaries.cli, 'SADD', 's', 'm');
    assert.equal(await tool(binaries.cli, '-3', '--no-raw', 'SMEMBERS', 's'), '1~ "m"\n');
    assert.match(await tool(binaries.cli, '-3', 'MESH', 'STATUS'), /^region süd$/m);
    assert.match(await tool(binaries.cli, 'nonsense'), /ERR unknown command 'nonsense'/);
    assert.match(await tool(binaries.cli, '--scan', '--pattern', 'k*'), /^k$/m);
    assert.match(await tool(binaries.cli, 'INFO', 'mesh'), /mesh_state:ready/);
  });

  it('valkey-cli loads commands from a pipe', async () => {
    const child = run(binaries.cli as string, ['-p', String(door.port), '--pipe'], {
      env: binaries.env,
      timeout: DEADLINE_MS,
    });
    const count = 5000;
    for (let i = 0; i < count; i += 1) child.child.stdin?.write(`SET piped:${i} ${i}\r\n`);
    child.child.stdin?.end();
    const { stdout } = await child;
    assert.match(stdout, new RegExp(`errors: 0, replies: ${count}`));
    assert.equal(await tool(binaries.cli, 'GET', 'piped:4999'), '4999\n');
  });

  it('valkey-benchmark runs its tests, pipelined and not', async () => {
    const tests = 'ping_inline,ping_mbulk,set,get,incr,sadd,spop,mset';
    for (const pipeline of ['1', '16']) {
      const csv = await tool(
        binaries.benchmark,
        '--csv',
        '-q',
        '-t',
        tests,
        '-n',
        '2000',
        '-c',
        '20',
        '-P',
        pipeline,
        '-r',
        '1000',
      );
      for (const test of [
        'PING_INLINE',
        'PING_MBULK',
        'SET',
        'GET',
        'INCR',
        'SADD',
        'SPOP',
        'MSET (10 keys)',
      ]) {
        assert.match(csv, new RegExp(`^"${test.replace(/[()]/g, '\\$&')}","\\d`, 'm'));
      }
      assert.doesNotMatch(csv, /error|warning/i);
    }
  });
});
