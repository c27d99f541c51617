/** Verification in whole meshes on virtual time: the cut, the hold, and members that misbehave. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { utf8 } from '../crdts/bytes.js';
import type { MeshNode } from '../src/node.js';
import { keySlot } from '../src/store/slots.js';
import { MAX_HOLD_MS } from '../src/verify/limits.js';
import type { VerifyOptions, VerifyReport } from '../src/verify/report.js';
import { encode } from '../src/verify/wire.js';
import { MeshWorld } from './support/mesh-world.js';

/** Options under which nothing heals by itself while a test looks. */
const QUIET = { antiEntropyMs: 86_400_000 };

async function world(names = ['eu', 'us', 'ap']): Promise<{ mesh: MeshWorld; nodes: MeshNode[] }> {
  const mesh = new MeshWorld();
  const nodes = await mesh.startAll(names, QUIET);
  await mesh.until('all know each other', () =>
    nodes.every((node) => node.status().peers.every(({ region }) => region !== '')),
  );
  return { mesh, nodes };
}

const verify = (mesh: MeshWorld, node: MeshNode, options?: VerifyOptions): Promise<VerifyReport> =>
  mesh.run(node.verify(options));

it('says that idle regions are identical, without holding anyone', async () => {
  const { mesh, nodes } = await world();
  await mesh.run(nodes[0]!.register('k').set('v'));
  await mesh.run(nodes[1]!.set('s').add('a', 'b'));
  await mesh.equal();
  const report = await verify(mesh, nodes[2]!);
  assert.equal(report.outcome, 'identical');
  assert.deepEqual(report.reasons, []);
  assert.equal(report.heldMs, 0);
  assert.deepEqual(
    report.regions.map(({ region, state, keys }) => [region, state, keys]),
    [
      ['ap', 'compared', 2],
      ['eu', 'compared', 2],
      ['us', 'compared', 2],
    ],
  );
  assert.equal(new Set(report.regions.map(({ digest }) => digest)).size, 1);
  await mesh.stop();
});

it('finds them identical while each goes on writing, several times in a row', async () => {
  const { mesh, nodes } = await world();
  let writing = true;
  let written = 0;
  let slowestMs = 0;
  const write = (node: MeshNode, at: number): void => {
    if (!writing) return;
    const startedMs = mesh.timers.now();
    void node
      .counter(`c${at % 7}`)
      .increment()
      .then(() => {
        written += 1;
        slowestMs = Math.max(slowestMs, mesh.timers.now() - startedMs);
      });
    mesh.timers.after(8, () => write(node, at + 1));
  };
  nodes.forEach(write);
  for (let round = 0; round < 4; round += 1) {
    const report = await verify(mesh, nodes[round % 3]!);
    assert.equal(report.outcome, 'identical', JSON.stringify(report));
    assert.ok(report.heldMs > 0 && report.heldMs < 500, `held for ${report.heldMs} ms`);
  }
  writing = false;
  assert.ok(written > 100);
  assert.ok(slowestMs < 500);
  await mesh.equal();
  await mesh.stop();
});

it('names the key that differs, with the state of each region', async () => {
  const { mesh, nodes } = await world();
  for (let i = 0; i < 50; i += 1) await mesh.run(nodes[i % 3]!.register(`k${i}`).set(`v${i}`));
  await mesh.equal();
  // Another region's header, as if a merge had gone wrong: a digest that differs, at the same vector.
  const store = mesh.stores.get('us')!;
  const key = utf8('k7');
  const [held] = await mesh.run(store.load([{ key }]));
  const theirs = await mesh.run(store.load([{ key: utf8('k8') }]));
  await mesh.run(
    store.commit({ writes: [{ key, expected: held!.header, header: theirs[0]!.header, digest: 12345 }] }),
  );
  const report = await verify(mesh, nodes[0]!);
  assert.equal(report.outcome, 'different');
  assert.equal(report.differingSlots, 1);
  assert.deepEqual(
    report.differingKeys.map(({ key, slot }) => [key, slot]),
    [[{ text: 'k7' }, keySlot(key)]],
  );
  const [{ regions }] = report.differingKeys as [VerifyReport['differingKeys'][number]];
  assert.deepEqual(
    regions.map(({ region }) => region),
    ['eu', 'us', 'ap'],
  );
  assert.equal(regions[0]!.digest, regions[2]!.digest);
  assert.notEqual(regions[0]!.digest, regions[1]!.digest);
  assert.deepEqual(regions[0]!.state?.string?.value, { text: 'v7' });
  assert.equal(regions[1]!.state?.type, 'string');
  await mesh.stop();
});

it('says which region is away, and compares the others', async () => {
  const { mesh, nodes } = await world();
  await mesh.run(nodes[0]!.register('k').set('v'));
  await mesh.equal();
  mesh.network.partition([['eu', 'us'], ['ap']]);
  await mesh.until('ap is away', () => nodes[0]!.status().peers.some((peer) => !peer.connected));
  const report = await verify(mesh, nodes[0]!);
  assert.equal(report.outcome, 'unverified');
  assert.deepEqual(
    report.regions.map(({ region, state }) => [region, state]),
    [
      ['eu', 'compared'],
      ['us', 'compared'],
      ['ap', 'away'],
    ],
  );
  assert.deepEqual(report.reasons, ['region ap was not verified (ap): it is away: not connected']);
  mesh.network.heal();
  await mesh.until('all are back', () => nodes[0]!.status().peers.every((peer) => peer.connected));
  assert.equal((await verify(mesh, nodes[0]!)).outcome, 'identical');
  await mesh.stop();
});

