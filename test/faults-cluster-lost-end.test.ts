/**
 * A region on a Valkey Cluster one of whose servers comes back without its last moments, while the region is cut off and nobody else has them.
 * What another server has logged is done again, also when the node died at the same moment: nothing that stands in a log is lost.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { keySlot } from '../src/store/slots.js';
import type { LaunchedValkey } from '../src/valkey-server/launch.js';
import { ValkeyCluster } from './support/cluster.js';
import { Ledger } from './support/ledger.js';
import { type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

const DEADLINE_MS = 60_000;

let cluster: ValkeyCluster;
let regions: Regions;
let a: Region;
/** The server that falls back to a snapshot; the other one keeps its data, and with them the frames. */

let loses: LaunchedValkey;

before(async () => {
  cluster = await ValkeyCluster.start({ primaries: 2, appendonly: false });
  [, loses] = cluster.servers as [LaunchedValkey, LaunchedValkey];
  regions = await Regions.start({ count: 2, stores: [cluster] });
  [a] = regions.all as [Region, Region];
});
after(async () => {
  await regions?.stop();
  await cluster?.stop();
});
afterEach(() => regions.heal());

/** A ledger whose counter, which stands first in each frame, is on the server that keeps its data, and whose notes are on the other. */
function ledgerOfTwo(name: string): Ledger {
  const isFirst = (key: string) => keySlot(key as ByteString) < 8192;
  for (let i = 0; ; i += 1) {
    const full = `${name} ${i}`;
    if (isFirst(`${full} count`) && !isFirst(`${full} entries`)) return new Ledger(full);
  }
}

/** Writes entries that nobody else hears of, and of which one server has only the first half after `dies`. */
async function loseHalf(ledger: Ledger, dies: () => Promise<void>): Promise<void> {
  await ledger.write(a.door, 50);
  await regions.synchronise();
  const admin = cluster.admin(loses);
  try {
    await admin.save();
  } finally {
    admin.disconnect();
  }
  regions.cut(a);
  for (let burst = 0; burst < 10; burst += 1) assert.equal(await ledger.write(a.door, 10), 10);
  await dies();
  await loses.restart();
  await cluster.settled();
}

/** Waits until all entries stand in the region's own Valkey, though nobody else can be asked. */
async function allAreHere(ledger: Ledger): Promise<void> {
  await waitFor(
    () =>
      ledger.check({ all: [a] }).then(
        () => true,
        () => false,
      ),
    {
      deadlineMs: 20_000,
      what: 'every entry is here',
    },
  ).catch(() => ledger.check({ all: [a] }));
}

describe('A region on a cluster, one of whose servers loses its end,', () => {
  it('does again what its memory holds', async () => {
    const ledger = ledgerOfTwo('remembered');
    const { replica } = await a.status();
    await loseHalf(ledger, () => loses.kill('SIGKILL'));
    const begunAnew = async () => {
      const status = await a.status();
      return status.state === 'ready' && status.replica !== replica;
    };
    await waitFor(begunAnew, { deadlineMs: DEADLINE_MS, what: 'a new epoch begins' });
    await allAreHere(ledger);
    regions.heal();
    await regions.synchronise();
    await ledger.check(regions);
  });

  it('does again what stands in the log of another server, when the node dies at the same moment', async () => {
    const ledger = ledgerOfTwo('logged');
    await loseHalf(ledger, async () => {
      await a.kill('SIGKILL');
      await loses.kill('SIGKILL');
    });
    await a.start();
    await allAreHere(ledger);
    regions.heal();
    await regions.connected();
    await regions.synchronise();
    await ledger.check(regions);
  });
});
