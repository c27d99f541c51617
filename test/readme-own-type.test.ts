/** The README's data type is one that a test runs. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const read = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8');

test('shows in the README, word for word, the data type that crdts-own-type.test.ts runs', () => {
  const [, section] = read('../README.md').split('## Add a data type\n');
  const code = /```ts\n([\s\S]*?)```/.exec(section ?? '')?.[1];
  assert.equal(code?.replace("'valkey-mesh/crdts'", "'../crdts/index.js'"), read('./crdts-own-type.test.ts'));
});
