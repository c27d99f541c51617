/** crdts/ stands alone: no clock, no chance, no IO, nothing from outside; and every export says what it is. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const folder = new URL('../crdts/', import.meta.url);
const files = readdirSync(folder).map((name) => ({
  name,
  source: readFileSync(new URL(name, folder), 'utf8'),
}));
const FORBIDDEN =
  /\b(Date\.now|new Date\(\)|Math\.random|performance\.|crypto\b|process\.|Buffer\b|setTimeout|setInterval|setImmediate|queueMicrotask|require\(|fetch\(|console\.)/;

test('imports nothing from outside its folder', () => {
  for (const { name, source } of files) {
    for (const [, from] of source.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      assert.match(from!, /^\.\/[a-z-]+\.js$/, `${name} imports ${from}`);
    }
  }
});

test('reads no clock, draws no lots and does no IO', () => {
  for (const { name, source } of files) {
    const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*|'[^'\n]*'/g, '');
    assert.equal(FORBIDDEN.exec(code), null, name);
  }
});

test('begins each file with what it is, and keeps it short', () => {
  for (const { name, source } of files) {
    assert.match(source, /^\/\*\*/, name);
    assert.ok(source.split('\n').length <= 270, `${name} is too long`);
  }
});

test('documents every export', () => {
  for (const { name, source } of files) {
    const lines = source.split('\n');
    for (const [i, line] of lines.entries()) {
      if (!/^export (declare )?(abstract )?(class|function|const|interface|type \w)/.test(line)) continue;
      assert.match(lines[i - 1]!, /\*\/$/, `${name}:${i + 1} has no doc comment: ${line}`);
    }
  }
});

/** Parts of checkDataType and of readFrameBytes that are of no use on their own. */
const INTERNAL = new Set([
  'index.ts',
  'check-history.ts',
  'check-laws.ts',
  'check-wire.ts',
  'msgpack-bytes.ts',
  'set-bytes.ts',
]);

test('exports every other file from its index', () => {
  const index = files.find(({ name }) => name === 'index.ts')!.source;
  for (const { name } of files) {
    if (!INTERNAL.has(name)) assert.ok(index.includes(`'./${name.replace(/ts$/, 'js')}'`), name);
  }
});
