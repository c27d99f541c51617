/** The version of this package, as its package.json says. */
import { readFileSync } from 'node:fs';

/** Reads the version from the nearest package.json above this file: one place, whether run from src/ or from dist/. */
export function packageVersion(): string {
  for (let folder = new URL('.', import.meta.url); folder.pathname !== '/'; folder = new URL('..', folder)) {
    try {
      const found: unknown = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8'));
      if (typeof found === 'object' && found !== null && 'version' in found) return String(found.version);
    } catch {
      // No package.json here: look one folder up.
    }
  }
  return 'unknown';
}

/** The version of this package. */
export const VERSION = packageVersion();
