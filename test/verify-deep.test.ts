/** Deep verification and repair on virtual time: what someone did to a region's store past its node is found, and put right. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import type { MeshNode } from '../src/node.js';
import type { MemoryDataset } from '../src/store/memory-dataset.js';
import { keySlot } from '../src/store/slots.js';
import type { FindingKind, VerifyOptions, VerifyReport } from '../src/verify/report.js';
import { MeshWorld } from './support/mesh-world.js';

const QUIET = { antiEntropyMs: 86_400_000 };

async function world(): Promise<{ mesh: MeshWorld; nodes: MeshNode[] }> {
  const mesh = new MeshWorld();
  const nodes = await mesh.startAll(['eu', 'us', 'ap'], QUIET);
  await mesh.until('all know each other', () =>
    nodes.every((node) => node.status().peers.every(({ region }) => region !== '')),
  );
  const [eu, us, ap] = nodes as [MeshNode, MeshNode, MeshNode];
  for (let i = 0; i < 40; i += 1) await mesh.run(nodes[i % 3]!.register(`plain:${i}`).set(`value ${i}`));
  await mesh.run(eu.register('session').set('token', { ttlMs: 3_600_000 }));
  await mesh.run(us.counter('hits').increment(5));
  await mesh.run(ap.counter('hits').increment(2));
  await mesh.run(ap.set('tags').add('red', 'green', 'blue'));
  await mesh.run(us.register('gone').set('x'));
  await mesh.run(us.del('gone'));
  await mesh.equal();
  return { mesh, nodes };
}

const verify = (mesh: MeshWorld, node: MeshNode, options?: VerifyOptions): Promise<VerifyReport> =>
  mesh.run(node.verify(options));

const key = utf8;
const held = (data: MemoryDataset, name: string, now: number) => data.natives.get(key(name), now)?.value;

it('finds nothing in regions that nobody touched', async () => {
  const { mesh, nodes } = await world();
  const report = await verify(mesh, nodes[0]!, { deep: true });
  assert.equal(report.outcome, 'identical', JSON.stringify(report.deep));
  assert.deepEqual(report.deep, { checked: 3 * 44, inFlux: 0, findings: [], more: 0 });
  await mesh.stop();
});

/** What someone does to the store of `us`, what is found, and whether it can be put right. */
const planted: readonly {
  readonly what: string;
  readonly plant: (data: MemoryDataset, now: number) => void;
  readonly finds: readonly (readonly [FindingKind, string | null])[];
  readonly healed?: boolean;
}[] = [
  {
    what: 'DEL of a string',
    plant: (data) => data.natives.delete(key('plain:1')),
    finds: [['native missing', 'plain:1']],
  },
  {
    what: 'DEL of a string with an expiry, as an eviction does',
    plant: (data) => data.natives.delete(key('session')),
    finds: [['native missing', 'session']],
  },
  {
    what: 'DEL of a counter',
    plant: (data) => data.natives.delete(key('hits')),
    finds: [['native missing', 'hits']],
  },
  {
    what: 'DEL of a set',
    plant: (data) => data.natives.delete(key('tags')),
    finds: [['native missing', 'tags']],
  },
  {
    what: 'SET over a string',
    plant: (data, now) => void data.natives.set(key('plain:2'), key('forged'), now),
    finds: [['native differs', 'plain:2']],
  },
  {
    what: 'SET over a counter',
    plant: (data, now) => void data.natives.set(key('hits'), key('8'), now),
    finds: [['native differs', 'hits']],
  },
  {
    what: 'SET over a set',
    plant: (data, now) => void data.natives.set(key('tags'), key('forged'), now),
    finds: [['native of another type', 'tags']],
  },
  {
    what: 'SREM and SADD',
    plant: (data, now) => void data.natives.set(key('tags'), new Set([key('red'), key('pink')]), now),
    finds: [['members differ', 'tags']],
  },
  {
    what: 'EXPIRE',
    plant: (data, now) => data.natives.expire(key('plain:3'), now + 1e6, now),
    finds: [['expiry differs', 'plain:3']],
  },
  {
    what: 'PERSIST',
    plant: (data, now) => data.natives.expire(key('session'), null, now),
    finds: [['expiry differs', 'session']],
  },
  {
    what: 'a new key',
    plant: (data, now) => void data.natives.set(key('alien'), key('x'), now),
    finds: [['unreplicated', 'alien']],
    healed: false,
  },
  {
    what: 'SET of a key that was deleted',
    plant: (data, now) => void data.natives.set(key('gone'), key('x'), now),
    finds: [['unreplicated', 'gone']],
    healed: false,
  },
  {
    what: 'HDEL of a header',
    plant: (data) => data.slots.get(keySlot(key('plain:4')))!.headers.delete(key('plain:4')),
    finds: [
      ['slot damaged', null],
      ['unreplicated', 'plain:4'],
    ],
  },
  {
    what: 'HSET of a header that is none',
    plant: (data) =>
      void data.slots.get(keySlot(key('plain:5')))!.headers.set(key('plain:5'), 'nonsense' as ByteString),
    finds: [
      ['header damaged', 'plain:5'],
      ['slot damaged', null],
    ],
  },
  {
    what: 'HDEL of an entry',
    plant: (data) => void data.entries.get(key('tags'))!.delete(key('green')),
    finds: [
      ['entries damaged', 'tags'],
      ['members differ', 'tags'],
    ],
  },
];

