/**
 * `npm run simulate -- [--seeds N] [--seed N] [--mode NAME]`: the simulation for as long as one likes.
 *
 * `--seeds`: how many of each mode (default: SIMULATE_SEEDS, or 2,000; some modes run a share of them). `--seed`: that one
 * alone, as the message of a failure says. `--mode`: only that one. Exit code 1 when a seed fails.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const string = { type: 'string' } as const;
const { values } = parseArgs({ options: { seeds: string, seed: string, mode: string } });
for (const [flag, value] of Object.entries({ seeds: values.seeds, seed: values.seed })) {
  if (value !== undefined && !/^[1-9]\d{0,8}$/.test(value)) {
    process.stderr.write(`--${flag} wants a number from 1 on, not ${value}\n`);
    process.exit(2);
  }
}
const env: NodeJS.ProcessEnv = {
  ...process.env,
  SIMULATE_SEEDS: values.seeds ?? process.env.SIMULATE_SEEDS ?? '2000',
  ...(values.seed === undefined ? {} : { SIMULATE_SEED: values.seed }),
  ...(values.mode === undefined ? {} : { SIMULATE_MODE: values.mode }),
};
const child = spawn(process.execPath, ['--import', 'tsx', '--test', 'test/simulation.test.ts'], {
  cwd: fileURLToPath(new URL('../..', import.meta.url)),
  env,
  stdio: 'inherit',
});
child.once('exit', (code) => process.exit(code ?? 1));
