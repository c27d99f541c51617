/** What one batch does to one key: every transition and its native write; the cache of keys, and loading them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { expiryType } from '../crdts/expiry.js';
import { emptyKeyState, type KeyState, mergeKeyState } from '../crdts/key-state.js';
import { setType } from '../crdts/or-set.js';
import { resolvers, siblingsOf, valuesType } from '../crdts/policy.js';
import { UNLOADED } from '../crdts/register.js';
import { stringType } from '../crdts/string-key.js';
import { KeyCache } from '../src/replica/key-cache.js';
import { beginChange, mergeChange, needsStringValue, planWrite } from '../src/replica/key-change.js';
import { loadKeys, type Wants, want } from '../src/replica/key-loader.js';
import { emptyRecord, encodeHeader, type KeyRecord } from '../src/replica/key-record.js';
import type { KeyWrite } from '../src/store/store.js';
import { GatedStore } from './support/gated-store.js';

const KEY = utf8('k');
const NOW = 1_000_000_000_000;
const resolve = (_key: ByteString, values: Parameters<typeof siblingsOf>[0]) =>
  resolvers.max(siblingsOf(values));
const site = (stamp: number, replica = 'a.1') => ({ replica, stamp });
const part = (delta: Partial<KeyState>, stamp: number): KeyState => ({
  ...emptyKeyState(),
  touched: stamp,
  ...delta,
});

// Deltas by name, each from a state that they act upon.
type Make = (state: KeyState, stamp: number) => KeyState;
const write =
  (value: string): Make =>
  (state, stamp) =>
    part(
      {
        string: stringType.mutate(
          state.string ?? stringType.empty(),
          { op: 'write', value: utf8(value) },
          site(stamp),
        ),
      },
      stamp,
    );
const unloaded: Make = (_state, stamp) =>
  part({ string: { register: { stamp, replica: 'a.1', value: UNLOADED }, counter: null } }, stamp);
const count =
  (by: number): Make =>
  (state, stamp) =>
    part(
      { string: stringType.mutate(state.string ?? stringType.empty(), { op: 'add', by }, site(stamp)) },
      stamp,
    );
const deleteString: Make = (state, stamp) =>
  part(
    { string: stringType.mutate(state.string ?? stringType.empty(), { op: 'delete' }, site(stamp)) },
    stamp,
  );
const add =
  (...members: string[]): Make =>
  (state, stamp) =>
    part(
      {
        set: setType.mutate(
          state.set ?? setType.empty(),
          { op: 'add', members: members.map(utf8) },
          site(stamp),
        ),
      },
      stamp,
    );
const remove =
  (...members: string[]): Make =>
  (state, stamp) =>
    part(
      {
        set: setType.mutate(
          state.set ?? setType.empty(),
          { op: 'remove', members: members.map(utf8) },
          site(stamp),
        ),
      },
      stamp,
    );
const clear: Make = (state, stamp) =>
  part({ set: setType.mutate(state.set ?? setType.empty(), { op: 'clear' }, site(stamp)) }, stamp);
const sibling =
  (value: string, replica = 'a.1'): Make =>
  (_state, stamp) =>
    part(
      {
        values: valuesType.mutate(
          valuesType.empty(),
          { op: 'write', value: { bytes: utf8(value), region: utf8('eu') } },
          site(stamp, replica),
        ),
      },
      stamp,
    );
const expire =
  (value: number | null): Make =>
  (state, stamp) =>
    part(
      { expiry: expiryType.mutate(state.expiry ?? expiryType.empty(), { op: 'write', value }, site(stamp)) },
      stamp,
    );
const clearExpiry: Make = (state, stamp) =>
  part(
    { expiry: expiryType.mutate(state.expiry ?? expiryType.empty(), { op: 'clear' }, site(stamp)) },
    stamp,
  );

/** A record as it is after some deltas, all loaded. */
function recordOf(before: readonly Make[]): KeyRecord {
  const record = emptyRecord(KEY);
  for (const [i, make] of before.entries()) mergeKeyState(record.state, make(record.state, 10 + i));
  if (before.length > 0) record.header = encodeHeader(record);
  return record;
}

/** The write of a batch with these deltas. */
function plan(record: KeyRecord, batch: readonly Make[]): KeyWrite {
  const change = beginChange(record, resolve);
  for (const [i, make] of batch.entries()) mergeChange(change, make(record.state, 100 + i));
  return planWrite(change, NOW, resolve);
}

