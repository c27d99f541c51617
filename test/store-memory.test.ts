/** The memory store: the compliance suite, and what only it has. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryStore } from '../src/store/memory.js';
import { MemoryDataset } from '../src/store/memory-dataset.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { b, storeCompliance, write } from './support/store-compliance.js';

storeCompliance('memory', async () => {
  const timers = new VirtualTimers();
  const dataset = new MemoryDataset();
  return {
    store: () => new MemoryStore({ timers, dataset, random: Math.random }),
    now: () => timers.now(),
    until: (ms) => timers.advance(ms - timers.now() + 1),
    end: async () => {},
  };
});

describe('the memory store, when told to', () => {
  const timers = new VirtualTimers();

  it('answers late, and yet takes effect in the order of the calls', async () => {
    const store = new MemoryStore({ timers, latencyMs: 10 });
    await timers.runToEnd(store.open());
    let confirmed = false;
    const commit = store.commit({ writes: [write('k')] }).then(() => {
      confirmed = true;
    });
    const load = store.load([{ key: b('k') }]);
    await timers.advance(9);
    assert.equal(confirmed, false);
    await timers.runToEnd(commit);
    assert.equal((await timers.runToEnd(load))[0]?.header, 'h');
  });

  it('fails a commit as it is asked to, and the ones behind it', async () => {
    const faults = ['refuse', 'lose', 'unknown'] as const;
    const codes = ['STORE_REFUSED', 'STORE_UNAVAILABLE', 'STORE_UNAVAILABLE'];
    const headers = [null, null, 'h'];
    for (const [i, fault] of faults.entries()) {
      let armed = true;
      const store = new MemoryStore({
        fault: () => {
          const now = armed ? fault : null;
          armed = false;
          return now;
        },
      });
      await store.open();
      const [first, second] = [
        store.commit({ writes: [write('k')] }),
        store.commit({ writes: [write('l')] }),
      ];
      await Promise.all([
        assert.rejects(first, { code: codes[i] }),
        assert.rejects(second, { code: 'STALE_COMMIT' }),
      ]);
      assert.equal((await store.load([{ key: b('k') }]))[0]?.header, headers[i]);
      await store.commit({ writes: [write('l')] });
    }
  });

  it('loses its data, and says so until it is opened again', async () => {
    const store = new MemoryStore();
    await store.open();
    await store.commit({ writes: [write('k')] });
    store.loseData();
    await assert.rejects(store.load([{ key: b('k') }]), { code: 'STORE_RESET' });
    await assert.rejects(store.commit({ writes: [] }), { code: 'STORE_RESET' });
    await store.open();
    assert.equal((await store.load([{ key: b('k') }]))[0]?.header, null);
  });

  it('picks the same random members for the same randomness', async () => {
    const pick = async () => {
      let seed = 7;
      const random = () => {
        seed = (seed * 16_807) % 2_147_483_647;
        return seed / 2_147_483_647;
      };
      const store = new MemoryStore({ random });
      await store.open();
      const add = Array.from({ length: 50 }, (_, i) => b(`m${i}`));
      await store.commit({ writes: [write('s', { native: { kind: 'set', add, remove: [] } })] });
      return [await store.randomMembers(b('s'), 10), await store.randomMembers(b('s'), -10)];
    };
    assert.deepEqual(await pick(), await pick());
  });
});
