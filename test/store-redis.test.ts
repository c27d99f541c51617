/**
 * The Valkey store on Redis 7, which people still run: the same compliance suite, on the distribution's own redis-server.
 * When there is none and none can be obtained, this file fails and says why.
 */
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { Redis } from 'ioredis';
import { ValkeyStore } from '../src/store/valkey.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { obtainValkey } from '../src/valkey-server/obtain.js';
import { storeCompliance } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

let redis: LaunchedValkey;
let raw: Redis;

before(async () => {
  redis = await launchValkey({ binaries: await obtainValkey({ product: 'redis' }) });
  raw = new Redis(redis.url);
});
after(async () => {
  raw?.disconnect();
  await redis?.stop();
});

it('it is Redis, 7.0 or later, and the store says so', async () => {
  const store = new ValkeyStore(redis.url);
  const { server } = await store.open();
  await store.close();
  assert.equal(server.server, 'redis');
  assert.match(String(server.version), /^(7|8)\.\d+/);
});

storeCompliance('Redis', async () => {
  await raw.flushall();
  return {
    store: () => new ValkeyStore(redis.url),
    now: () => Date.now(),
    until: (ms) => waitFor(() => Date.now() > ms, { what: 'the expiry' }),
    end: async () => {},
  };
});
