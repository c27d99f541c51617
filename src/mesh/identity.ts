/** Who a member is: its Ed25519 identity, the PeerId made from it, and the key that a mesh shares. */
import './promise-with-resolvers.js';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { privateKeyFromProtobuf, privateKeyFromRaw, privateKeyToProtobuf } from '@libp2p/crypto/keys';
import type { Ed25519PrivateKey } from '@libp2p/interface';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { ConfigError } from '../errors.js';
import type { PeerId } from './mesh.js';

/** An identity as it is stored: the private key in libp2p's protobuf form, and the PeerId that others know it by. */
export interface Identity {
  readonly bytes: Uint8Array;
  readonly peerId: PeerId;
}

/** Makes a new Ed25519 identity. */
export function createIdentity(): Identity {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  const key = privateKeyFromRaw(Buffer.concat([Buffer.from(d!, 'base64url'), Buffer.from(x!, 'base64url')]));
  return { bytes: privateKeyToProtobuf(key), peerId: peerIdFromPrivateKey(key).toString() };
}

/** Reads an identity as `createIdentity` made it. Throws ConfigError when the bytes are something else. */
export function readIdentity(bytes: Uint8Array): { readonly peerId: PeerId } {
  return { peerId: peerIdFromPrivateKey(readPrivateKey(bytes)).toString() };
}

/** Reads the private key of an identity. Throws ConfigError when it isn't an Ed25519 key in libp2p's protobuf form. */
export function readPrivateKey(bytes: Uint8Array): Ed25519PrivateKey {
  const remedy = 'make one with `valkey-mesh keygen --out FILE`, or restore the file from its backup';
  let key: ReturnType<typeof privateKeyFromProtobuf>;
  try {
    key = privateKeyFromProtobuf(bytes);
  } catch (cause) {
    throw new ConfigError(`the identity (${bytes.byteLength} bytes) is not a private key: ${remedy}`, {
      cause,
    });
  }
  if (key.type !== 'Ed25519')
    throw new ConfigError(`the identity is an ${key.type} key, not Ed25519: ${remedy}`);
  return key;
}

const MESH_KEY = /^\/key\/swarm\/psk\/1\.0\.0\/\s+\/base16\/\s+[0-9a-f]{64}\s*$/i;

/** Makes the key that the members of a mesh share, in pnet's text form (three lines, the last one 64 hex digits). */
export function createMeshKey(): Uint8Array {
  return new TextEncoder().encode(`/key/swarm/psk/1.0.0/\n/base16/\n${randomBytes(32).toString('hex')}\n`);
}

/** Checks a mesh key and returns it without surrounding white space. Throws ConfigError when it isn't in pnet's text form. */
export function readMeshKey(bytes: Uint8Array): Uint8Array {
  const text = new TextDecoder().decode(bytes);
  if (!MESH_KEY.test(text)) {
    throw new ConfigError(
      'the mesh key is not three lines as `/key/swarm/psk/1.0.0/`, `/base16/` and 64 hex digits: ' +
        'make one with `valkey-mesh keygen --mesh-key FILE` and give the same file to every member',
    );
  }
  return new TextEncoder().encode(text.trim().split(/\s+/).join('\n'));
}

/**
 * Hashes a PeerId (or any name) to the 8 characters of a-z and 0-9 with which its replica ids begin, so that anyone
 * can check whether a replica belongs to a sender. About 41 bits: enough for members that the allow-list names, not
 * against someone who may choose among billions of identities.
 */
export function replicaHash(peerId: PeerId): string {
  const digest = createHash('sha256').update(peerId, 'utf8').digest();
  return (digest.readBigUInt64BE() % 36n ** 8n).toString(36).padStart(8, '0');
}
