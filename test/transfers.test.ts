/** When transfers are made: with whom, how often, and how long a peer is left alone whose transfers fail. On virtual time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HybridClock } from '../crdts/index.js';
import { DecodeError, PeerError } from '../src/errors.js';
import { silentLogger } from '../src/options.js';
import { MemoryStore } from '../src/store/memory.js';
import { toPieces } from '../src/sync/pieces.js';
import { Transfers } from '../src/sync/transfers.js';
import { VirtualTimers } from '../src/virtual-timers.js';
import { Random } from './support/crdt-runs.js';

const ANTI_ENTROPY_MS = 10_000;

/** Members that break off every transfer: when each was asked, in milliseconds since the beginning. */
async function asked(
  peers: readonly string[],
  act: (transfers: Transfers, timers: VirtualTimers) => Promise<void>,
  fail: () => Error = () => new PeerError('broken off'),
): Promise<{ times: Map<string, number[]>; refused: string[] }> {
  const timers = new VirtualTimers();
  const beginMs = timers.now();
  const random = new Random(7);
  const store = new MemoryStore({ timers });
  await store.open();
  const times = new Map<string, number[]>(peers.map((peer) => [peer, []]));
  const refused: string[] = [];
  const transfers = new Transfers({
    mesh: {
      request: (peer) => {
        times.get(peer)!.push(timers.now() - beginMs);
        // biome-ignore lint/correctness/useYield: it breaks off before it says anything
        const answer = async function* (): AsyncGenerator<Uint8Array> {
          throw fail();
        };
        return toPieces(answer());
      },
    },
    store,
    replica: {
      id: 'me.1',
      available: true,
      applied: new Map(),
      merge: () => assert.fail('nothing has come'),
    },
    clock: new HybridClock(() => timers.now(), { maxDriftMs: 60_000 }),
    timers,
    random: () => random.below(1_000) / 1_000,
    logger: silentLogger,
    maxValueBytes: 1_000,
    antiEntropyMs: ANTI_ENTROPY_MS,
    floor: () => new Map(),
    siblings: { has: (peer) => peer === 'sibling', leads: true, makes: () => false },
    refresh: () => Promise.resolve(),
    onOutdated: () => assert.fail('nothing was compared'),
    stopped: new AbortController().signal,
    present: () => peers.map((peerId) => ({ peerId })),
    onMarks: () => assert.fail('nothing was merged'),
    onRefused: (peer) => refused.push(peer),
  });
  await act(transfers, timers);
  return { times, refused };
}

/** Asks again and again, as who is behind does, for so many milliseconds. */
function insist(peer: string, forMs: number) {
  return async (transfers: Transfers, timers: VirtualTimers): Promise<void> => {
    for (let ms = 0; ms < forMs; ms += 100) {
      await timers.runToEnd(transfers.pull(peer, true));
      await timers.advance(100);
    }
  };
}

test('a peer whose transfers break off is asked again after 1 s, 2 s and so on up to 16 s', async () => {
  const { times } = await asked(['a'], insist('a', 70_000));
  const at = times.get('a')!;
  const pauses = at.slice(1).map((time, i) => Math.round((time - at[i]!) / 1_000));
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, 16, 16]);
});

test('another peer is asked meanwhile', async () => {
  const { times } = await asked(['a', 'b'], async (transfers, timers) => {
    await timers.runToEnd(transfers.pull('a', true));
    await timers.runToEnd(transfers.pull('a', true));
    await timers.runToEnd(transfers.pull('b', true));
  });
  assert.deepEqual([times.get('a')!.length, times.get('b')!.length], [1, 1]);
});

test('one transfer is under way at a time', async () => {
  const { times } = await asked(['a', 'b'], async (transfers, timers) => {
    await timers.runToEnd(Promise.all([transfers.pull('a', true), transfers.pull('b', true)]));
  });
  assert.deepEqual([times.get('a')!.length, times.get('b')!.length], [1, 0]);
});

test('what can not be read is told', async () => {
  const { refused } = await asked(['a'], insist('a', 500), () => new DecodeError('not a state'));
  assert.deepEqual(refused, ['a']);
});

test('comparisons go around among the members, at about the interval, and never with a node on the same store', async () => {
  const hours = 2;
  const { times } = await asked(['a', 'b', 'sibling'], async (transfers, timers) => {
    for (let ms = 0; ms < hours * 3_600_000; ms += 1_000) {
      transfers.tick();
      await timers.advance(1_000);
    }
  });
  const [a, b] = [times.get('a')!.length, times.get('b')!.length];
  const expected = (hours * 3_600_000) / ANTI_ENTROPY_MS;
  assert.ok(a + b > expected * 0.7 && a + b < expected * 1.3, `${a + b} comparisons, ${expected} intervals`);
  assert.ok(Math.min(a, b) > expected * 0.35, `${a} with one, ${b} with the other`);
  assert.deepEqual(times.get('sibling'), []);
});
