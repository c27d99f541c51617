/** The front door's compliance suite on real nodes: on a memory store, and on a real Valkey. */
import { createNode } from '../src/node.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { respCompliance } from './support/resp-compliance.js';
import { respDifferential } from './support/resp-differential.js';

respCompliance('a node on a memory store', async () => {
  const node = await createNode({ region: 'a', listen: [] });
  return { engine: node.engine, stop: () => node.stop() };
});

respCompliance('a node on a real Valkey', async () => {
  const server = await launchValkey();
  const node = await createNode({ region: 'a', listen: [], store: server.url });
  return {
    engine: node.engine,
    async stop() {
      await node.stop();
      await server.stop();
    },
  };
});

respDifferential('a node on a memory store', async () => {
  const node = await createNode({ region: 'a', listen: [] });
  return { engine: node.engine, stop: () => node.stop() };
});

respDifferential('a node on a real Valkey', async () => {
  const server = await launchValkey();
  const node = await createNode({ region: 'a', listen: [], store: server.url });
  return {
    engine: node.engine,
    async stop() {
      await node.stop();
      await server.stop();
    },
  };
});
