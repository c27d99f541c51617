/**
 * `npm test`: type check, lint, then every test in test/*.test.ts with node:test.
 *
 * The valkey-server that many tests need is found or obtained first, once, so that files that run side by side don't
 * all try. Arguments are parts of file names: `npm test -- cli http` runs only the tests whose file name has one of them.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { obtainValkey } from '../../src/valkey-server/obtain.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CONCURRENCY = 2;
/** For one file: a test that hangs fails, and doesn't hold the run up for ever. */
const FILE_LIMIT_MS = 540_000;

/** Runs a program of this package in the foreground; gives its exit code. */
function run(title: string, command: string, args: readonly string[]): Promise<number> {
  process.stdout.write(`\n> ${title}\n`);
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', (error) => {
      process.stderr.write(`${title}: ${error.message}\n`);
      resolve(1);
    });
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

const bin = (name: string) => fileURLToPath(new URL(`../../node_modules/.bin/${name}`, import.meta.url));

async function main(wanted: readonly string[]): Promise<number> {
  const files = readdirSync(new URL('..', import.meta.url))
    .filter((name) => name.endsWith('.test.ts'))
    .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
    .toSorted()
    .map((name) => `test/${name}`);
  if (files.length === 0) {
    process.stderr.write(`no test file has one of these in its name: ${wanted.join(', ')}\n`);
    return 1;
  }
  const types = await run('type check', bin('tsc'), ['-p', 'test/tsconfig.json']);
  const lint = await run('lint', bin('biome'), ['check', '--config-path=.biome.json', '.']);
  try {
    const { path, version } = await obtainValkey();
    process.stdout.write(`\n> valkey-server ${version}: ${path}\n`);
  } catch (error) {
    process.stderr.write(`\n${(error as Error).message}\nThe tests that need a server will fail.\n`);
  }
  const tests = await run('tests', process.execPath, [
    ...['--import', 'tsx', '--test', `--test-concurrency=${CONCURRENCY}`, `--test-timeout=${FILE_LIMIT_MS}`],
    ...['--test-reporter=spec', '--test-reporter-destination=stdout', ...files],
  ]);
  // Said last, where it is seen: node's own summary stands just above.
  if (types !== 0) process.stderr.write('the type check failed: see above\n');
  if (lint !== 0) process.stderr.write('lint failed: see above\n');
  return types || lint || tests ? 1 : 0;
}

process.exit(await main(process.argv.slice(2)));