for (const { what, plant, finds, healed = true } of planted) {
  it(`finds ${what} past the node, and ${healed ? 'puts it right' : 'leaves it'}`, async () => {
    const { mesh, nodes } = await world();
    const data = mesh.stores.get('us')!.dataset;
    const before = await mesh.run(mesh.stores.get('eu')!.strings([key('plain:4'), key('plain:5')]));
    plant(data, mesh.timers.now());
    const found = await verify(mesh, nodes[0]!, { deep: true });
    assert.equal(found.outcome, 'different');
    assert.deepEqual(
      found.deep!.findings.map((one) => [
        one.region,
        one.kind,
        one.key && 'text' in one.key ? one.key.text : null,
      ]),
      finds.map(([kind, name]) => ['us', kind, name]),
    );
    const lost = finds.some(([kind]) => kind === 'slot damaged');
    if (lost)
      assert.deepEqual(
        found.differingKeys.map(({ key: { ...one } }) => one),
        [{ text: what.includes('none') ? 'plain:5' : 'plain:4' }],
      );
    // Repair from another region than the damaged one.
    const repaired = await verify(mesh, nodes[2]!, { repair: true });
    const after = await verify(mesh, nodes[1]!, { deep: true });
    if (healed) {
      assert.equal(after.outcome, 'identical', JSON.stringify([repaired.deep, after], null, 1));
      const now = mesh.timers.now();
      for (const name of ['plain:1', 'plain:2', 'plain:3', 'plain:4', 'plain:5', 'session', 'hits'])
        assert.equal(held(data, name, now), held(mesh.stores.get('ap')!.dataset, name, now), name);
      assert.deepEqual(
        await mesh.run(mesh.stores.get('us')!.strings([key('plain:4'), key('plain:5')])),
        before,
      );
      assert.deepEqual(held(data, 'tags', now), new Set(['red', 'green', 'blue'].map(key)));
      assert.equal(
        data.natives.get(key('session'), now)!.expireAtMs,
        mesh.stores.get('ap')!.dataset.natives.get(key('session'), now)!.expireAtMs,
      );
    } else {
      assert.equal(after.outcome, 'different');
      assert.deepEqual(
        repaired.deep!.findings.map(({ repair, why }) => [repair, why]),
        [['left', 'what was written past the node is never removed']],
      );
    }
    // The node itself sees it again, and goes on.
    assert.equal(await mesh.run(nodes[1]!.counter('hits').increment()), 8n);
    await mesh.run(nodes[1]!.set('tags').delete('red'));
    await mesh.equal();
    await mesh.stop();
  });
}