/** A member without a node behind it: answers the greeting as the given node would, and the rest as it is told. */
function replaceAnswers(
  mesh: MeshWorld,
  asker: string,
  victim: string,
  answer: (op: string, given: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>,
): void {
  mesh.intercept = (from, protocol, to, body, given) => {
    if (from !== asker || to !== victim || protocol !== 'verify') return given;
    const op =
      /look|hold|cut|slots|keys|states|release/.exec(Buffer.from(body).toString('latin1'))?.[0] ?? '';
    return answer(op, given);
  };
}

async function* one(...parts: unknown[]): AsyncGenerator<Uint8Array> {
  yield Uint8Array.from([0, ...encode(...parts)]);
}

for (const [what, op, answer, reason] of [
  ['nonsense', 'hold', () => one(1, ['x', -1]), /makes no sense/],
  ['nothing at all', 'hold', async function* () {}, /its answer is empty/],
  [
    'a digest that cannot be',
    'cut',
    () => one('at', 2 ** 48, 1),
    /makes no sense: a digest is not below 2\^48/,
  ],
  ['digests that are not their sum', 'cut', () => one('at', 12345, 1), /are not what it said of all/],
  ['frames that nobody made', 'hold', () => one(1, ['eu.1', 10 ** 9]), /only it says that there is a frame/],
] as const) {
  it(`leaves a member behind that answers with ${what}, and says so`, async () => {
    const { mesh, nodes } = await world();
    await mesh.run(nodes[0]!.register('k').set('v'));
    await mesh.equal();
    // Something under way, so that the first look doesn't do.
    replaceAnswers(mesh, 'eu', 'ap', async function* (asked, given) {
      if (asked === 'look') yield* one(0, 0, 0, []);
      else if (asked !== op) yield* given;
      else {
        for await (const right of given) void right;
        yield* answer();
      }
    });
    const report = await verify(mesh, nodes[0]!);
    assert.equal(report.outcome, 'unverified', JSON.stringify(report));
    assert.deepEqual(
      report.regions.map(({ state }) => state),
      ['compared', 'compared', 'failed'],
    );
    assert.match(report.reasons.join(), reason);
    assert.ok(report.tookMs < 40_000);
    await mesh.run(nodes[1]!.register('k').set('w'));
    await mesh.stop();
  });
}

it('gives up on a member that never answers', async () => {
  const { mesh, nodes } = await world();
  await mesh.run(nodes[0]!.register('k').set('v'));
  replaceAnswers(mesh, 'eu', 'us', async function* () {
    await new Promise(() => {});
  });
  const report = await verify(mesh, nodes[0]!);
  assert.equal(report.outcome, 'unverified');
  assert.match(report.reasons.join(), /region us was not verified \(us\): it did not answer within 3000 ms/);
  await mesh.stop();
});

it('lets no one hold its operations for long, nor again and again', async () => {
  const { mesh, nodes } = await world(['eu', 'evil']);
  const hostile = mesh.meshes.get('evil')!;
  const ask = async (...parts: unknown[]): Promise<void> => {
    for await (const answer of hostile.request('eu', 'verify', encode(...parts))) void answer;
  };
  let open = true;
  let attempts = 0;
  const harass = async (): Promise<void> => {
    while (open) {
      attempts += 1;
      await ask('hold', `t${attempts}`, 10 ** 9).catch(() => {});
    }
  };
  const done = harass();
  const startedMs = mesh.timers.now();
  let longestMs = 0;
  let written = 0;
  while (mesh.timers.now() < startedMs + 20_000) {
    const begunMs = mesh.timers.now();
    await mesh.run(nodes[0]!.counter('c').increment());
    written += 1;
    longestMs = Math.max(longestMs, mesh.timers.now() - begunMs);
    await mesh.run(new Promise<void>((resolve) => mesh.timers.after(10, resolve)));
  }
  open = false;
  await mesh.run(done);
  assert.ok(attempts > 100);
  assert.ok(longestMs <= MAX_HOLD_MS && longestMs > 1_000, `${longestMs}`);
  // Four fifths of the time remain.
  assert.ok(written > (0.7 * 20_000) / 10, `${written}`);
  await mesh.stop();
});

it('refuses options that make no sense', async () => {
  const { mesh, nodes } = await world(['eu', 'us']);
  for (const timeoutMs of [0, 1.5, Number.NaN, 10 ** 9])
    await assert.rejects(mesh.run(nodes[0]!.verify({ timeoutMs })), /timeoutMs must be/);
  const first = nodes[0]!.verify();
  await assert.rejects(mesh.run(nodes[0]!.verify()), /a verification runs on this node already/);
  await mesh.run(first);
  await mesh.stop();
});
