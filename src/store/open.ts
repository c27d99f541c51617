/** Chooses a store by its specification: one line here per store. */
import { ConfigError } from '../errors.js';
import type { Logger } from '../options.js';
import type { Timers } from '../timers.js';
import { MemoryStore } from './memory.js';
import type { Store } from './store.js';
import { ValkeyStore } from './valkey.js';
import type { ValkeyServerOptions } from './valkey-address.js';
import { ValkeyClusterStore } from './valkey-cluster.js';
import { isClusterUrl, isValkeyUrl, VALKEY_URL_FORM } from './valkey-url.js';

/** What every store is made with. */
export interface StoreSurroundings {
  readonly timers: Timers;
  readonly random: () => number;
  readonly logger: Logger;
}

/**
 * Makes the store that a specification names: `memory`, the URL of a Valkey server, or an object that describes one. It
 * still has to be opened with its own open(). Throws ConfigError for anything else.
 */
export function openStore(spec: string | ValkeyServerOptions, surroundings: StoreSurroundings): Store {
  if (typeof spec !== 'string')
    return spec.cluster === undefined
      ? new ValkeyStore(spec, surroundings)
      : new ValkeyClusterStore(spec, surroundings);
  if (spec === 'memory') return new MemoryStore(surroundings);
  if (isClusterUrl(spec)) return new ValkeyClusterStore(spec, surroundings);
  if (isValkeyUrl(spec)) return new ValkeyStore(spec, surroundings);
  // The text may hold a password, so it isn't shown.
  throw new ConfigError(`unknown store: write 'memory' or ${VALKEY_URL_FORM}`);
}
