/** The part of the compliance suite that is about sets with more entries than one small hash holds, while they grow, shrink and are read. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyWrite, Store } from '../../src/store/store.js';
import { randomFrom } from './random-commits.js';
import { b, write } from './store-compliance.js';

type Change = readonly [element: ByteString, entry: ByteString | null];

const KEY = 'big\xff set' as ByteString;
const name = (i: number) => b(`element ${i}`);
const named = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => name(from + i));
const stored = (elements: readonly ByteString[], entry = 'e'): Change[] =>
  elements.map((element) => [element, b(`${entry}${element}`)]);
const removed = (elements: readonly ByteString[]): Change[] => elements.map((element) => [element, null]);

/** All entries, by steps of a scan; `between` is called after each step. */
export async function scanned(
  store: Store,
  key: ByteString,
  count: number,
  between: (steps: number) => Promise<unknown> = async () => {},
): Promise<Map<ByteString, ByteString>> {
  const found = new Map<ByteString, ByteString>();
  let [cursor, steps] = ['0', 0];
  do {
    const page = await store.scanEntries(key, cursor, count);
    for (const [element, entry] of page.entries) found.set(element, entry);
    assert.ok(page.entries.size <= 2 * count + 600, `a step of ${count} gave ${page.entries.size}`);
    cursor = page.cursor;
    steps += 1;
    assert.ok(steps < 20_000, 'the scan does not end');
    await between(steps);
  } while (cursor !== '0');
  return found;
}

/** A key's entries as they should be, and the store that should have them. */
class Twin {
  readonly entries = new Map<ByteString, ByteString>();
  #header: ByteString | null = null;

  constructor(readonly store: Store) {}

