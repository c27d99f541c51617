/**
 * A member in a process of its own: answers every request with chunks for ever, prints its address as one JSON line.
 * Settings come as JSON in the first argument. With `exchange`, it plays through a life with a second member and must
 * then end by itself.
 */
import { createLibp2pMesh } from '../../src/mesh/libp2p.js';
import { collect, memberOf } from './mesh-compliance.js';
import { waitFor } from './wait.js';

const { meshKey, exchange } = JSON.parse(process.argv[2] ?? '{}') as { meshKey?: string; exchange?: boolean };
const key = meshKey === undefined ? {} : { meshKey: new TextEncoder().encode(meshKey) };

const first = memberOf(createLibp2pMesh(key));
await first.mesh.start(first.handlers);

if (exchange === true) {
  const second = memberOf(createLibp2pMesh({ ...key, peers: first.mesh.addresses() }));
  await second.mesh.start(second.handlers);
  await waitFor(() => first.mesh.peers().length === 1 && second.mesh.peers().length === 1);
  await collect(second.mesh.request(first.mesh.self, 'echo', new Uint8Array(10)));
  second.mesh.broadcast(new Uint8Array(10));
  await waitFor(() => first.heard.length === 1);
  await Promise.all([first.mesh.stop(), second.mesh.stop()]);
  console.log('stopped');
} else {
  first.answer = async function* () {
    for (;;) yield new Uint8Array(1000);
  };
  console.log(JSON.stringify({ peer: first.mesh.self, address: first.mesh.addresses()[0] }));
  setInterval(() => {}, 1000);
}