const later = NOW + 60_000;
const past = NOW - 1;

const TABLE: readonly (readonly [
  what: string,
  before: readonly Make[],
  batch: readonly Make[],
  native: unknown,
  expireAtMs?: number | null,
])[] = [
  ['nothing → string', [], [write('v')], { kind: 'string', value: 'v' }],
  ['nothing → counter', [], [count(3)], { kind: 'string', value: '3' }],
  ['nothing → set', [], [add('a', 'b')], { kind: 'set', add: ['a', 'b'], remove: [] }],
  ['nothing → values', [], [sibling('v')], { kind: 'string', value: 'v' }],
  ['nothing → deleted', [], [deleteString], undefined],
  ['nothing → written and deleted', [], [write('v'), deleteString], undefined],
  ['nothing → a write whose bytes nobody brought', [], [unloaded], { kind: 'delete' }],
  ['string → another', [write('v')], [write('w')], { kind: 'string', value: 'w' }],
  ['string → the same bytes', [write('v')], [write('v')], undefined],
  ['string → there and back', [write('v')], [write('w'), write('v')], undefined],
  ['string → counted', [write('5')], [count(2)], { kind: 'string', value: '7' }],
  ['counted → counted by nothing in sum', [write('5')], [count(2), count(-2)], undefined],
  ['string → deleted', [write('v')], [deleteString], { kind: 'delete' }],
  ['string → a later write whose bytes nobody brought', [write('v')], [unloaded], { kind: 'delete' }],
  ['string → set beside it, later', [write('v')], [add('a')], { kind: 'rebuild' }],
  ['string → set in its place', [write('v')], [deleteString, add('a')], { kind: 'rebuild' }],
  ['string → values beside it, later', [write('v')], [sibling('w')], { kind: 'string', value: 'w' }],
  ['deleted → string', [write('v'), deleteString], [write('w')], { kind: 'string', value: 'w' }],
  ['set → more', [add('a')], [add('b')], { kind: 'set', add: ['b'], remove: [] }],
  ['set → refreshed', [add('a')], [add('a')], undefined],
  ['set → less', [add('a', 'b')], [remove('a')], { kind: 'set', add: [], remove: ['a'] }],
  ['set → added and removed', [add('a')], [add('b'), remove('b')], undefined],
  ['set → emptied', [add('a')], [remove('a')], { kind: 'delete' }],
  ['set → cleared', [add('a', 'b')], [clear], { kind: 'delete' }],
  [
    'set → cleared and begun anew',
    [add('a', 'b')],
    [clear, add('c')],
    { kind: 'set', add: ['c'], remove: ['a', 'b'] },
  ],
  ['set → string beside it, later', [add('a')], [write('v')], { kind: 'string', value: 'v' }],
  ['set hidden by string → string deleted', [add('a'), write('v')], [deleteString], { kind: 'rebuild' }],
  ['set hidden by string → more in the set, older', [add('a'), write('v')], [remove('a')], undefined],
  ['string hidden by set → set cleared', [write('v'), add('a')], [clear], { kind: 'string', value: 'v' }],
  ['values → concurrent greater', [sibling('5')], [sibling('7', 'b.1')], { kind: 'string', value: '7' }],
  ['values → concurrent lesser', [sibling('5')], [sibling('3', 'b.1')], undefined],
  ['string → with a deadline', [write('v')], [expire(later)], undefined, later],
  [
    'string with a deadline → another',
    [write('v'), expire(later)],
    [write('w')],
    { kind: 'string', value: 'w' },
    later,
  ],
  ['string with a deadline → without', [write('v'), expire(later)], [clearExpiry], undefined, null],
  [
    'set with a deadline → more',
    [add('a'), expire(later)],
    [add('b')],
    { kind: 'set', add: ['b'], remove: [] },
    later,
  ],
  ['set with a deadline → without', [add('a'), expire(later)], [expire(null)], undefined, null],
  [
    'string whose deadline has come → lifted',
    [write('v'), expire(past)],
    [expire(null)],
    { kind: 'string', value: 'v' },
    null,
  ],
  [
    'set whose deadline has come → lifted',
    [add('a'), expire(past)],
    [expire(later)],
    { kind: 'rebuild' },
    later,
  ],
  ['string whose deadline has come → refreshed', [write('v'), expire(past)], [write('v')], undefined],
  [
    'string with a deadline → deleted with it',
    [write('v'), expire(later)],
    [deleteString, clearExpiry],
    { kind: 'delete' },
  ],
];

