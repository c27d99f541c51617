/** The front door's suites on real nodes: on a memory store, and on a real Valkey. */
import { createNode } from '../src/node.js';
import { launchValkey } from '../src/valkey-server/launch.js';
import { type EngineUnderTest, respCompliance } from './support/resp-compliance.js';
import { respDifferential } from './support/resp-differential.js';

async function onMemory(): Promise<EngineUnderTest> {
  const node = await createNode({ region: 'a', listen: [] });
  return { engine: node.engine, stop: () => node.stop() };
}

async function onValkey(): Promise<EngineUnderTest> {
  const server = await launchValkey();
  const node = await createNode({ region: 'a', listen: [], store: server.url });
  return {
    engine: node.engine,
    async stop() {
      await node.stop();
      await server.stop();
    },
  };
}

for (const suite of [respCompliance, respDifferential]) {
  suite('a node on a memory store', onMemory);
  suite('a node on a real Valkey', onValkey);
}
