/** Rules from the command line: named policies, and resolvers from a module. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { utf8 } from '../crdts/bytes.js';
import { Rules } from '../crdts/rules.js';
import { loadRules } from '../src/cli/rule.js';
import { ConfigError } from '../src/errors.js';

describe('rules of the command line', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'valkey-mesh-rules-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  const rule = (policy: string) => ({ pattern: 'k:*', type: 'string' as const, policy });

  it('loads a resolver from a module, and its text is part of the fingerprint', async () => {
    const longest = join(folder, 'longest.mjs');
    const source =
      'export default (all) => all.reduce((a, b) => (b.value.length > a.value.length ? b : a)).value;';
    await writeFile(longest, source);
    const first = await loadRules([rule(longest)]);
    const rules = new Rules(first);
    const found = rules.of(utf8('k:1'));
    assert.equal(found.policy, 'longest');
    assert.equal(found.compact, false);
    const sibling = (value: string, stamp: number) => ({
      value: utf8(value),
      region: 'a',
      replica: 'a.1',
      stamp,
      atMs: 0,
    });
    assert.equal(found.resolve([sibling('long', 1), sibling('x', 2)]), 'long');

    const other = join(folder, 'other', 'longest.mjs');
    await mkdir(join(folder, 'other'));
    await writeFile(other, `${source} // a newer version`);
    assert.notEqual(new Rules(await loadRules([rule(other)])).fingerprint, rules.fingerprint);
    assert.equal(new Rules(await loadRules([rule(longest)])).fingerprint, rules.fingerprint);
  });

  it('says what to do about a module that is missing, broken, or gives no function', async () => {
    const broken = join(folder, 'broken.mjs');
    await writeFile(broken, 'export default (');
    const empty = join(folder, 'empty.mjs');
    await writeFile(empty, 'export const x = 1;');
    for (const [path, message] of [
      [join(folder, 'none.mjs'), /can't be loaded: ENOENT/],
      [broken, /can't be loaded: /],
      [empty, /has no default export that is a function: write/],
    ] as const) {
      await assert.rejects(loadRules([rule(path)]), (error: ConfigError) => {
        assert.ok(error instanceof ConfigError);
        assert.match(error.message, message);
        return true;
      });
    }
  });

  it('knows the policies by name', async () => {
    const rules = new Rules(await loadRules([rule('fww'), { pattern: 'c', type: 'counter', policy: 'sum' }]));
    assert.equal(rules.of(utf8('k:1')).firstWriteWins, true);
    assert.equal(rules.of(utf8('c')).type, 'counter');
    assert.equal(rules.of(utf8('else')).type, 'any');
  });
});
