import { createLibp2pMesh } from '../src/mesh/libp2p.js';
import type { Mesh } from '../src/mesh/mesh.js';
import { meshCompliance } from './support/mesh-compliance.js';

meshCompliance('libp2p', () => {
  const meshes: Mesh[] = [];
  return {
    async create() {
      const peers = meshes.flatMap((mesh) => mesh.addresses());
      const mesh = createLibp2pMesh({ peers });
      meshes.push(mesh);
      return mesh;
    },
    async close() {
      await Promise.all(meshes.map((mesh) => mesh.stop()));
    },
  };
});
