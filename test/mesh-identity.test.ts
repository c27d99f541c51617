import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError } from '../src/errors.js';
import {
  createIdentity,
  createMeshKey,
  readIdentity,
  readMeshKey,
  replicaHash,
} from '../src/mesh/identity.js';
import { createLibp2pMesh } from '../src/mesh/libp2p.js';

describe('an identity', () => {
  it('is read back as the PeerId that it was made with, and each is another', () => {
    const identity = createIdentity();
    assert.equal(readIdentity(identity.bytes).peerId, identity.peerId);
    assert.match(identity.peerId, /^12D3KooW/);
    assert.notEqual(createIdentity().peerId, identity.peerId);
    assert.equal(createLibp2pMesh({ identity: identity.bytes }).self, identity.peerId);
  });

  it('is refused with a remedy when its bytes are something else', () => {
    const { bytes } = createIdentity();
    for (const wrong of [new Uint8Array(0), new Uint8Array(68), bytes.subarray(0, 40), createMeshKey()]) {
      assert.throws(
        () => readIdentity(wrong),
        (error) => error instanceof ConfigError && /keygen/.test(error.message),
      );
    }
  });

  it('gives a replica hash of 8 characters that stays the same for ever, for any name', () => {
    assert.equal(replicaHash('a'), 'vyj5voay');
    assert.equal(replicaHash('12D3KooWLpRQxS4R5BLPpKSMVgfTsBgsAdHMRFwLxttsy7a6CHC4'), 'b8ejh1t7');
    const hashes = Array.from({ length: 1000 }, (_, i) => replicaHash(`member-${i}`));
    assert.equal(new Set(hashes).size, 1000);
    for (const hash of hashes) assert.match(hash, /^[a-z0-9]{8}$/);
  });
});

describe('a mesh key', () => {
  it('has the text form of pnet, and is read whatever the line ends', () => {
    const key = createMeshKey();
    const text = new TextDecoder().decode(key);
    assert.match(text, /^\/key\/swarm\/psk\/1\.0\.0\/\n\/base16\/\n[0-9a-f]{64}\n$/);
    assert.deepEqual(readMeshKey(new TextEncoder().encode(text.replaceAll('\n', '\r\n'))), readMeshKey(key));
  });

  it('is refused with a remedy when it is something else', () => {
    for (const wrong of ['', 'secret', new TextDecoder().decode(createMeshKey()).slice(0, -3)]) {
      assert.throws(
        () => readMeshKey(new TextEncoder().encode(wrong)),
        (error) => error instanceof ConfigError && /keygen --mesh-key/.test(error.message),
      );
    }
  });
});
