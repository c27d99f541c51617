/**
 * A region on a Valkey Cluster to one of whose servers a slot has come just before that server fails over to a replica that never got the slot's
 * keys. Nothing was committed there meanwhile, so no record of a commit tells. What is counted there next must not replace what was counted before.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { keySlot } from '../src/store/slots.js';
import type { LaunchedValkey } from '../src/valkey-server/launch.js';
import { ValkeyCluster } from './support/cluster.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 30_000;

let cluster: ValkeyCluster;
let regions: Regions;
let a: Region;
let b: Region;

before(async () => {
  cluster = await ValkeyCluster.start({ replicas: 1 });
  regions = await Regions.start({ count: 2, stores: [cluster] });
  [a, b] = regions.all as [Region, Region];
});
after(async () => {
  await regions?.stop();
  await cluster?.stop();
});
afterEach(() => regions.heal());

/** A counter that is on the second server. */
function counterOnSecond(name: string): string {
  for (let i = 0; ; i += 1) {
    const slot = keySlot(`${name} ${i}` as ByteString);
    if (slot > 6000 && slot < 10_000) return `${name} ${i}`;
  }
}

/** Keeps a primary's replicas from hearing anything more of it. */
async function silence(primary: LaunchedValkey): Promise<void> {
  const admin = cluster.admin(primary);
  try {
    await admin.call('ACL', 'SETUSER', 'default', '-psync', '-sync');
    await admin.call('CLIENT', 'KILL', 'TYPE', 'replica');
  } finally {
    admin.disconnect();
  }
}

/** Counts once, as soon as the node does so. */
async function count(key: string): Promise<void> {
  let refusal = '';
  const counted = () =>
    a.door.incr(key).then(
      () => true,
      (error: Error) => {
        refusal = error.message;
        return false;
      },
    );
  await waitFor(counted, { deadlineMs: DEADLINE_MS, what: 'the count' }).catch((error: Error) => {
    throw new Error(`${error.message} (${refusal})`);
  });
}

/** Moves a counter to a server that fails over at once to a replica without it; `meanwhile` comes between the two. */
async function loseArrived(key: string, meanwhile: () => Promise<unknown>): Promise<void> {
  const slot = keySlot(key as ByteString);
  const second = cluster.servers[1]!;
  const { primary, replica } = await cluster.roles();
  for (let i = 0; i < 20; i += 1) await a.door.incr(key);
  await regions.synchronise();
  regions.cut(a);
  const { replica: epoch } = await a.status();
  await silence(primary);
  await cluster.moveSlot(slot, second, primary);
  await meanwhile();
  await primary.kill('SIGKILL');
  await waitFor(() => cluster.isPrimary(replica), {
    deadlineMs: DEADLINE_MS,
    what: 'the replica takes over',
  });
  await cluster.settled([replica, second, cluster.servers[2]!]);
  const stored = cluster.admin(replica);
  assert.equal(await stored.call('CLUSTER', 'COUNTKEYSINSLOT', String(slot)), 0, 'the keys are lost');
  stored.disconnect();
  for (let i = 0; i < 5; i += 1) await count(key);
  regions.heal();
  await regions.connected();
  await regions.synchronise();
  for (const { name, reader } of regions.all) assert.equal(await reader.get(key), '25', name);
  assert.notEqual((await a.status()).replica, epoch, 'a new epoch has begun');
  assert.equal(await b.door.get(key), '25');
  await primary.restart();
  await waitFor(async () => !(await cluster.isPrimary(primary)), {
    deadlineMs: DEADLINE_MS,
    what: 'the old primary is a replica',
  });
  await cluster.settled();
}

describe('A region on a cluster, one of whose servers loses a slot that has just come,', () => {
  it('goes on counting, though nobody had touched the slot since', async () => {
    await loseArrived(counterOnSecond('untouched'), async () => {});
  });

  it('goes on counting, when it was read there', async () => {
    const key = counterOnSecond('read');
    await loseArrived(key, async () => assert.equal(await a.door.get(key), '20'));
  });

  it('keeps its epoch when the slot was not lost', async () => {
    const key = counterOnSecond('kept');
    const slot = keySlot(key as ByteString);
    const second = cluster.servers[1]!;
    const { primary, replica } = await cluster.roles();
    for (let i = 0; i < 20; i += 1) await a.door.incr(key);
    const { replica: epoch } = await a.status();
    await cluster.moveSlot(slot, second, primary);
    await count(key);
    const copying = cluster.admin(primary);
    await copying.call('WAIT', '1', '10000');
    copying.disconnect();
    await primary.kill('SIGKILL');
    await waitFor(() => cluster.isPrimary(replica), {
      deadlineMs: DEADLINE_MS,
      what: 'the replica takes over',
    });
    await count(key);
    await regions.synchronise();
    for (const { name, reader } of regions.all) assert.equal(await reader.get(key), '22', name);
    assert.equal((await a.status()).replica, epoch);
  });
});
