/** The table of a document's keys against a Map: growth, replacing, tidying up, and keys that are chosen to collide. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, hashAt, RecordTable, toUint8Array } from '../crdts/index.js';
import { Random } from './support/crdt-runs.js';

/** Records by key as a table and as a Map; `hash` may be a poor one. */
class Both {
  readonly table = new RecordTable();
  readonly model = new Map<ByteString, { rest: string; tag: number }>();
  readonly #hash: (key: Uint8Array) => number;

  constructor(hash = (key: Uint8Array) => hashAt(key, 0, key.length)) {
    this.#hash = hash;
  }

  /** Puts a record; what surrounds it must not matter. */
  put(key: ByteString, rest: string, tag: number): void {
    const bytes = toUint8Array(`<<${key}${rest}>>` as ByteString);
    const [keyEnd, end] = [2 + key.length, 2 + key.length + rest.length];
    const hash = this.#hash(toUint8Array(key));
    const record = this.table.find(hash, bytes, 2, keyEnd);
    assert.equal(record >= 0, this.model.has(key), `key of ${key.length} bytes`);
    if (record >= 0) this.table.replace(record, bytes, 2, keyEnd, end, tag);
    else assert.equal(this.table.add(hash, bytes, 2, keyEnd, end, tag), this.model.size);
    this.model.set(key, { rest, tag });
    bytes.fill(0);
  }

  find(key: ByteString): number {
    const bytes = toUint8Array(key);
    return this.table.find(this.#hash(bytes), bytes, 0, bytes.length);
  }

  trim(key: ByteString, tag: number): void {
    this.table.trim(this.find(key), tag);
    this.model.set(key, { rest: '', tag });
  }

  check(): void {
    assert.equal(this.table.length, this.model.size);
    let number = 0;
    for (const [key, { rest, tag }] of this.model) {
      const record = this.find(key);
      assert.equal(record, number, 'records are numbered as they came');
      assert.equal(this.table.keyOf(record), key);
      assert.equal(this.table.tagOf(record), tag);
      const end = this.table.keyEndOf(record);
      const found = Buffer.from(this.table.bytesOf(record)).toString('latin1', end, end + rest.length);
      assert.equal(found, rest);
      number += 1;
    }
  }
}

const text = (random: Random, length: number): ByteString =>
  String.fromCharCode(...Array.from({ length }, () => random.below(256))) as ByteString;

test('records are found by their keys, whatever was added, replaced and trimmed', () => {
  const seed = Math.floor(Math.random() * 1e9);
  const random = new Random(seed);
  try {
    for (let run = 0; run < 20; run += 1) {
      const both = new Both();
      const keys = Array.from({ length: 1 + random.below(run * 40 + 1) }, () =>
        text(random, random.below(30)),
      );
      for (let i = 0; i < 1500; i += 1) {
        const key = random.pick(keys);
        if (both.model.has(key) && random.chance(10)) both.trim(key, -1 - i);
        else both.put(key, text(random, random.below(random.chance(3) ? 6000 : 60)), i);
      }
      both.check();
      assert.equal(both.find('is not there, being longer than any of them' as ByteString), -1);
    }
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
  }
});

test('keys that all have one hash, or only a few, are found as well', () => {
  for (const hashes of [1, 3]) {
    const both = new Both((key) => (key[0]! % hashes) << 28);
    for (let i = 0; i < 3000; i += 1) both.put(`${i % 2000}` as ByteString, `v${i}`, i);
    both.check();
    assert.equal(both.find('none' as ByteString), -1);
  }
});

test('keys that collide cost no more than a Map and a few looks each', () => {
  const count = 20_000;
  const bytes = Array.from({ length: count }, (_, i) => toUint8Array(`key ${i}` as ByteString));
  let looked = 0;
  // Each time a key's bytes are compared with a record's, its first byte is read.
  const table = new RecordTable();
  for (const [i, key] of bytes.entries()) {
    const spied = new Proxy(key, {
      get(target, name) {
        if (name === '0') looked += 1;
        return Reflect.get(target, name) as unknown;
      },
    });
    if (table.find(7, spied, 0, key.length) < 0) table.add(7, key, 0, key.length, key.length, i);
  }
  assert.equal(table.length, count);
  assert.ok(looked <= count * 34, `${looked} looks`);
});

test('what was replaced is dropped once it is most of what is held', () => {
  const both = new Both();
  for (let i = 0; i < 200; i += 1) both.put(`key ${i}` as ByteString, 'x'.repeat(100), 0);
  for (let i = 0; i < 100_000; i += 1) both.put(`key ${i % 200}` as ByteString, 'y'.repeat(i % 150), i);
  // About 10 MB were put, of which some 16 kB are left.
  assert.ok(both.table.heldBytes < 400_000, `${both.table.heldBytes} bytes are held`);
  both.check();
});
