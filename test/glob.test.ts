import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Redis } from 'ioredis';
import type { ByteString } from '../crdts/bytes.js';
import { globMatches } from '../crdts/glob.js';
import { launchValkey } from '../src/valkey-server/launch.js';

const b = (bytes: string) => bytes as ByteString;

const MATCHES: [pattern: string, value: string][] = [
  ['', ''],
  ['*', ''],
  ['*', 'anything\0\xff'],
  ['***', 'x'],
  ['h?llo', 'h\xffllo'],
  ['h*llo', 'hllo'],
  ['h*llo', 'heeeello'],
  ['h[ae]llo', 'hallo'],
  ['h[a-c]llo', 'hbllo'],
  ['h[c-a]llo', 'hbllo'],
  ['h[^e]llo', 'hallo'],
  ['[\\]]', ']'],
  ['[^]', 'x'],
  ['[a-', '-'],
  ['[abc', 'c'],
  ['\\*', '*'],
  ['a\\', 'a\\'],
  ['*a*b*', 'xaxxbx'],
  ['*.*.c', 'a.b.b.c'],
  ['[\xf0-\xff]', '\xf7'],
];

const MISSES: [pattern: string, value: string][] = [
  ['', 'a'],
  ['?', ''],
  ['**', ''],
  ['a', ''],
  ['a', 'A'],
  ['h[^e]llo', 'hello'],
  ['h[a-c]llo', 'hdllo'],
  ['[]', ''],
  ['[]', ']'],
  ['\\*', 'x'],
  ['*a', 'ab'],
  ['a*', 'ba'],
  ['*ab*', 'a-b'],
  ['a?', 'a'],
];

it('patterns match what they should', () => {
  for (const [pattern, value] of MATCHES) assert.ok(globMatches(b(pattern), b(value)), `${pattern} ${value}`);
  for (const [pattern, value] of MISSES) assert.ok(!globMatches(b(pattern), b(value)), `${pattern} ${value}`);
});

it('patterns match what they match in Valkey', async () => {
  const server = await launchValkey();
  const redis = new Redis(server.url);
  try {
    const random = (below: number) => Math.floor(Math.random() * below);
    const letters = ['a', 'b', 'c', '-', '\xff', ']', '\\'];
    // Valkey compares the ends of a class's range as C chars, signed on some machines: no \xff among random ranges.
    const pieces = [
      ...letters.filter((letter) => letter !== '\xff'),
      '*',
      '*',
      '?',
      '[',
      '^',
      '[a-c]',
      '[^a]',
      '\\*',
    ];
    const word = (from: string[], length: number) =>
      Array.from({ length: random(length) }, () => from[random(from.length)]).join('');
    const bytes = (text: string) => Buffer.from(text, 'latin1');
    const values = [...new Set([...MATCHES, ...MISSES].map(([, value]) => value))];
    while (values.length < 200) values.push(word(letters, 7));
    await redis.mset(values.flatMap((value) => [bytes(value), 'v']));
    const patterns = [...MATCHES, ...MISSES].map(([pattern]) => pattern);
    while (patterns.length < 800) patterns.push(word(pieces, 8));
    const found = await Promise.all(
      patterns.map((pattern) => redis.callBuffer('KEYS', bytes(pattern)) as Promise<Buffer[]>),
    );
    for (const [i, pattern] of patterns.entries()) {
      const theirs = (found[i] ?? []).map((key) => key.toString('latin1')).sort();
      const ours = [...new Set(values)].filter((value) => globMatches(b(pattern), b(value))).sort();
      assert.deepEqual(ours, theirs, `pattern ${JSON.stringify(pattern)}`);
    }
  } finally {
    redis.disconnect();
    await server.stop();
  }
});

it('a pattern of many stars takes no longer than its length times the value', () => {
  assert.equal(globMatches(b(`${'a*'.repeat(500)}b`), b('a'.repeat(5000))), false);
  assert.equal(globMatches(b(`${'*a'.repeat(500)}`), b('a'.repeat(5000))), true);
});
