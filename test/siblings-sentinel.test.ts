/**
 * Two nodes on one Valkey that fails over under Sentinel, with another region: both go on with the new primary, and what that one never got
 * comes back from the memory of either, though the other one died with the old primary.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { SentinelGroup } from './support/sentinels.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;

/** What a client may be told while the primary changes: unknown outcome, no store, or a plain refusal. */
const CLEAR = /^(STOREDOWN|MASTERDOWN|READONLY|LOADING|EXECABORT) /;

let group: SentinelGroup;
let regions: Regions;
let one: Region;
let two: Region;
let far: Region;

before(async () => {
  group = await SentinelGroup.start();
  regions = await Regions.start({ shares: { 1: 0 }, stores: [group, group] });
  [one, two, far] = regions.all as [Region, Region, Region];
});
after(async () => {
  await regions?.stop();
  await group?.stop();
});
afterEach(() => regions.heal());

/** Waits until nodes serve again, each with the new primary, and under a new epoch where `before` names the last one. */
async function goOn(nodes: readonly Region[], before: readonly string[] = []): Promise<void> {
  const { primary } = await group.roles();
  for (const [at, node] of nodes.entries()) {
    await waitFor(
      async () => {
        const { state, store, replica } = await node.status();
        return state === 'ready' && store.address === `127.0.0.1:${primary.port}` && replica !== before[at];
      },
      { deadlineMs: DEADLINE_MS, what: `${node.name} goes on with the new primary` },
    );
  }
}

/** Waits until a node has heard a heartbeat of another one, and with it all frames that were acknowledged before this call. */
async function hears(hearer: Region, maker: Region): Promise<void> {
  const { peerId } = await maker.status();
  // One that was on its way by now may come before the last frames.
  const sinceMs = performance.now() + 100;
  await waitFor(
    async () => {
      const askedMs = performance.now();
      const { peers } = await hearer.status();
      return askedMs - (peers.find((peer) => peer.peerId === peerId)?.silentMs ?? askedMs) > sinceMs;
    },
    { what: `${hearer.name} hears ${maker.name}` },
  );
}

describe('Two peers on one Valkey under Sentinel', () => {
  it('go on with the new primary when the old one is killed while both write', async (t) => {
    const ledger = new Ledger('killed primary');
    const { primary } = await group.roles();
    let over = false;
    const writing = regions.all.map((region) => ledger.writeUntil(() => over, region.door, 20));
    try {
      await ledger.grows(300);
      await primary.kill('SIGKILL');
      await group.failedOver(primary);
      await goOn([one, two]);
      await ledger.grows(300);
    } finally {
      over = true;
      await Promise.all(writing);
    }
    t.diagnostic(`${ledger.acknowledged.size} entries`);
    for (const message of ledger.errors.keys()) assert.match(message, CLEAR);
    for (const node of [one, two]) assert.equal(await ledger.write(node.door, 20), 20);
    await regions.synchronise();
    await ledger.check(regions);
    await primary.restart();
    await group.settled();
  });

  it('have what the new primary never got, from the memory of the one that is left, when the other dies too', async () => {
    const ledger = new Ledger('lost tail');
    for (const region of regions.all) await ledger.write(region.door, 20);
    await regions.synchronise();
    const { primary, other: replica } = await group.roles();
    const epoch = (await two.status()).replica;
    await replica.kill('SIGKILL');
    for (const node of [one, two]) regions.cut(node, far);
    // Acknowledged by the primary alone, and nobody else hears of it.
    for (let burst = 0; burst < 3; burst += 1)
      for (const node of [one, two]) assert.equal(await ledger.write(node.door, 20), 20);
    await hears(two, one);
    await primary.kill('SIGKILL');
    await one.kill('SIGKILL');
    await replica.restart();
    await group.failedOver(primary);
    await goOn([two], [epoch]);
    await waitFor(
      () =>
        ledger.check({ all: [two] }).then(
          () => true,
          () => false,
        ),
      {
        deadlineMs: DEADLINE_MS,
        what: 'everything is back',
      },
    );
    regions.heal();
    await one.start();
    await regions.connected();
    for (const node of [one, two]) assert.equal(await ledger.write(node.door, 20), 20);
    await regions.synchronise();
    await ledger.check(regions);
    await primary.restart();
    await group.settled();
  });
});
