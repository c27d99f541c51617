/** `valkey-mesh keygen`: makes a peer's identity and the key of a mesh. */
import { ConfigError } from '../errors.js';
import { createIdentity, createMeshKey } from '../mesh/identity.js';
import { fileExists, writeSecretFile } from './files.js';

export interface KeygenFlags {
  /** Where the identity goes. Default: identity.key, unless only a mesh key is asked for. */
  readonly out?: string;
  /** Where the mesh key goes. Default: none is made. */
  readonly meshKey?: string;
  readonly json?: boolean;
}

/** Writes the key files, mode 0600, and prints the PeerId. Throws ConfigError when a file exists: nothing is written then. */
export async function keygen(flags: KeygenFlags, print: (line: string) => void): Promise<void> {
  const out = flags.out ?? (flags.meshKey === undefined ? 'identity.key' : undefined);
  for (const [flag, path] of [
    ['--out', out],
    ['--mesh-key', flags.meshKey],
  ] as const) {
    if (path !== undefined && (await fileExists(path))) {
      throw new ConfigError(
        `${flag} ${path}: exists already and is not overwritten; name another file, or move it away`,
      );
    }
  }
  let peerId: string | null = null;
  if (out !== undefined) {
    const identity = createIdentity();
    await writeSecretFile('--out', out, identity.bytes);
    peerId = identity.peerId;
  }
  if (flags.meshKey !== undefined) await writeSecretFile('--mesh-key', flags.meshKey, createMeshKey());
  if (flags.json) {
    print(JSON.stringify({ peerId, identity: out ?? null, meshKey: flags.meshKey ?? null }));
    return;
  }
  if (out !== undefined) print(`identity  ${out}  ${peerId}`);
  if (flags.meshKey !== undefined) print(`mesh key  ${flags.meshKey}  (copy it to every member)`);
}
