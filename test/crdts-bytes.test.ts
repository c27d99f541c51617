/** Bytes as strings: nothing is lost, nothing that isn't a byte gets through. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ArgumentError,
  type ByteString,
  fromUint8Array,
  isAscii,
  isByteString,
  text,
  toUint8Array,
  utf8,
} from '../crdts/index.js';
import { check } from './support/crdt-runs.js';

test('keeps every byte from 0 to 255', () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const value = fromUint8Array(all);
  assert.equal(value.length, 256);
  assert.ok(isByteString(value));
  assert.ok(!isAscii(value));
  assert.deepEqual(toUint8Array(value), all);
});

test('keeps arrays longer than the stack', () => {
  const long = Uint8Array.from({ length: 1_000_003 }, (_, i) => (i * 31) & 255);
  assert.deepEqual(toUint8Array(fromUint8Array(long)), long);
});

test('gives any bytes back, and equal bytes compare equal', () => {
  check(
    500,
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const value = fromUint8Array(bytes);
      assert.deepEqual(toUint8Array(value), bytes);
      assert.equal(fromUint8Array(bytes.slice()), value);
      assert.equal(
        isAscii(value),
        bytes.every((byte) => byte < 128),
      );
    }),
  );
});

test('gives any text back, and its UTF-8 is what Node makes of it', () => {
  check(
    500,
    fc.property(fc.string({ unit: 'grapheme', maxLength: 100 }), (value) => {
      assert.equal(text(utf8(value)), value);
      assert.deepEqual(Buffer.from(toUint8Array(utf8(value))), Buffer.from(value, 'utf8'));
    }),
  );
});

test('keeps a leading byte order mark', () => {
  assert.equal(text(utf8('\ufeffmark')), '\ufeffmark');
});

test('shows invalid UTF-8 as replacement characters', () => {
  assert.equal(text('a\xff' as ByteString), 'a\ufffd');
});

test('knows bytes from text', () => {
  assert.ok(isByteString(''));
  assert.ok(isByteString('\x00\x7f\x80\xff'));
  for (const other of ['\u0100', '€', '😀', 7, null, undefined, new Uint8Array(1)]) {
    assert.ok(!isByteString(other));
  }
});

test('refuses text that was cast to bytes instead of cutting its characters', () => {
  assert.throws(() => toUint8Array('price: 5 €' as ByteString), ArgumentError);
});