  async change(changes: readonly Change[], parts: Partial<KeyWrite> = {}): Promise<void> {
    const made = write(KEY, { expected: this.#header, entries: changes, ...parts });
    await this.store.commit({ writes: [made] });
    this.#header = made.header;
    if (made.clearEntries || made.header === null) this.entries.clear();
    for (const [element, entry] of changes) {
      if (entry === null) this.entries.delete(element);
      else this.entries.set(element, entry);
    }
  }

  async load(elements: readonly ByteString[] | 'all'): Promise<ReadonlyMap<ByteString, ByteString>> {
    return (await this.store.load([{ key: KEY, elements }]))[0]!.entries;
  }

  /** Asserts that all reads tell what should be there. `natives`: how many native keys there are. */
  async check(natives = 0, absent: readonly ByteString[] = [b('absent')]): Promise<void> {
    const sorted = (entries: ReadonlyMap<ByteString, ByteString>) =>
      [...entries].sort(([x], [y]) => (x < y ? -1 : 1));
    const expected = sorted(this.entries);
    assert.deepEqual(sorted(await this.load('all')), expected);
    assert.deepEqual(sorted(await this.load([...absent, ...this.entries.keys()])), expected);
    assert.deepEqual(sorted(await scanned(this.store, KEY, 100)), expected);
    assert.equal(await this.store.count(), natives);
  }
}

/** Adds the tests to a suite; `opened` gives the store of the test that runs. */
export function bigSetCompliance(opened: () => Store): void {
  describe('entries of a big set', () => {
    it('are all there while it grows, one by one and by many at once', async () => {
      const twin = new Twin(opened());
      for (let i = 0; i < 280; i += 1) {
        await twin.change(stored([name(i)]));
        if (i > 250 && i < 262) await twin.check();
      }
      await twin.check();
      for (const size of [1, 40, 400, 3, 4000, 1, 9000]) {
        const { size: from } = twin.entries;
        await twin.change(stored(named(from, from + size)));
        await twin.check();
      }
    });

    it('are all there when they come in one commit', async () => {
      for (const size of [511, 512, 513, 1000, 20_000]) {
        const twin = new Twin(opened());
        await twin.change(stored(named(0, size)), { expected: null });
        await twin.check();
        await twin.change([], { header: null });
        await twin.check();
      }
    });

    it('can be changed and removed, until none is left, and come again', async () => {
      const twin = new Twin(opened());
      for (let round = 0; round < 3; round += 1) {
        await twin.change(stored(named(0, 3000)));
        await twin.change(stored(named(1000, 2000), 'changed'));
        await twin.check();
        await twin.change([...removed(named(0, 1500)), ...stored(named(3000, 3100)), [b('absent'), null]]);
        await twin.check(0, named(1400, 1500));
        await twin.change(removed(named(1500, 3099)));
        await twin.check();
        await twin.change(removed(named(3099, 3100)));
        assert.equal(twin.entries.size, 0);
        await twin.check();
        await twin.change(stored(named(0, 10)));
        await twin.check();
      }
    });

    it('can be changed, removed and read in any order, neighbours or not', async () => {
      const twin = new Twin(opened());
      await twin.change(stored(named(0, 20_000)));
      const orders = [
        (i: number) => i,
        (i: number) => (i % 2) * 500 + i,
        (i: number) => 7919 * i,
        (i: number) => 9000 + (i % 3) * 1000 + Math.floor(i / 3),
      ];
      for (const [turn, order] of orders.entries()) {
        const some = [...new Set(Array.from({ length: 200 }, (_, i) => name(order(i) % 25_000)))];
        await twin.change(stored(some, `turn ${turn}`));
        const found = await twin.load([...some, b('absent'), ...some.toReversed()]);
        assert.deepEqual([...found.keys()].sort(), some.toSorted());
        for (const [element, entry] of found) assert.equal(entry, `turn ${turn}${element}`);
        await twin.change([...removed(some.slice(0, 90)), ...stored(some.slice(90, 150), 'again')]);
        assert.equal((await twin.load(some)).size, some.length - 90);
      }
      await twin.check();
    });

    it('are replaced by few or by many in one commit', async () => {
      const twin = new Twin(opened());
      await twin.change(stored(named(0, 2000)));
      for (const [from, to] of [
        [1990, 2010],
        [0, 5000],
        [4000, 4300],
        [0, 0],
        [0, 3000],
      ] as const) {
        await twin.change(stored(named(from, to), 'new'), { clearEntries: true });
        await twin.check();
      }
    });

    it('keep every byte, be they empty or longer than a packed hash holds', async () => {
      const bytes = Array.from({ length: 256 }, (_, i) => b(String.fromCharCode(i)));
      const pairs = bytes.map((byte) => b(`\0${byte}\xff`));
      // Alike at both ends, and of one length.
      const long = Array.from({ length: 300 }, (_, i) =>
        b(`${'a'.repeat(200)}${String(i).padStart(4, '0')}${'b'.repeat(200)}`),
      );
      const steps = Array.from({ length: 140 }, (_, i) => b('x'.repeat(i)));
      const all = [...new Set([...bytes, ...pairs, ...long, ...steps, b('\0'.repeat(70_000))])];
      const twin = new Twin(opened());
      await twin.change(stored(all.slice(0, 200), '\xff\0'));
      await twin.change(stored(all.slice(200, 300), 'y'.repeat(100)));
      await twin.check();
      await twin.change(stored(all, '\0\xff'));
      await twin.check();
      await twin.change(removed(long));
      await twin.check(0, long);
    });

    it('make the native set, in the commit that stores them and later', async () => {
      const store = opened();
      const twin = new Twin(store);
      const native = { kind: 'rebuild' } as const;
      const members = async () => ((await store.members(KEY)) as ByteString[]).sort();
      await twin.change(stored(named(0, 200)), { native });
      await twin.change(stored(named(200, 700)), { native });
      assert.deepEqual(await members(), named(0, 700).sort());
      await twin.change(removed(named(0, 100)), { native });
      await twin.check(1);
      assert.deepEqual(await members(), named(100, 700).sort());
      await twin.change(stored(named(0, 5)), { clearEntries: true, native });
      assert.deepEqual(await members(), named(0, 5).sort());
      await twin.change(removed(named(0, 5)), { native });
      await twin.check(0);
    });

    it('come in a scan that is under way while the set grows manifold', async () => {
      for (const begun of [200, 300, 1000]) {
        const twin = new Twin(opened());
        await twin.change(stored(named(0, begun)), { expected: null });
        const found = await scanned(twin.store, KEY, 10, async (steps) => {
          const { size } = twin.entries;
          if (steps < 25) await twin.change(stored(named(size, size + 10 * steps)));
        });
        for (const element of named(0, begun)) assert.equal(found.get(element), `e${element}`);
        await twin.change([], { header: null });
      }
    });

    it('come in a scan that is under way while the set is stored anew, larger or smaller', async () => {
      for (const sizes of [
        [3000, 400],
        [3000, 100],
        [3000, 100, 9000],
        [300, 9000],
        [200, 3000, 300],
      ]) {
        const twin = new Twin(opened());
        const least = named(0, Math.min(...sizes));
        await twin.change(stored(least), { expected: null });
        await twin.change(stored(named(0, sizes[0]!)));
        const found = await scanned(twin.store, KEY, 20, async (steps) => {
          const size = sizes[steps / 4];
          if (size !== undefined) await twin.change(stored(named(0, size)), { clearEntries: true });
        });
        for (const element of least) assert.ok(found.has(element), `${element} of ${sizes}`);
        await twin.change([], { header: null });
      }
    });

    it('are those of a model after random changes', async () => {
      const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
      const random = randomFrom(seed);
      const pick = (below: number) => Math.floor(random() * below);
      const sizes = [1, 1, 5, 70, 300, 1500];
      const some = () =>
        Array.from({ length: sizes[pick(sizes.length)]! }, () => b(`${'\0'.repeat(pick(2))}${pick(4000)}`));
      try {
        const twin = new Twin(opened());
        for (let round = 0; round < 80; round += 1) {
          // Few come again after most have gone.
          const goes = random() < 0.1 ? [...twin.entries.keys()].filter(() => random() < 0.98) : some();
          const comes = [...new Set(random() < 0.7 ? some() : [])].filter(
            (element) => !goes.includes(element),
          );
          const gone = random() < 0.03;
          await twin.change(
            gone
              ? []
              : [...stored(comes, `${round}`), ...removed([...new Set(goes)].slice(0, pick(3) * 2000))],
            { clearEntries: random() < 0.05, ...(gone ? { header: null } : {}) },
          );
          if (round % 5 === 0)
            await twin.check(
              0,
              goes.slice(0, 50).filter((each) => !twin.entries.has(each)),
            );
        }
        await twin.check();
      } catch (error) {
        throw new Error(`SEED=${seed} shows it again: ${(error as Error).message}`, { cause: error });
      }
    });
  });
}
