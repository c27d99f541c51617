/** The store on a Valkey Cluster of three servers: the compliance suite. */
import { after, before } from 'node:test';
import { ValkeyClusterStore } from '../src/store/valkey-cluster.js';
import { ValkeyCluster } from './support/cluster.js';
import { storeCompliance } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

let cluster: ValkeyCluster;

before(async () => {
  cluster = await ValkeyCluster.start({ appendonly: false });
});
after(() => cluster?.stop());

storeCompliance('Valkey Cluster', async () => {
  await cluster.flush();
  return {
    store: () => new ValkeyClusterStore(cluster.url),
    now: () => Date.now(),
    until: (ms) => waitFor(() => Date.now() > ms, { what: 'the expiry' }),
    end: async () => {},
  };
});
