/** One suite for every store: each sentence of the port's contract (src/store/store.ts) as a test. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { ByteString } from '../../crdts/bytes.js';
import { keySlot } from '../../src/store/slots.js';
import {
  type Commit,
  type KeyWrite,
  type LoggedFrame,
  type Store,
  WRONG_TYPE,
} from '../../src/store/store.js';
import { bigSetCompliance } from './big-set-compliance.js';
import { contentOf, scanAll } from './store-content.js';

/** Data that stores can be opened on. */
export interface StoreWorld {
  /** Gives a store, not opened yet, on this world's data. */
  store(): Store;
  /** The time that expiries are measured by. */
  now(): number;
  /** Waits until that time is past `ms`. */
  until(ms: number): Promise<void>;
  /** Called after each test, when its stores are closed. */
  end(): Promise<void>;
}

/** Bytes from a literal whose characters are 0–255. */
export const b = (bytes: string) => bytes as ByteString;

/** A write with the usual parts filled in. */
export function write(key: string, parts: Partial<KeyWrite> = {}): KeyWrite {
  return { key: b(key), expected: null, header: b('h'), digest: 0, ...parts };
}

/** A frame of the replica `me.1`. */
export function frame(number: number, parts: Partial<LoggedFrame> = {}): LoggedFrame {
  return { replica: 'me.1', number, stamp: number * 1000, bytes: new Uint8Array([number]), ...parts };
}

const string = (value: string) => ({ native: { kind: 'string', value: b(value) } }) as const;
const members = (...add: string[]) => ({ native: { kind: 'set', add: add.map(b), remove: [] } }) as const;
const without = (...remove: string[]) =>
  ({ native: { kind: 'set', add: [], remove: remove.map(b) } }) as const;
const stale = { code: 'STALE_COMMIT' };

const ALL_BYTES = b(String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i)));
const ODD_KEYS = [
  '',
  '\0',
  '\xff\xfe',
  '\xc3\x28',
  '{',
  '}',
  '{}',
  '{a}',
  '}{',
  '{\0}x',
  'a b\r\n',
  '*',
  ALL_BYTES,
].map(b);

