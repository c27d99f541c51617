import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const sources = readdirSync(join(ROOT, 'crdts'), { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.ts'),
);

/** The code of a file: its comments are blanked out, since prose may name what code may not use. */
function codeOf(name: string): string {
  const source = readFileSync(join(ROOT, 'crdts', name), 'utf8');
  return source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '');
}

describe('crdts/', () => {
  it('has files to check', () => assert(sources.length > 5));

  it('imports nothing from outside itself', () => {
    for (const name of sources) {
      const code = codeOf(name);
      const specifiers = [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
        (match) => match[1]!,
      );
      for (const specifier of specifiers) {
        const inside =
          specifier.startsWith('.') && !normalize(join(dirname(name), specifier)).startsWith('..');
        assert(inside, `crdts/${name} imports ${specifier}`);
      }
      assert.doesNotMatch(code, /\brequire\s*\(|\bimport\s*\(/, `crdts/${name} loads code when it runs`);
    }
  });

  it('uses no clock, no randomness and nothing of Node', () => {
    const impure =
      /\bDate\b(?!\.UTC\b)|\bMath\.random\b|\bset(?:Timeout|Interval|Immediate)\b|\bqueueMicrotask\b|\bprocess\b|\bBuffer\b|\bperformance\b|\bglobalThis\b|\bcrypto\b|\bfetch\b|\bconsole\b/;
    for (const name of sources) {
      const [found] = impure.exec(codeOf(name).replace(/(['"])(?:\\.|(?!\1).)*\1/g, "''")) ?? [];
      assert.equal(found, undefined, `crdts/${name} uses ${found}`);
    }
  });

  it('has no file of more than 400 lines', (t) => {
    for (const name of sources) {
      const lines = readFileSync(join(ROOT, 'crdts', name), 'utf8').split('\n').length - 1;
      if (lines > 250) t.diagnostic(`crdts/${name} has ${lines} lines: does it answer two questions?`);
      assert(lines <= 400, `crdts/${name} has ${lines} lines`);
    }
  });
});

describe('The repository', () => {
  const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).trimEnd().split('\n');

  it('has nothing at its top but what belongs there', () => {
    const allowed = new Set([
      'src',
      'crdts',
      'bench',
      'test',
      'package.json',
      'tsconfig.json',
      'LICENSE',
      'README.md',
      'package-lock.json',
    ]);
    const found = new Set(tracked.map((path) => path.split('/')[0]!));
    assert.deepEqual(
      [...found].filter((name) => !name.startsWith('.') && !allowed.has(name)),
      [],
    );
  });

  it('names no package registry and no mirror', () => {
    // The lock file is npm's own and names where each package came from, unless npm was told to omit it.
    const hosts = /\b(?:registry|mirror|proxy)\.[a-z0-9-]+\.[a-z]+\b|\bdeb\.[a-z]+\.org\b/;
    for (const path of tracked.filter(
      (each) => /\.(?:ts|json|md|yml|yaml|sh)$|^\.ci\//.test(each) && each !== 'package-lock.json',
    )) {
      const [found] = hosts.exec(readFileSync(join(ROOT, path), 'utf8')) ?? [];
      assert.equal(found, undefined, `${path} names ${found}`);
    }
  });
});
