/** Which keys certainly have no header: never said of one that has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ByteString } from '../crdts/bytes.js';
import { KnownKeys } from '../src/store/known-keys.js';
import { keySlot, SLOTS } from '../src/store/slots.js';
import { randomFrom } from './support/random-commits.js';

const keyOf = (i: number) => `key:${i}` as ByteString;

/** Asks in vain until slots are wanted. */
function askInVain(known: KnownKeys, times: number): void {
  for (let i = 0; i < times; i += 1) assert.equal(known.isAbsent(keyOf(i)), false);
}

/** Reads all slots that are wanted, where `stored` are the keys that are there. */
function readAll(known: KnownKeys, stored: Iterable<ByteString>): void {
  const slots = new Map<number, ByteString[]>();
  for (const key of stored) {
    const slot = keySlot(key);
    const list = slots.get(slot);
    if (list === undefined) slots.set(slot, [key]);
    else list.push(key);
  }
  while (known.isWanted) {
    const { slots: some, token } = known.begin(1000);
    for (const slot of some) known.learn(token, slot, slots.get(slot) ?? []);
  }
}

test('reads nothing before enough keys were asked for in vain, and the more the more often it was forgotten', () => {
  const known = new KnownKeys(Math.random, 10);
  askInVain(known, 9);
  assert.equal(known.isWanted, false);
  askInVain(known, 1);
  assert.equal(known.isWanted, true);
  readAll(known, []);
  assert.equal(known.isAbsent(keyOf(1)), true);
  known.forget();
  assert.equal(known.isWanted, false);
  askInVain(known, 19);
  assert.equal(known.isWanted, false);
  askInVain(known, 1);
  assert.equal(known.isWanted, true);
});

test('a key that was read, or stored since its slot began to be read, is never said to be absent', () => {
  const random = randomFrom(7);
  const known = new KnownKeys(random, 1);
  askInVain(known, 1);
  const stored = new Set<ByteString>();
  for (let i = 0; i < 100_000; i += 2) stored.add(keyOf(i));
  const early = Array.from({ length: 1000 }, (_, i) => `early:${i}` as ByteString);
  const { slots, token } = known.begin(SLOTS);
  // Sent after the slots were asked for, so what is read lacks them.
  for (const key of early) known.stores(keySlot(key), key);
  const lists = new Map(slots.map((slot) => [slot, [] as ByteString[]]));
  for (const key of stored) lists.get(keySlot(key))!.push(key);
  for (const [slot, keys] of lists) known.learn(token, slot, keys);
  for (const key of stored) assert.equal(known.isAbsent(key), false, key);
  for (const key of early) assert.equal(known.isAbsent(key), false, key);
  let absent = 0;
  for (let i = 1; i < 100_000; i += 2) absent += Number(known.isAbsent(keyOf(i)));
  // But for those few whose fingerprint is another key's.
  assert.ok(absent > 49_900, `${absent} of 50,000 are known to be absent`);
  for (let i = 1; i < 1000; i += 2) {
    known.stores(keySlot(keyOf(i)), keyOf(i));
    assert.equal(known.isAbsent(keyOf(i)), false);
  }
});

test('an answer that comes after everything was forgotten teaches nothing', () => {
  const known = new KnownKeys(Math.random, 1);
  askInVain(known, 1);
  const { slots, token } = known.begin(SLOTS);
  known.forget();
  for (const slot of slots) known.learn(token, slot, []);
  assert.equal(known.isAbsent(keyOf(1)), false);
});

test('a slot that is too large to be read stays unknown, the others don’t', () => {
  const known = new KnownKeys(Math.random, 1);
  askInVain(known, 1);
  const large = keySlot(keyOf(1));
  const { slots, token } = known.begin(SLOTS);
  for (const slot of slots) known.learn(token, slot, slot === large ? null : []);
  assert.equal(known.isAbsent(keyOf(1)), false);
  assert.equal(known.isAbsent(keyOf(2)), true);
  known.stores(large, keyOf(1));
  assert.equal(known.isAbsent(keyOf(1)), false);
});

test('forgets everything for good when there are too many keys', () => {
  const known = new KnownKeys(Math.random, 1, 1000);
  askInVain(known, 1);
  readAll(
    known,
    Array.from({ length: 1000 }, (_, i) => keyOf(i)),
  );
  assert.equal(known.isAbsent(keyOf(5000)), true);
  for (let i = 1000; i < 1100; i += 1) known.stores(keySlot(keyOf(i)), keyOf(i));
  assert.equal(known.isAbsent(keyOf(5000)), false);
  askInVain(known, 100);
  assert.equal(known.isWanted, false);
});