test('each transition of a key is the native write that it should be', () => {
  for (const [what, before, batch, native, expireAtMs] of TABLE) {
    const written = plan(recordOf(before), batch);
    assert.deepEqual(written.native, native, what);
    assert.deepEqual(written.expireAtMs, expireAtMs, `${what}: deadline`);
  }
});

test('a batch’s write expects the header from before, whatever comes between, and adds up to the digest of what is there', () => {
  for (const [what, before, batch] of TABLE) {
    const once = recordOf([]);
    const first = plan(once, before);
    const second = plan(
      once,
      batch.map(
        (make): Make =>
          (state, stamp) =>
            make(state, stamp + 100),
      ),
    );
    assert.equal(second.expected, first.header, what);
    assert.equal(once.header, second.header, what);
    const straight = recordOf([]);
    const both = plan(straight, [
      ...before,
      ...batch.map(
        (make): Make =>
          (state, stamp) =>
            make(state, stamp + 100 - before.length),
      ),
    ]);
    assert.equal((first.digest + second.digest) % 2 ** 48, both.digest, what);
  }
});

test('a native value that is gone is brought back by the next write', () => {
  const record = recordOf([write('v')]);
  record.nativeMissing = true;
  assert.deepEqual(plan(record, [write('v')]).native, { kind: 'string', value: 'v' });
  assert.equal(record.nativeMissing, false);
});

test('clearing a set of which only a part is loaded removes all entries, and keeps what the clear had not seen', () => {
  const record = recordOf([add('a', 'b', 'c')]);
  const { set } = record.state;
  set!.whole = false;
  set!.entries.delete(utf8('b'));
  const cleared = plan(record, [clear]);
  assert.equal(cleared.clearEntries, true);
  assert.deepEqual(cleared.native, { kind: 'delete' });
  assert.equal(record.state.set?.whole, true);
  assert.equal(record.membersDigest, 0);
});

test('the bytes of a string are wanted where they leave the native value, or are added to', () => {
  const record = recordOf([write('v')]);
  record.state.string!.register.value = UNLOADED;
  const wanted = (make: Make): boolean => needsStringValue(record, make(emptyKeyState(), 500));
  assert.equal(wanted(write('w')), false);
  assert.equal(wanted(count(1)), true);
  assert.equal(wanted(add('m')), true);
  assert.equal(wanted(sibling('x')), true);
  assert.equal(wanted(expire(later)), true);
});

// ---- cache

function cached(cache: KeyCache, name: string, value = 'v'): KeyRecord {
  const record = { ...recordOf([write(value)]), key: utf8(name), used: false };
  cache.set(record);
  return record;
}

test('the cache evicts down to its bound, those first that were not used', () => {
  const cache = new KeyCache(3);
  for (const name of ['a', 'b', 'c', 'd', 'e']) cached(cache, name);
  cache.get(utf8('a'));
  cache.trim();
  assert.equal(cache.size, 3);
  assert.notEqual(cache.get(utf8('a')), undefined);
  assert.equal(cache.get(utf8('b')), undefined);
  cache.clear();
  assert.equal(cache.size, 0);
});

test('the cache ends even when all were used', () => {
  const cache = new KeyCache(1);
  for (const name of ['a', 'b', 'c']) cached(cache, name).used = true;
  cache.trim();
  assert.equal(cache.size, 1);
});

test('long values, large sets and large headers do not stay in memory', () => {
  const cache = new KeyCache(10);
  const long = cached(cache, 'long', 'x'.repeat(300));
  cache.release(long);
  assert.equal(long.state.string?.register.value, UNLOADED);
  const short = cached(cache, 'short', 'x'.repeat(200));
  cache.release(short);
  assert.equal(short.state.string?.register.value, 'x'.repeat(200));
  // What is hidden by another type stands nowhere but in the header: it must not be lost there.
  const hidden = { ...recordOf([write('x'.repeat(300)), add('m')]), key: utf8('hidden') };
  cache.set(hidden);
  cache.release(hidden);
  assert.equal(hidden.state.string?.register.value, 'x'.repeat(300));
  const beside = { ...recordOf([write('x'.repeat(300)), sibling('y')]), key: utf8('beside') };
  cache.set(beside);
  cache.release(beside);
  assert.ok(encodeHeader(beside).includes('x'.repeat(300)));
  const large = {
    ...recordOf([add(...Array.from({ length: 5000 }, (_, i) => `m${i}`))]),
    key: utf8('large'),
  };
  cache.set(large);
  cache.release(large);
  assert.equal(cache.get(utf8('large')), undefined);
  const siblings = { ...recordOf([sibling('x'.repeat(100_000))]), key: utf8('siblings') };
  cache.set(siblings);
  cache.release(siblings);
  assert.equal(cache.get(utf8('siblings')), undefined);
});

