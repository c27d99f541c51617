/** Random commits, and a store's comparison with the memory store, its model. */
import assert from 'node:assert/strict';
import { MemoryStore } from '../../src/store/memory.js';
import type { Commit, KeyWrite, Store } from '../../src/store/store.js';
import { b, frame } from './store-compliance.js';
import { contentOf } from './store-content.js';

/** A small deterministic generator (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A random commit; headers are known to be right about nine times out of ten. */
function randomCommit(
  random: () => number,
  headers: Map<string, string>,
  frames: Map<string, number>,
): Commit {
  const pick = (below: number) => Math.floor(random() * below);
  const member = () => b(['', 'a', 'b', '\xff', 'd', 'e'][pick(6)] ?? '');
  const some = () => Array.from({ length: pick(4) }, member);
  const keys = new Set(Array.from({ length: pick(6) }, () => `${['', '{t}', '{u}'][pick(3)]}${pick(8)}`));
  const writes = [...keys].map((key): KeyWrite => {
    const natives = [
      undefined,
      { kind: 'string', value: member() },
      { kind: 'delete' },
      { kind: 'rebuild' },
      { kind: 'set', add: some(), remove: some() },
      { kind: 'set', add: some(), remove: [] },
    ] as const;
    const native = natives[pick(natives.length)];
    const expiry = [undefined, undefined, null, 1, 99_999_999_999_000 + pick(100)][pick(5)];
    const known = headers.get(key) ?? null;
    return {
      key: b(key),
      expected: random() < 0.97 ? (known === null ? null : b(known)) : b('wrong'),
      header: random() < 0.2 ? null : b(`h${pick(100)}`),
      digest: pick(2 ** 24) * 2 ** 24 + pick(2 ** 24),
      clearEntries: random() < 0.2,
      entries: some().map((element) => [element, random() < 0.3 ? null : b(`e${pick(9)}`)] as const),
      ...(native === undefined ? {} : { native }),
      ...(expiry === undefined ? {} : { expireAtMs: expiry }),
    };
  });
  const replica = `me.${1 + pick(2)}`;
  const number = (frames.get(replica) ?? 0) + (random() < 0.97 ? 1 : pick(3));
  return {
    writes,
    ...(random() < 0.6 && number > 0 ? { frame: frame(number, { replica }) } : {}),
    applied: random() < 0.3 ? [{ replica: `other.${pick(2)}`, number: 1 + pick(9), stamp: pick(99) }] : [],
  };
}

const codeOf = (result: PromiseSettledResult<unknown>) =>
  result.status === 'fulfilled' ? 'done' : String((result.reason as { code?: string }).code);

/**
 * Does the same random commits to an open store without data and to a memory store, and asserts that both do the same. `again` gives
 * another store on the same data. A failure tells the seed; SEED chooses it.
 */
export async function sameAsMemory(store: Store, again: () => Store, rounds = 400): Promise<void> {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = randomFrom(seed);
  const memory = new MemoryStore();
  await memory.open();
  const [headers, frames] = [new Map<string, string>(), new Map<string, number>()];
  try {
    for (let round = 1; round <= rounds; round += 1) {
      const commit = randomCommit(random, headers, frames);
      const results = await Promise.allSettled([memory.commit(commit), store.commit(commit)]);
      const [expected, code] = results.map(codeOf);
      assert.equal(code, expected, `round ${round}`);
      if (code === 'done') {
        for (const { key, header } of commit.writes)
          header === null ? headers.delete(key) : headers.set(key, header);
        if (commit.frame) frames.set(commit.frame.replica, commit.frame.number);
      }
      if (random() < 0.05) {
        const replica = `me.${1 + Math.floor(random() * 2)}`;
        const through = Math.floor(random() * ((frames.get(replica) ?? 0) + 2));
        await Promise.all([memory.trimLog(replica, through), store.trimLog(replica, through)]);
      }
      if (round % 10 === 0) {
        const logs = ['me.1', 'me.2'];
        assert.deepEqual(await contentOf(store, logs), await contentOf(memory, logs), `round ${round}`);
      }
    }
    const byReplica = (x: { replica: string }, y: { replica: string }) => (x.replica < y.replica ? -1 : 1);
    const other = again();
    try {
      assert.deepEqual(
        [...(await other.open()).applied].sort(byReplica),
        [...(await memory.open()).applied].sort(byReplica),
      );
    } finally {
      await other.close();
    }
  } catch (error) {
    throw new Error(`SEED=${seed} shows it again: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}
