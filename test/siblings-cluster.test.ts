/** Two nodes on one real Valkey Cluster, with another region: both write the same keys, one is killed, and nothing is lost or counted twice. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ValkeyCluster } from './support/cluster.js';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

describe('Two peers on one Valkey Cluster', () => {
  let cluster: ValkeyCluster;
  let regions: Regions;
  let one: Region;
  let two: Region;
  let far: Region;

  before(async () => {
    cluster = await ValkeyCluster.start();
    regions = await Regions.start({ shares: { 1: 0 }, stores: [cluster, cluster] });
    [one, two, far] = regions.all as [Region, Region, Region];
  });
  after(async () => {
    await regions?.stop();
    await cluster?.stop();
  });

  it('know each other', async () => {
    for (const [node, count] of [
      [one, 1],
      [two, 1],
      [far, 0],
    ] as const) {
      const { peers } = await node.status();
      assert.equal(peers.filter(({ sharesStore }) => sharesStore === true).length, count, node.name);
    }
  });

  it('count exactly and keep every member when both write the same keys at once', async () => {
    const rounds = 25;
    const write = async ({ door, name }: Region): Promise<void> => {
      for (let i = 0; i < rounds; i += 1) {
        await Promise.all([
          // On several servers: all or nothing.
          door.multi().incr('n').incrby('m', 2).incr(`n:${name}`).exec(),
          ...Array.from({ length: 4 }, () => door.incr('n')),
          door.sadd('s', `${name}-${i}`, `all-${i}`),
          door.srem('s', `all-${i - 1}`),
        ]);
      }
    };
    await Promise.all(regions.all.map(write));
    await regions.synchronise();
    for (const { name, reader } of regions.all) {
      assert.equal(await reader.get('n'), String(3 * 5 * rounds), name);
      assert.equal(await reader.get('m'), String(3 * 2 * rounds), name);
      for (const { name: other } of regions.all) assert.equal(await reader.get(`n:${other}`), String(rounds));
      const members = (await reader.smembers('s')).filter((member) => !member.startsWith('all-'));
      assert.equal(members.length, 3 * rounds, name);
    }
  });

  it('lose nothing and count once when one is killed and the other goes on, and when it returns', async () => {
    const ledger = new Ledger('killed');
    for (const [victim, other] of [
      [one, two],
      [two, one],
    ] as const) {
      let over = false;
      const writers = [victim.connect(), other.connect(), far.connect()].map((client) =>
        ledger.writeUntil(() => over, client, 20),
      );
      await ledger.grows(100);
      await victim.kill('SIGKILL');
      await ledger.grows(100);
      const alone = `without ${victim.name}`;
      await far.door.set(alone, 'v');
      await waitFor(async () => (await other.reader.get(alone)) === 'v', {
        deadlineMs: 20_000,
        what: 'the one that is left applies what the other region sends',
      });
      await victim.start();
      await ledger.grows(100);
      over = true;
      await Promise.all(writers);
      ledger.checkErrors();
    }
    await regions.connected();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('agree in MESH VERIFY with the other region, and with each other', async () => {
    const reply = (await two.door.call('MESH', 'VERIFY')) as unknown[];
    assert.match(JSON.stringify(reply), /^\["outcome","identical"/);
  });
});