// ---- loading

async function stored(before: readonly Make[], batch: readonly Make[] = []): Promise<GatedStore> {
  const store = new GatedStore();
  await store.open();
  const record = recordOf([]);
  await store.commit({ writes: [plan(record, before)] });
  if (batch.length > 0)
    await store.commit({
      writes: [
        plan(
          record,
          batch.map(
            (make): Make =>
              (state, stamp) =>
                make(state, stamp + 100),
          ),
        ),
      ],
    });
  return store;
}

async function load(
  store: GatedStore,
  cache: KeyCache,
  wanted: { value?: boolean; members?: readonly string[] | 'all' },
): Promise<KeyRecord> {
  const wants: Wants = new Map();
  const { members } = wanted;
  want(
    wants,
    KEY,
    wanted.value === true,
    members === 'all' || members === undefined ? members : members.map(utf8),
  );
  const records = new Map<ByteString, KeyRecord>();
  await loadKeys(store, cache, wants, records);
  return records.get(KEY)!;
}

test('what is known is not loaded again, and what is missing is added', async () => {
  const store = await stored([write('v')]);
  const cache = new KeyCache(10);
  const first = await load(store, cache, {});
  assert.equal(first.state.string?.register.value, UNLOADED);
  const second = await load(store, cache, { value: true });
  assert.equal(second, first);
  assert.equal(second.state.string?.register.value, 'v');
  await load(store, cache, { value: true });
  assert.equal(store.loads.length, 2);
});

test('members are loaded as they are asked for; absent ones are then known to be absent', async () => {
  const store = await stored([add('a', 'b', 'c')]);
  const cache = new KeyCache(10);
  const record = await load(store, cache, { members: ['a', 'x'] });
  assert.deepEqual([...record.state.set!.entries.keys()].sort(), ['a', 'x']);
  assert.deepEqual(record.state.set?.entries.get(utf8('x')), []);
  await load(store, cache, { members: ['x'] });
  assert.equal(store.loads.length, 1);
  await load(store, cache, { members: 'all' });
  assert.equal(record.state.set?.whole, true);
  assert.deepEqual([...record.state.set!.entries.keys()].sort(), ['a', 'b', 'c']);
  await load(store, cache, { members: ['y'] });
  assert.equal(store.loads.length, 2, 'a whole set knows all');
});

test('a record that another node has replaced is loaded as a whole, with all that was wanted', async () => {
  const cache = new KeyCache(10);
  // Cached: the string alone. Then another node makes the key a set beside it.
  const before = await stored([write('v')]);
  await load(before, cache, {});
  const after = await stored([write('v')], [add('a', 'b')]);
  const record = await load(after, cache, { value: true, members: 'all' });
  assert.equal(record.state.set?.whole, true);
  assert.deepEqual([...record.state.set!.entries.keys()].sort(), ['a', 'b']);
  assert.equal(record.nativeMissing, false);
});

test('members that a replaced record knew are asked for again; a value that nobody wanted is not missing', async () => {
  const cache = new KeyCache(10);
  const before = await stored([add('a', 'b'), write('v')]);
  await load(before, cache, { members: ['a'] });
  const after = await stored([add('a', 'b'), write('v')], [add('c'), write('w')]);
  const record = await load(after, cache, { members: ['a', 'c'] });
  assert.deepEqual([...record.state.set!.entries.keys()].sort(), ['a', 'c']);
  assert.equal(record.nativeMissing, false);
  assert.equal(record.state.string?.register.value, UNLOADED);
});

test('a native value that is gone is known to be gone, and not asked for each time', async () => {
  const store = await stored([write('v')]);
  store.dataset.natives.delete(KEY);
  const cache = new KeyCache(10);
  const record = await load(store, cache, { value: true });
  assert.equal(record.nativeMissing, true);
  await load(store, cache, { value: true });
  assert.equal(store.loads.length, 1);
});
