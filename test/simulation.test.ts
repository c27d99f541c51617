/**
 * Whole meshes on virtual time and a hostile network, one test per mode: the first seeds of each. For more of them:
 *
 *     npm run simulate -- [--seeds N] [--from N] [--seed N] [--mode NAME]
 *
 * What the modes share is in support/simulated-run.ts.
 */
import test from 'node:test';
import { simulate } from './support/simulated-run.js';
import { again, MODES, seedsOf } from './support/simulation-modes.js';

const SEEDS = Number(process.env.SIMULATE_SEEDS ?? 60);

for (const [name, mode] of Object.entries(MODES)) {
  test(mode.title, async () => {
    for (let seed = 1; seed <= seedsOf(mode, SEEDS); seed += 1) {
      await simulate(seed, mode.troubles).catch((error: Error) => {
        throw new Error(`seed ${seed} fails; again: ${again(name, seed)}\n${error.message}`, {
          cause: error,
        });
      });
    }
  });
}
