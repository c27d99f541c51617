/** Row 24 of the table of conflicts in full: what a set keeps of members that come and go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDocument, type Document, utf8 } from '../crdts/index.js';
import { pack } from '../src/replica/msgpack.js';

const TIMES = 1_000_000;
const KEY = utf8('k');
const MEMBER = utf8('m');

test('row 24: one member added and removed 1,000,000 times, in two documents by turns, leaves a few hundred bytes', () => {
  let nowMs = 1_700_000_000_000;
  const [a, b] = ['a', 'b'].map((replica) => createDocument({ replica, now: () => nowMs })) as [
    Document,
    Document,
  ];
  const bytes = (document: Document): number => pack(document.snapshot()).length;
  for (let done = 0; done < TIMES; done += 1) {
    const [here, there] = done % 2_000 < 1_000 ? [a, b] : [b, a];
    here.add(KEY, MEMBER);
    here.remove(KEY, MEMBER);
    if (done % 1_000 !== 999) continue;
    nowMs += 1;
    for (const delta of here.takeDeltas()) there.merge(delta);
    if (done % 100_000 !== 99_999) continue;
    assert.equal(a.digest(), b.digest());
    assert.ok(bytes(a) < 300, `${bytes(a)} bytes after ${done} times`);
  }
  a.add(KEY, MEMBER);
  for (const delta of a.takeDeltas()) b.merge(delta);
  for (const document of [a, b]) {
    assert.deepEqual(document.members(KEY), [MEMBER]);
    assert.ok(bytes(document) < 300, `${bytes(document)} bytes at the end`);
  }
});
