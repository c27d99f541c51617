/** Messages as a real node makes them, to be spoiled by tests of bad input. */
import { LoopbackNetwork } from '../../src/mesh/loopback.js';
import { createNode } from '../../src/node.js';
import { unpack } from '../../src/replica/msgpack.js';
import { isHeartbeat } from '../../src/sync/messages.js';
import { type Member, memberOf } from './mesh-compliance.js';
import { waitFor } from './wait.js';

/** What a node has said. */
export interface Templates {
  /** One frame for each kind of operation. */
  readonly frames: readonly Uint8Array[];
  readonly heartbeat: Uint8Array;
}

/** Runs a node on memory for a moment and listens. */
export async function recordTemplates(): Promise<Templates> {
  const network = new LoopbackNetwork();
  const listener: Member = memberOf(network.mesh('listener'));
  await listener.mesh.start(listener.handlers);
  const node = await createNode({ region: 'template', mesh: network.mesh('template'), heartbeatMs: 20 });
  try {
    await waitFor(() => listener.mesh.peers().length === 1);
    await node.register('text').set('value');
    await node.counter('count').increment(5);
    await node.register('count').set('7');
    await node.set('set').add('a', 'b', 'ü');
    await node.set('set').delete('a');
    await node.del('text', 'set', 'count');
    const frames = (): Uint8Array[] =>
      listener.heard.map(({ bytes }) => bytes).filter((it) => !isHeartbeat(it));
    await waitFor(() => frames().length === 6 && listener.heard.some(({ bytes }) => isHeartbeat(bytes)));
    return {
      frames: frames(),
      heartbeat: listener.heard.map(({ bytes }) => bytes).find(isHeartbeat)!,
    };
  } finally {
    await node.stop();
    await listener.mesh.stop();
  }
}

/** The tree of a frame: [version, number, stamp, replicas, deps, full, keys]; a fresh copy to spoil. */
export function treeOf(frame: Uint8Array): unknown[] {
  return unpack(frame) as unknown[];
}
