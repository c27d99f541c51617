/** SEMANTICS row 29: what a tombstone is kept for. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { createDocument, isForgettable, utf8 } from '../crdts/index.js';

for (const later of ['SET', 'DEL'] as const) {
  test(`row 29: SET beside DEL ends equal when the ${later} is later, for the tombstone stays until all have seen it`, () => {
    let now = Date.UTC(2026, 0, 1);
    const make = (replica: string) => createDocument({ replica, now: () => now });
    const [a, b] = [make('a'), make('b')];
    const key = utf8('k');
    a.set(key, utf8('1'));
    for (const delta of a.takeDeltas()) b.merge(delta);
    const stable = a.state(key)!.touched;
    const writes = [() => a.delete(key), () => b.set(key, utf8('2'))];
    for (const write of later === 'SET' ? writes : writes.reverse()) {
      now += 1_000;
      write();
    }
    const [fromA, fromB] = [a.takeDeltas(), b.takeDeltas()];
    const tombstone = a.state(key)!;
    assert.equal(isForgettable(tombstone, stable), false, 'b has not seen the DEL yet');
    assert.equal(isForgettable(tombstone, tombstone.touched), true, 'everyone has');
    for (const delta of fromA) b.merge(delta);
    for (const delta of fromB) a.merge(delta);
    assert.deepEqual([a.get(key), b.get(key)], later === 'SET' ? ['2', '2'] : [null, null]);
    assert.equal(a.digest(), b.digest());
  });
}
