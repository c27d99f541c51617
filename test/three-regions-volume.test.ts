/** How much one front door takes, and how long it is until it is everywhere. The figures are in the test's own output. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, it } from 'node:test';
import { Regions } from './support/regions.js';
import { encode } from './support/resp-client.js';
import { waitFor } from './support/wait.js';

const WRITES = Number(process.env.VOLUME_WRITES ?? 100_000);
const DEADLINE_MS = 120_000;

let regions: Regions;
before(async () => {
  regions = await Regions.start();
});
after(() => regions?.stop());

/** Writes everything at once on one connection; resolves with all replies when there are `bytes` of them. */
function pipelined(port: number, commands: Buffer, bytes: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(commands));
    const chunks: Buffer[] = [];
    let received = 0;
    const over = (): void => {
      socket.destroy();
      resolve(Buffer.concat(chunks).toString('latin1'));
    };
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      received += chunk.length;
      if (received >= bytes) over();
    });
    socket.on('error', reject);
    socket.on('close', over);
  });
}

it('100,000 pipelined writes through one front door reach the other two regions', async (t) => {
  const [a] = regions.all;
  const key = (at: number): string => `volume:${at}`;
  const value = (at: number): string => `value of ${at}`;
  const commands: Buffer[] = [];
  for (let at = 0; at < WRITES; at += 1) commands.push(encode('SET', key(at), value(at)));
  const expected = '+OK\r\n'.repeat(WRITES);

  const startedMs = performance.now();
  const replies = await pipelined(a!.respPort, Buffer.concat(commands), expected.length);
  const acknowledgedMs = performance.now() - startedMs;
  assert.equal(replies, expected);
  await Promise.all(
    regions.all.map(({ name, native }) =>
      waitFor(async () => (await native.get(key(WRITES - 1))) === value(WRITES - 1), {
        deadlineMs: DEADLINE_MS,
        what: `the last write in the Valkey of ${name}`,
      }),
    ),
  );
  const everywhereMs = performance.now() - startedMs;
  t.diagnostic(
    `${WRITES} writes: acknowledged after ${Math.round(acknowledgedMs)} ms ` +
      `(${Math.round(WRITES / (acknowledgedMs / 1000))} per second), in every region after ${Math.round(everywhereMs)} ms`,
  );

  await regions.synchronise();
  for (const { name, native } of regions.all) {
    for (let first = 0; first < WRITES; first += 10_000) {
      const numbers = Array.from({ length: Math.min(10_000, WRITES - first) }, (_, at) => first + at);
      assert.deepEqual(await native.mget(numbers.map(key)), numbers.map(value), name);
    }
  }
  for (const region of regions.all) {
    const { frames } = await region.status();
    t.diagnostic(`${region.name}: ${JSON.stringify(frames)}`);
  }
});