/** Runs the suite. `makeWorld` is called for each test and gives one without data. */
export function storeCompliance(name: string, makeWorld: () => Promise<StoreWorld>): void {
  describe(`the ${name} store`, () => {
    let world: StoreWorld;
    let store: Store;
    const opened: Store[] = [];

    const open = async (): Promise<Store> => {
      const made = world.store();
      opened.push(made);
      await made.open();
      return made;
    };
    /** What a store knows that is opened now. */
    const facts = async () => {
      const made = world.store();
      opened.push(made);
      return made.open();
    };
    const commit = (...writes: KeyWrite[]) => store.commit({ writes });
    const header = async (key: string) => (await store.load([{ key: b(key) }]))[0]?.header;
    const content = () => contentOf(store, ['me.1', 'other.1']);

    beforeEach(async () => {
      world = await makeWorld();
      store = await open();
    });
    afterEach(async () => {
      for (const made of opened.splice(0)) await made.close();
      await world.end();
    });

    /** Asserts that a commit is refused as stale and leaves no trace, not even in the applied vector. */
    const assertStale = async (bad: Commit) => {
      const before = await content();
      await assert.rejects(store.commit(bad), stale);
      assert.deepEqual(await content(), before);
      return (await facts()).applied;
    };

    const me = { peerId: 'peer', replica: 'me.1', born: 7, clean: false };

    describe('open and identity', () => {
      it('knows nothing when it is new', async () => {
        const { identities, applied, notes, dropped } = await facts();
        assert.deepEqual({ identities, notes, dropped }, { identities: [], notes: null, dropped: null });
        assert.deepEqual(applied, []);
        assert.equal(await store.count(), 0);
        assert.deepEqual(await store.digests(), new Map());
      });

      it('keeps the identity and the applied vector for the next one that opens it', async () => {
        await store.saveIdentity(me);
        await store.commit({
          writes: [],
          frame: frame(1),
          applied: [{ replica: 'other.1', number: 7, stamp: 70 }],
        });
        await store.saveIdentity({ ...me, clean: true });
        await store.close();
        const { identities, applied } = await facts();
        assert.deepEqual(identities, [{ ...me, clean: true }]);
        assert.deepEqual(
          [...applied].sort((x, y) => (x.replica < y.replica ? -1 : 1)),
          [
            { replica: 'me.1', number: 1, stamp: 1000 },
            { replica: 'other.1', number: 7, stamp: 70 },
          ],
        );
      });

      it('takes the mark of a clean shutdown away when something is written after it', async () => {
        await store.saveIdentity({ ...me, clean: true });
        await commit(write('k'));
        await store.close();
        assert.deepEqual((await facts()).identities, [me]);
      });

      it('refuses calls before open, and after close', async () => {
        const other = world.store();
        await assert.rejects(other.load([]), { code: 'STORE_UNAVAILABLE' });
        assert.equal(await other.ping(), false);
        assert.equal(await store.ping(), true);
        await store.close();
        await store.close();
        await assert.rejects(store.load([]), { code: 'STOPPED' });
        await assert.rejects(store.commit({ writes: [] }), { code: 'STOPPED' });
        await assert.rejects(store.count(), { code: 'STOPPED' });
        await assert.rejects(store.open(), { code: 'STOPPED' });
        assert.equal(await store.ping(), false);
      });
    });

    describe('a commit', () => {
      it('writes header, entries, native value, expiry, digest, frame and applied vector', async () => {
        const at = world.now() + 600_000;
        await store.commit({
          writes: [
            write('s', { header: b('hs'), digest: 5, ...string('v'), expireAtMs: at }),
            write('m', { header: b('hm'), digest: 6, entries: [[b('x'), b('1')]], ...members('x') }),
          ],
          frame: frame(1, { bytes: new Uint8Array([0, 255]) }),
        });
        const loaded = await store.load([
          { key: b('m'), elements: 'all', value: true },
          { key: b('s'), value: true },
          { key: b('absent'), value: true, elements: 'all' },
        ]);
        assert.deepEqual(loaded, [
          { header: 'hm', value: null, entries: new Map([[b('x'), b('1')]]) },
          { header: 'hs', value: 'v', entries: new Map() },
          { header: null, value: null, entries: new Map() },
        ]);
        assert.deepEqual(await store.deadlines([b('s'), b('m'), b('absent')]), [at, null, undefined]);
        assert.deepEqual(await store.types([b('s'), b('m'), b('absent')]), ['string', 'set', 'none']);
        assert.deepEqual(
          await store.digests(),
          new Map([
            [keySlot(b('s')), 5],
            [keySlot(b('m')), 6],
          ]),
        );
        const [logged] = await store.readFrames('me.1', 1, 1000);
        assert.deepEqual({ ...logged, bytes: [...(logged?.bytes ?? [])] }, { ...frame(1), bytes: [0, 255] });
      });

      it('of nothing is harmless', async () => {
        await store.commit({ writes: [] });
        await store.commit({ writes: [], applied: [] });
        assert.equal(await store.count(), 0);
      });

      it('writes nothing at all when one header differs from the expected one', async () => {
        await store.commit({ writes: [write('a', string('1')), write('b', members('x'))], frame: frame(1) });
        const rest = [write('c', { digest: 9, ...string('c') }), write('d', { entries: [[b('e'), b('f')]] })];
        const bad: KeyWrite[] = [
          write('a', { expected: b('other'), ...string('2') }),
          write('a', { expected: null, ...string('2') }),
          write('new', { expected: b('h'), ...string('2') }),
        ];
        for (const one of bad) {
          const marks = [{ replica: 'other.1', number: 3, stamp: 3 }];
          const applied = await assertStale({ writes: [...rest, one], frame: frame(2), applied: marks });
          assert.deepEqual(applied, [{ replica: 'me.1', number: 1, stamp: 1000 }]);
        }
      });

      it('writes nothing at all when the frame does not follow the last one of its replica', async () => {
        await store.commit({ writes: [], frame: frame(1) });
        for (const number of [1, 3])
          await assertStale({ writes: [write('k', string('v'))], frame: frame(number) });
        await store.commit({ writes: [], frame: frame(2) });
        await store.commit({ writes: [], frame: frame(1, { replica: 'other.1' }) });
      });

      it('is ordered after those that were called before it', async () => {
        const results: Promise<unknown>[] = [];
        for (let i = 1; i <= 50; i += 1) {
          const expected = i === 1 ? null : b(`h${i - 1}`);
          const one = write('k', { expected, header: b(`h${i}`), digest: 1, ...string(`v${i}`) });
          results.push(store.commit({ writes: [one], frame: frame(i) }));
        }
        await Promise.all(results);
        assert.equal(await header('k'), 'h50');
        assert.deepEqual(await store.digests(), new Map([[keySlot(b('k')), 50]]));
      });

      it('fails when one that was called before it fails, and so does every later one until that is known', async () => {
        await commit(write('k'));
        const results = await Promise.allSettled([
          store.commit({ writes: [write('first')], frame: frame(1) }),
          store.commit({ writes: [write('k', { expected: b('other'), header: b('x') })] }),
          store.commit({ writes: [write('unrelated')] }),
          store.commit({ writes: [], applied: [{ replica: 'other.1', number: 1, stamp: 1 }] }),
        ]);
        assert.deepEqual(
          results.map((r) => (r.status === 'fulfilled' ? 'done' : (r.reason as { code?: string }).code)),
          ['done', 'STALE_COMMIT', 'STALE_COMMIT', 'STALE_COMMIT'],
        );
        assert.equal(await header('unrelated'), null);
        await store.commit({ writes: [write('unrelated')], frame: frame(2) });
        assert.equal(await header('unrelated'), 'h');
      });

      it('is seen by loads and reads that are called after it, before it is confirmed', async () => {
        const done = commit(write('k', { header: b('new'), ...string('v') }), write('s', members('a', 'b')));
        const seen = Promise.all([
          store.load([{ key: b('k'), value: true }]),
          store.strings([b('k')]),
          store.cardinality(b('s')),
          store.count(),
          store.headers([keySlot(b('k'))], 1),
        ]);
        await done;
        const [loaded, strings, cardinality, count, keys] = await seen;
        assert.deepEqual(loaded, [{ header: 'new', value: 'v', entries: new Map() }]);
        assert.deepEqual([strings, cardinality, count, keys], [['v'], 2, 2, [[['k', 'new']]]]);
      });

      it('keeps every byte of keys, headers, values, members, elements and entries', async () => {
        const long = b(ALL_BYTES.repeat(300));
        await commit(
          ...ODD_KEYS.map((key) => write(key, { header: b(`\0${key}`), ...string(`${ALL_BYTES}${key}`) })),
          write('set', {
            header: long,
            entries: ODD_KEYS.map((key) => [key, b(`${key}\xff`)] as const),
            native: { kind: 'set', add: ODD_KEYS, remove: [] },
          }),
        );
        const loaded = await store.load(ODD_KEYS.map((key) => ({ key, value: true })));
        for (const [i, key] of ODD_KEYS.entries()) {
          assert.deepEqual(loaded[i], { header: `\0${key}`, value: ALL_BYTES + key, entries: new Map() });
          assert.equal((await store.strings([key]))[0], ALL_BYTES + key);
          assert.ok((await store.headers([keySlot(key)], 1))[0]!.some(([name]) => name === key));
        }
        const [set] = await store.load([{ key: b('set'), elements: ODD_KEYS }]);
        assert.equal(set?.header, long);
        assert.deepEqual(set?.entries, new Map(ODD_KEYS.map((key) => [key, b(`${key}\xff`)])));
        assert.deepEqual(((await store.members(b('set'))) as ByteString[]).sort(), [...ODD_KEYS].sort());
        assert.deepEqual(await scanAll(store), [...ODD_KEYS, b('set')].sort());
      });

      it('refuses numbers that it could not keep, and writes nothing', async () => {
        for (const bad of [
          { writes: [write('k', { digest: 2 ** 48 })] },
          { writes: [write('k', { digest: -1 })] },
          { writes: [write('k', { digest: 0.5 })] },
          { writes: [write('k', { expireAtMs: Number.NaN })] },
          { writes: [write('k')], frame: frame(0) },
          { writes: [write('k')], applied: [{ replica: 'r', number: 1.5, stamp: 1 }] },
        ]) {
          await assert.rejects(store.commit(bad), { code: 'ARGUMENT' });
        }
        assert.equal(await header('k'), null);
        await commit(write('k'));
      });

      it('of 5,000 keys, of a set of 20,000 members, and of 10,000 applied marks is one step', async () => {
        const keys = Array.from({ length: 5000 }, (_, i) => b(`key:${i}`));
        const all = Array.from({ length: 20_000 }, (_, i) => b(`member:${i}`));
        const applied = Array.from({ length: 10_000 }, (_, i) => ({
          replica: `r${i}`,
          number: i + 1,
          stamp: i,
        }));
        await store.commit({
          writes: [
            ...keys.map((key) => write(key, { header: b(`h:${key}`), digest: 1, ...string(`v:${key}`) })),
            write('big', {
              entries: all.map((member) => [member, b('e')] as const),
              native: { kind: 'set', add: all, remove: [] },
            }),
            write('rebuilt', {
              entries: all.map((member) => [member, b('e')] as const),
              native: { kind: 'rebuild' },
            }),
          ],
          applied,
        });
        assert.equal(await store.count(), 5002);
        assert.equal(await store.cardinality(b('big')), 20_000);
        assert.equal(await store.cardinality(b('rebuilt')), 20_000);
        const loaded = await store.load(keys.map((key) => ({ key, value: true })));
        assert.ok(
          loaded.every(({ header, value }, i) => header === `h:${keys[i]}` && value === `v:${keys[i]}`),
        );
        const [big] = await store.load([{ key: b('big'), elements: all }]);
        assert.equal(big?.entries.size, 20_000);
        assert.equal((await facts()).applied.length, 10_000);
        await commit(
          ...keys.map((key) =>
            write(key, {
              expected: b(`h:${key}`),
              header: null,
              digest: 2 ** 48 - 1,
              native: { kind: 'delete' },
            }),
          ),
          write('big', {
            expected: b('h'),
            entries: all.slice(1).map((member) => [member, null] as const),
            native: { kind: 'set', add: [], remove: all.slice(1) },
          }),
        );
        assert.deepEqual(await store.members(b('big')), [all[0]]);
        assert.deepEqual(await scanAll(store, { count: 1000 }), ['big', 'rebuilt']);
        assert.equal(await store.count(), 2);
      });
    });

    describe('native values', () => {
      /** Writes one key twice, and gives what is there then. */
      const twice = async (first: Partial<KeyWrite>, second: Partial<KeyWrite>) => {
        const key = b('k');
        await commit(write('k', first));
        await commit(write('k', { expected: b('h'), ...second }));
        const [type, deadline] = [(await store.types([key]))[0], (await store.deadlines([key]))[0]];
        const held = await store.members(key);
        const value = (await store.strings([key]))[0];
        return {
          type,
          deadline,
          value: value === WRONG_TYPE ? [...(held as string[])].sort().join() : value,
        };
      };
      const later = () => ({ expireAtMs: world.now() + 600_000 });
      const entries = (...names: string[]) => ({ entries: names.map((n) => [b(n), b('e')] as const) });

      it('are replaced by a string, whatever they were, and lose their expiry', async () => {
        const expected = { type: 'string', deadline: null, value: 'new' };
        assert.deepEqual(await twice({ ...members('a'), ...later() }, string('new')), expected);
      });

      it('are left as they are by a write that does not name them', async () => {
        const at = later();
        assert.deepEqual(await twice({ ...string('v'), ...at }, {}), {
          type: 'string',
          deadline: at.expireAtMs,
          value: 'v',
        });
      });

      it('are removed', async () => {
        const gone = { type: 'none', deadline: undefined, value: null };
        assert.deepEqual(await twice({ ...string('v'), ...later() }, { native: { kind: 'delete' } }), gone);
      });

      it('of sets gain and lose members, and keep their expiry', async () => {
        const at = later();
        const native = { kind: 'set', add: [b('c'), b('a')], remove: [b('b'), b('absent')] } as const;
        const expected = { type: 'set', deadline: at.expireAtMs, value: 'a,c' };
        assert.deepEqual(await twice({ ...members('a', 'b'), ...at }, { native }), expected);
      });

      it('of sets are gone with their last member', async () => {
        const gone = { type: 'none', deadline: undefined, value: null };
        assert.deepEqual(await twice({ ...members('a', 'b'), ...later() }, without('a', 'b')), gone);
      });

      it('are rebuilt from the entries, after the changes of the commit, and lose their expiry', async () => {
        const first = { ...entries('a', 'b'), ...members('stray'), ...later() };
        const second = {
          entries: [[b('c'), b('e')] as const, [b('a'), null] as const],
          native: { kind: 'rebuild' } as const,
        };
        assert.deepEqual(await twice(first, second), { type: 'set', deadline: null, value: 'b,c' });
      });

      it('are gone when they are rebuilt and there is no entry', async () => {
        const second = { clearEntries: true, native: { kind: 'rebuild' } as const };
        const gone = { type: 'none', deadline: undefined, value: null };
        assert.deepEqual(await twice({ ...entries('a'), ...string('v') }, second), gone);
      });

      it('of another type are replaced by the entries when a set was expected', async () => {
        const second = { ...entries('c'), ...members('c') };
        const expected = { type: 'set', deadline: null, value: 'a,b,c' };
        assert.deepEqual(await twice({ ...entries('a', 'b'), ...string('v') }, second), expected);
      });

      it('get an expiry, lose it, and are deleted by one that is past', async () => {
        const at = world.now() + 700_000;
        const none = { type: 'string', deadline: null, value: 'v' };
        assert.deepEqual(await twice(string('v'), { expireAtMs: at }), { ...none, deadline: at });
        await commit(write('k', { expected: b('h'), header: null }));
        assert.deepEqual(await twice({ ...string('v'), expireAtMs: at }, { expireAtMs: null }), none);
        await commit(write('k', { expected: b('h'), header: null }));
        const gone = { type: 'none', deadline: undefined, value: null };
        assert.deepEqual(await twice(string('v'), { expireAtMs: world.now() - 1 }), gone);
        await commit(write('k', { expected: b('h'), header: null }));
        assert.deepEqual(await twice({}, { expireAtMs: at }), gone);
        await commit(write('k', { expected: b('h'), header: null }));
        assert.deepEqual(
          await twice({ ...string('v'), expireAtMs: at }, { ...string('w'), expireAtMs: at + 1 }),
          {
            type: 'string',
            deadline: at + 1,
            value: 'w',
          },
        );
      });

      it('are gone when their time has come, and their headers stay', async () => {
        const at = world.now() + 60;
        await commit(
          write('k', { ...string('v'), expireAtMs: at }),
          write('s', { ...members('a'), expireAtMs: at }),
        );
        await world.until(at);
        assert.deepEqual(await store.strings([b('k'), b('s')]), [null, null]);
        assert.deepEqual(await store.types([b('k'), b('s')]), ['none', 'none']);
        assert.deepEqual(await store.deadlines([b('k')]), [undefined]);
        assert.deepEqual(await store.members(b('s')), []);
        assert.deepEqual(await scanAll(store), []);
        assert.deepEqual(await store.load([{ key: b('k'), value: true }]), [
          { header: 'h', value: null, entries: new Map() },
        ]);
        await commit(write('s', { expected: b('h'), ...members('b') }));
        assert.deepEqual(await store.members(b('s')), ['b']);
        assert.deepEqual(await store.deadlines([b('s')]), [null]);
      });
    });

    describe('entries', () => {
      const load = async (elements: readonly string[] | 'all') => {
        const wanted = elements === 'all' ? elements : elements.map(b);
        const [loaded] = await store.load([{ key: b('k'), elements: wanted }]);
        return Object.fromEntries([...(loaded?.entries ?? [])].sort());
      };

      it('are stored, changed, removed, and loaded by name or all', async () => {
        await commit(
          write('k', {
            entries: [
              [b('a'), b('1')],
              [b('b'), b('2')],
              [b('c'), b('')],
            ],
          }),
        );
        assert.deepEqual(await load('all'), { a: '1', b: '2', c: '' });
        assert.deepEqual(await load(['b', 'absent', 'c']), { b: '2', c: '' });
        assert.deepEqual(await load([]), {});
        await commit(
          write('k', {
            expected: b('h'),
            entries: [
              [b('a'), null],
              [b('b'), b('3')],
              [b('z'), null],
            ],
          }),
        );
        assert.deepEqual(await load('all'), { b: '3', c: '' });
      });

      it('are cleared before the changes of the same commit', async () => {
        await commit(
          write('k', {
            entries: [
              [b('a'), b('1')],
              [b('b'), b('2')],
            ],
          }),
        );
        await commit(write('k', { expected: b('h'), clearEntries: true, entries: [[b('a'), b('9')]] }));
        assert.deepEqual(await load('all'), { a: '9' });
      });

      it('come in pages, those that are there all along at least once, whatever goes and comes meanwhile', async () => {
        const name = (i: number) => b(`element ${i}`);
        const all = Array.from({ length: 2000 }, (_, i) => name(i));
        await commit(write('k', { entries: all.map((element) => [element, element]) }));
        const seen = new Set<ByteString>();
        let [cursor, pages] = ['0', 0];
        do {
          const page = await store.scanEntries(b('k'), cursor, 100);
          for (const [element, entry] of page.entries) {
            assert.equal(entry, element);
            seen.add(element);
          }
          cursor = page.cursor;
          pages += 1;
          // Every second one of the first half goes, and others come.
          const goes = [...seen].filter((element) => Number(element.slice(8)) % 2 === 1).slice(0, 50);
          const comes = Array.from({ length: 50 }, (_, i) => name(2001 + 100 * pages + 2 * i));
          const entries = [
            ...goes.map((element) => [element, null] as const),
            ...comes.map((element) => [element, element] as const),
          ];
          if (pages < 15) await commit(write('k', { expected: b('h'), entries }));
        } while (cursor !== '0');
        assert.ok(pages > 5);
        for (const element of all)
          if (Number(element.slice(8)) % 2 === 0) assert.ok(seen.has(element), element);
        assert.deepEqual((await store.scanEntries(b('none'), '0', 10)).entries, new Map());
      });

      it('all come by pages, though a commit clears and stores them again meanwhile', async () => {
        const all = Array.from({ length: 2000 }, (_, i) => b(`element ${i}`));
        await commit(write('k', { entries: all.map((element) => [element, element]) }));
        const entries = all.toReversed().map((element) => [element, element] as const);
        const seen = new Set<ByteString>();
        let [cursor, pages] = ['0', 0];
        do {
          const page = await store.scanEntries(b('k'), cursor, 100);
          for (const element of page.entries.keys()) seen.add(element);
          cursor = page.cursor;
          pages += 1;
          if (pages === 5) await commit(write('k', { expected: b('h'), clearEntries: true, entries }));
        } while (cursor !== '0');
        assert.ok(pages > 5);
        assert.equal(seen.size, all.length);
      });

      it('go with the header', async () => {
        await commit(write('k', { entries: [[b('a'), b('1')]] }));
        await commit(write('k', { expected: b('h'), header: null }));
        assert.deepEqual(await load('all'), {});
        assert.equal(await header('k'), null);
      });
    });

    bigSetCompliance(() => store);

    describe('notes', () => {
      it('are kept as they are, and replaced by the next', async () => {
        assert.equal((await facts()).notes, null);
        assert.equal(await store.saveNotes(ALL_BYTES, null), ALL_BYTES);
        assert.equal((await facts()).notes, ALL_BYTES);
        assert.equal(await store.saveNotes(b(''), ALL_BYTES), '');
        assert.equal((await facts()).notes, '');
      });

      it('stay when others stand there than were expected, and are told', async () => {
        const other = await open();
        assert.equal(await store.saveNotes(b('one'), b('')), null);
        assert.equal((await facts()).notes, null);
        await other.saveNotes(b('one'), null);
        assert.equal(await store.saveNotes(b('two'), null), 'one');
        assert.equal(await store.saveNotes(b('two'), ALL_BYTES), 'one');
        assert.equal(await store.saveNotes(b('two'), b('one')), 'two');
        assert.equal((await other.refresh()).notes, 'two');
      });
    });

    describe('with two nodes', () => {
      const other = { peerId: 'other', replica: 'other.1', born: 8, clean: false };

      it('keeps the identity of each, and a mark of a clean shutdown until that one commits', async () => {
        const second = await open();
        await store.saveIdentity({ ...me, clean: true });
        await second.saveIdentity(other);
        await second.commit({ writes: [write('k')], frame: { ...frame(1), replica: 'other.1' } });
        const { identities } = await facts();
        assert.deepEqual(
          [...identities].sort((x, y) => (x.peerId < y.peerId ? -1 : 1)),
          [other, { ...me, clean: true }],
        );
      });

      it('is known to both by one place, and shows each what the other has committed', async () => {
        const second = await open();
        await second.commit({ writes: [], frame: frame(1) });
        const [mine, theirs] = [await store.refresh(), await second.refresh()];
        assert.deepEqual(mine.applied, [{ replica: 'me.1', number: 1, stamp: 1000 }]);
        assert.equal(mine.place, theirs.place);
        assert.match(mine.place, /^[\x21-\x7e]{1,64}$/);
      });

      it('refuses frames that the other has applied meanwhile, with all that came along', async () => {
        const second = await open();
        const mark = (number: number, after?: number) => ({
          ...{ replica: 'r.1', number, stamp: number * 10 },
          ...(after === undefined ? {} : { after }),
        });
        await store.commit({ writes: [write('k')], applied: [mark(3, 0)] });
        await assert.rejects(second.commit({ writes: [write('l')], applied: [mark(2, 0)] }), {
          code: 'STALE_COMMIT',
        });
        await assert.rejects(second.commit({ writes: [write('l')], applied: [mark(5, 4)] }), {
          code: 'STALE_COMMIT',
        });
        assert.equal(await header('l'), null);
        await second.commit({ writes: [write('l')], applied: [mark(2)] });
        await second.commit({ writes: [write('m')], applied: [mark(5, 3)] });
        assert.deepEqual((await store.refresh()).applied, [mark(5)]);
      });

      it('retires one that is silent, for good, and never one that lives', async () => {
        const second = await open();
        await store.saveIdentity(me);
        await second.saveIdentity(other);
        assert.equal(await store.retire('other', 60_000), false);
        await second.commit({ writes: [write('k')] });
        assert.equal(await store.retire('other', 0), true);
        assert.equal(await store.retire('other', 60_000), true, 'it is gone already');
        await assert.rejects(second.commit({ writes: [write('l')] }), { code: 'STORE_RESET' });
        await assert.rejects(second.refresh(), { code: 'STORE_RESET' });
        const { identities } = await second.open();
        assert.deepEqual(identities, [me]);
        await second.commit({ writes: [write('l')] });
        await store.commit({ writes: [write('m')] });
      });
    });

    describe('clearing', () => {
      it('removes all that nodes wrote, and nothing can be committed until the store is opened again', async () => {
        const { dataset } = await store.refresh();
        await store.saveIdentity(me);
        await store.saveNotes(b('notes'), null);
        await store.commit({
          writes: [
            write('s', string('v')),
            write('{t}set', { entries: [[b('m'), b('e')]], ...members('m') }),
          ],
          frame: frame(1),
          applied: [{ replica: 'other.1', number: 7, stamp: 9 }],
        });
        await store.clear('forgotten');
        await assert.rejects(commit(write('late')), { code: 'STORE_RESET' });
        const { identities, applied, notes, dropped, dataset: now } = await store.open();
        assert.deepEqual({ identities, applied, notes }, { identities: [], applied: [], notes: null });
        assert.deepEqual(dropped, { dataset, reason: 'forgotten' });
        assert.notEqual(now, dataset);
        assert.deepEqual(await store.digests(), new Map());
        assert.equal(await store.count(), 0);
        assert.deepEqual(await store.readFrames('me.1', 1, 1000), []);
        await store.commit({ writes: [write('s', string('new'))], frame: frame(1) });
        assert.deepEqual(await store.strings([b('s')]), ['new']);
      });

      it('is seen by another store on the same data', async () => {
        const other = await open();
        await store.clear('outdated');
        await assert.rejects(other.commit({ writes: [write('k')] }), { code: 'STORE_RESET' });
      });

      it('happens once when two nodes want it, and keeps what has begun anew', async () => {
        const second = await open();
        await store.clear('outdated');
        await store.open();
        await commit(write('new'));
        await assert.rejects(second.clear('outdated'), { code: 'STORE_RESET' });
        await second.open();
        assert.equal(await header('new'), 'h');
        await store.clear('outdated');
        await Promise.all([store.open(), second.open()]);
        await commit(write('newer'));
        assert.deepEqual((await second.load([{ key: b('newer') }]))[0]?.header, 'h');
      });
    });

    describe('digests', () => {
      it('add up modulo 2^48 per slot, and vanish with the last header of the slot', async () => {
        const slot = keySlot(b('{t}1'));
        const max = 2 ** 48 - 1;
        await commit(write('{t}1', { digest: max }), write('{t}2', { digest: max }));
        assert.deepEqual(await store.digests(), new Map([[slot, max - 1]]));
        assert.deepEqual((await store.headers([slot], 1))[0]!.map(([key]) => key).sort(), ['{t}1', '{t}2']);
        await commit(write('{t}1', { expected: b('h'), header: null, digest: 12 }));
        assert.deepEqual(await store.digests(), new Map([[slot, 10]]));
        await commit(write('{t}2', { expected: b('h'), header: null, digest: 3 }));
        assert.deepEqual(await store.digests(), new Map());
        assert.deepEqual(await store.headers([slot], 1), [[]]);
        await commit(write('{t}1', { digest: 0 }));
        assert.deepEqual(await store.digests(), new Map([[slot, 0]]));
      });

      it('come with the headers of many slots, in their order, up to a number of bytes', async () => {
        const names = ['a', 'b', 'c'].map(b);
        await commit(...names.map((key) => write(key, { header: b(`header of ${key}`) })));
        const slots = [...names.map(keySlot), 1];
        const lists = names.map((key) => [[key, `header of ${key}`]]);
        assert.deepEqual(await store.headers(slots, 1_000_000), [...lists, []]);
        assert.deepEqual(await store.headers([slots[1]!, 1, slots[0]!], 1_000), [lists[1], [], lists[0]]);
        assert.deepEqual(await store.headers(slots, 0), lists.slice(0, 1));
        assert.deepEqual(await store.headers([], 1_000), []);
        const all = Array.from({ length: 16384 }, (_, slot) => slot);
        const found: unknown[] = [];
        for (let at = 0; at < all.length; ) {
          const some = await store.headers(all.slice(at), 1_000);
          assert.ok(some.length > 0);
          at += some.length;
          found.push(...some.flat());
        }
        assert.deepEqual(found.sort(), lists.flat().sort());
      });

      it('stay when a commit replaces the only header of a slot by another', async () => {
        await commit(write('{t}1', { digest: 4 }));
        await commit(
          write('{t}1', { expected: b('h'), header: null, digest: 1 }),
          write('{t}2', { digest: 2 }),
        );
        assert.deepEqual(await store.digests(), new Map([[keySlot(b('{t}2')), 7]]));
      });

      it('of a slot without headers do not begin by removing', async () => {
        await commit(write('k', { header: null, digest: 5 }));
        assert.deepEqual(await store.digests(), new Map());
        assert.equal(await store.count(), 0);
      });
    });

    describe('the log', () => {
      const numbers = async (from: number, bytes = 1e9) =>
        (await store.readFrames('me.1', from, bytes)).map(({ number }) => number);
      const fill = async (count: number, size: number) => {
        for (let i = 1; i <= count; i += 1) {
          await store.commit({ writes: [], frame: frame(i, { bytes: new Uint8Array(size) }) });
        }
      };

      it('gives frames from a number on, up to a size, and at least one', async () => {
        await fill(40, 100);
        assert.deepEqual(await numbers(38), [38, 39, 40]);
        assert.equal((await numbers(1)).length, 40);
        assert.deepEqual(await numbers(3, 250), [3, 4]);
        assert.deepEqual(await numbers(3, 1), [3]);
        assert.deepEqual(await numbers(0, 1), [1]);
        assert.deepEqual(await numbers(41), []);
        assert.deepEqual(await store.readFrames('unknown.1', 1, 1000), []);
      });

      it('gives what is left after trimming, and goes on when all was trimmed', async () => {
        await fill(5, 10);
        await store.trimLog('me.1', 2);
        await store.trimLog('me.1', 1);
        await store.trimLog('unknown.1', 9);
        assert.deepEqual(await numbers(1), [3, 4, 5]);
        await store.trimLog('me.1', 5);
        assert.deepEqual(await numbers(1), []);
        assert.equal(await store.count(), 0);
        await store.commit({ writes: [], frame: frame(6) });
        assert.deepEqual(await numbers(1), [6]);
        assert.equal(await store.count(), 0);
      });

      it('keeps stamps and frame numbers up to 2^53', async () => {
        const stamp = Number.MAX_SAFE_INTEGER;
        const number = Number.MAX_SAFE_INTEGER - 1;
        await store.commit({ writes: [], applied: [{ replica: 'me.1', number: number - 1, stamp: 1 }] });
        await store.commit({ writes: [], frame: frame(number, { stamp }) });
        const [logged] = await store.readFrames('me.1', 1, 1000);
        assert.deepEqual([logged?.number, logged?.stamp], [number, stamp]);
        assert.deepEqual((await facts()).applied, [{ replica: 'me.1', number, stamp }]);
      });
    });

    it('ignores applied marks that are not above the stored ones', async () => {
      const mark = (number: number, stamp: number) => ({ replica: 'other.1', number, stamp });
      for (const [number, stamp] of [
        [5, 50],
        [5, 99],
        [4, 40],
      ] as const) {
        await store.commit({ writes: [], applied: [mark(number, stamp)] });
      }
      assert.deepEqual((await facts()).applied, [mark(5, 50)]);
      await store.commit({ writes: [], applied: [mark(9, 90), mark(8, 80), mark(10, 100)] });
      assert.deepEqual((await facts()).applied, [mark(10, 100)]);
    });

    describe('native reads', () => {
      it('say so when the key holds another type', async () => {
        await commit(write('str', string('v')), write('set', members('a')));
        assert.deepEqual(await store.strings([b('set'), b('str'), b('none')]), [WRONG_TYPE, 'v', null]);
        assert.deepEqual(await store.strings([b('set')]), [WRONG_TYPE]);
        assert.deepEqual(await store.strings([]), []);
        assert.equal(await store.stringLength(b('set')), WRONG_TYPE);
        assert.equal(await store.members(b('str')), WRONG_TYPE);
        assert.equal(await store.contains(b('str'), [b('a')]), WRONG_TYPE);
        assert.equal(await store.cardinality(b('str')), WRONG_TYPE);
        assert.equal(await store.randomMembers(b('str'), 1), WRONG_TYPE);
        assert.deepEqual(await store.load([{ key: b('set'), value: true }]), [
          { header: 'h', value: null, entries: new Map() },
        ]);
      });

      it('answer for absent keys', async () => {
        const none = b('none');
        assert.equal(await store.stringLength(none), 0);
        assert.deepEqual(await store.members(none), []);
        assert.deepEqual(await store.contains(none, [b('a'), b('b')]), [false, false]);
        assert.equal(await store.cardinality(none), 0);
        assert.deepEqual(await store.randomMembers(none, 3), []);
        assert.deepEqual(await store.randomMembers(none, -3), []);
      });

      it('answer in the order that they were asked', async () => {
        await commit(write('s', members('a', 'b')), write('t', string('\0\xff\x80')));
        assert.deepEqual(await store.contains(b('s'), [b('b'), b('x'), b('a')]), [true, false, true]);
        assert.deepEqual(await store.contains(b('s'), []), []);
        assert.equal(await store.stringLength(b('t')), 3);
      });

      it('pick random members: distinct ones for a positive count, with repeats for a negative one', async () => {
        await commit(write('s', members('a', 'b', 'c')));
        for (const [count, size] of [
          [2, 2],
          [3, 3],
          [9, 3],
          [0, 0],
        ] as const) {
          const picked = (await store.randomMembers(b('s'), count)) as string[];
          assert.equal(picked.length, size);
          assert.equal(new Set(picked).size, size);
        }
        const repeated = (await store.randomMembers(b('s'), -20)) as string[];
        assert.equal(repeated.length, 20);
        assert.ok(repeated.every((member) => 'abc'.includes(member)));
      });
    });

    describe('scan and count', () => {
      it('find every key that is there all along, while others come and go', async () => {
        const steady = Array.from({ length: 200 }, (_, i) => b(`steady:${i}`));
        await commit(...steady.map((key) => write(key, string('v'))));
        const found = new Set<string>();
        let cursor = '0';
        let turn = 0;
        do {
          const page = await store.scan(cursor, { count: 7 });
          for (const key of page.keys) found.add(key);
          cursor = page.cursor;
          turn += 1;
          if (turn < 60) await commit(write(`new:${turn}`, string('v')));
          if (turn > 3 && turn < 60) {
            await commit(write(`new:${turn - 3}`, { expected: b('h'), native: { kind: 'delete' } }));
            await commit(write(steady[turn] ?? '', { expected: b('h'), ...string('again') }));
          }
          assert.ok(turn < 10_000, 'the scan does not end');
        } while (cursor !== '0');
        for (const key of steady) assert.ok(found.has(key), `${key} was not found`);
      });

      it('select by pattern and by type, and never show what is reserved', async () => {
        await commit(
          write('a:1', { ...string('v'), entries: [[b('x'), b('y')]] }),
          write('a:2', members('m')),
          write('b:\xff', string('v')),
          write('header-only'),
        );
        await store.commit({ writes: [], frame: frame(1) });
        assert.deepEqual(await scanAll(store), ['a:1', 'a:2', 'b:\xff']);
        assert.deepEqual(await scanAll(store, { match: b('a:*') }), ['a:1', 'a:2']);
        assert.deepEqual(await scanAll(store, { match: b('?:[\xf0-\xff]') }), ['b:\xff']);
        assert.deepEqual(await scanAll(store, { match: b('*'), type: 'set' }), ['a:2']);
        assert.deepEqual(await scanAll(store, { type: 'string', count: 1 }), ['a:1', 'b:\xff']);
        assert.deepEqual(await scanAll(store, { match: b('__mesh:*') }), []);
        assert.equal(await store.count(), 3);
      });

      it('refuse a cursor that is none', async () => {
        await assert.rejects(store.scan('x'), { code: 'STORE_REFUSED' });
      });

      it('count exactly, however headers, entries and logs come and go', async () => {
        for (let round = 0; round < 3; round += 1) {
          await store.commit({
            writes: [
              write('{t}1', { ...members('a'), entries: [[b('a'), b('1')]] }),
              write('{t}2', { entries: [[b('a'), null]] }),
              write('other', {
                ...string('v'),
                entries: [
                  [b('a'), b('1')],
                  [b('b'), b('1')],
                ],
              }),
            ],
            frame: frame(round * 2 + 1),
          });
          assert.equal(await store.count(), 2);
          await commit(write('other', { expected: b('h'), clearEntries: true, entries: [[b('c'), b('1')]] }));
          assert.equal(await store.count(), 2);
          await commit(
            write('{t}1', { expected: b('h'), entries: [[b('a'), null]], native: { kind: 'delete' } }),
          );
          assert.equal(await store.count(), 1);
          await store.commit({
            writes: ['{t}1', '{t}2', 'other'].map((key) =>
              write(key, { expected: b('h'), header: null, native: { kind: 'delete' } }),
            ),
            frame: frame(round * 2 + 2),
          });
          await store.trimLog('me.1', round * 2 + 2);
          assert.equal(await store.count(), 0);
        }
      });
    });
  });
}
