/**
 * What batches do quickly, without deltas of their own: plain writes, increments, adds (src/replica/plain-record.ts, quick-change.ts). Whatever is
 * mixed with them in a batch, and however often a key is named: the frames say what the store holds, and the digests are right.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { addDigests, keyDigest } from '../crdts/digest.js';
import { emptyKeyState, type KeyState, mergeKeyState } from '../crdts/key-state.js';
import { decodeFrame, keysOf } from '../src/replica/frame.js';
import type { Transaction } from '../src/replica/operation.js';
import { readStates } from '../src/sync/key-digests.js';
import { runs } from './support/crdt-runs.js';
import { type ReplicaWorld, replicaWorld } from './support/replica-world.js';

const KEYS = ['a', 'b', 'c'].map(utf8);
const MEMBERS = ['m', 'n', 'o'].map(utf8);

type Act = readonly [
  kind: 'set' | 'incr' | 'add' | 'remove' | 'delete' | 'expire',
  key: number,
  value: number,
];

const acts: fc.Arbitrary<Act> = fc.tuple(
  fc.constantFrom('set', 'set', 'incr', 'incr', 'incr', 'add', 'add', 'add', 'remove', 'delete', 'expire'),
  fc.nat(KEYS.length - 1),
  fc.nat(7),
);

function submit(world: ReplicaWorld, [kind, at, value]: Act): void {
  const key = KEYS[at]!;
  const members = MEMBERS.filter((_, i) => value & (1 << i));
  const run = (tx: Transaction): unknown => {
    if (kind === 'set') return tx.set(key, utf8(String(value)), 'clear');
    if (kind === 'incr') return tx.increment(key, value - 3);
    if (kind === 'add') return tx.add(key, members);
    if (kind === 'remove') return tx.remove(key, members);
    if (kind === 'delete') return tx.delete(key);
    return tx.expire(key, tx.nowMs + 1_000_000 + value);
  };
  const need = kind === 'set' ? { key, blind: true } : { key, value: true, members };
  void world.submit({ needs: [need], run });
}

/** Stored states, with the digest of all slots. */
async function stored(world: ReplicaWorld): Promise<[Map<ByteString, KeyState>, number]> {
  const states = new Map(await world.timers.runToEnd(readStates(world.store, KEYS)));
  let digest = 0;
  for (const of of (await world.timers.runToEnd(world.store.digests())).values())
    digest = addDigests(digest, of);
  return [states, digest];
}

test('frames say what the store holds, and digests are right, whatever is mixed in a batch', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.boolean(), fc.boolean(), fc.array(acts, { minLength: 1, maxLength: 8 })), {
        maxLength: 8,
      }),
      async (batches) => {
        const worlds = [
          await replicaWorld({ id: 'aaaaaaaa.1', maxCachedKeys: 2 }),
          await replicaWorld({ id: 'bbbbbbbb.1' }),
        ] as const;
        const joined = new Map<ByteString, KeyState>();
        for (const [second, exchange, batch] of batches) {
          const world = worlds[Number(second)]!;
          for (const act of batch) submit(world, act);
          await world.settle();
          if (!exchange) continue;
          for (const [from, to] of [worlds, [worlds[1], worlds[0]]] as const) {
            const done = to.replica.applied.get(from.replica.id)?.number ?? 0;
            const frames = from.frames.filter(({ number }) => number > done);
            to.replica.merge({ frames, states: [], marks: [] });
            await to.settle();
          }
        }
        const inOrder = worlds.flatMap(({ frames }) => frames).sort((a, b) => a.stamp - b.stamp);
        for (const { bytes } of inOrder) {
          for (const [key, delta] of keysOf(decodeFrame(bytes, 1 << 20))) {
            const state = joined.get(key) ?? emptyKeyState();
            mergeKeyState(state, delta);
            joined.set(key, state);
          }
        }
        for (const [i, to] of worlds.entries()) {
          const from = worlds[1 - i]!;
          const done = to.replica.applied.get(from.replica.id)?.number ?? 0;
          to.replica.merge({
            frames: from.frames.filter(({ number }) => number > done),
            states: [],
            marks: [],
          });
          await to.settle();
          const [states, digest] = await stored(to);
          assert.deepEqual(states, joined);
          let sum = 0;
          for (const [key, state] of joined) sum = addDigests(sum, keyDigest(key, state));
          assert.equal(digest, sum);
        }
      },
    ),
    runs(100),
  );
});
