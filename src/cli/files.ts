/** The files of a peer: its identity, the mesh key, the RESP password, its settings. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { ConfigError } from '../errors.js';
import type { Logger } from '../options.js';

/** Reads a file that a flag names. Throws ConfigError with `advice` when it isn't there or can't be read. */
export async function readNamedFile(flag: string, path: string, advice: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new ConfigError(`${flag} ${path}: ${why(cause)}; ${advice}`, { cause });
  }
}

/** As {@link readNamedFile}, and warns when others on this machine may read it too. */
export async function readSecretFile(
  flag: string,
  path: string,
  advice: string,
  logger: Logger,
): Promise<Buffer> {
  const bytes = await readNamedFile(flag, path, advice);
  const { mode } = await stat(path);
  if ((mode & 0o077) !== 0) {
    logger.warn(
      { path, mode: (mode & 0o777).toString(8) },
      `${flag}: other users may read this file; chmod 600 it`,
    );
  }
  return bytes;
}

/** Writes a new file that only its owner can read. Throws ConfigError when it exists already: a key is never overwritten. */
export async function writeSecretFile(flag: string, path: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeFile(path, bytes, { mode: 0o600, flag: 'wx', flush: true });
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === 'EEXIST';
    const reason = exists
      ? 'exists already and is not overwritten; name another file, or move it away'
      : why(cause);
    throw new ConfigError(`${flag} ${path}: ${reason}`, { cause });
  }
}

/** Says whether a file is there. */
export async function fileExists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function why(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'there is no such file or folder';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied';
  if (code === 'EISDIR') return 'it is a folder';
  return message;
}
