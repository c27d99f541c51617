/** Trees as they come from msgpack: valid ones with something changed, and any ones. */
import fc from 'fast-check';
import type { Random } from './crdt-runs.js';

/** Things that a tree may hold where it shouldn't. */
export const JUNK: readonly unknown[] = [
  undefined,
  null,
  true,
  -1,
  -0,
  0,
  1,
  2,
  0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 48,
  2 ** 52,
  2 ** 53,
  5n,
  2n ** 64n,
  '',
  'a',
  'é',
  '\u20ac',
  '12345678901234567890',
  '0',
  '1'.repeat(50),
  Uint8Array.of(),
  Uint8Array.of(97),
  Uint8Array.of(200, 1),
  [],
  [[]],
  [0, 0],
  {},
  new Map(),
  new Date(0),
];

/** Changes one or a few places of a tree; gives a new tree. */
export function disturb(tree: unknown, random: Random): unknown {
  let next = structuredClone(tree);
  for (let i = 0; i <= random.below(2); i += 1) next = disturbOnce(next, random);
  return next;
}

function disturbOnce(tree: unknown, random: Random): unknown {
  if (!Array.isArray(tree) || tree.length === 0 || random.chance(5)) return disturbLeaf(tree, random);
  const at = random.below(tree.length);
  const choice = random.below(10);
  const out = [...tree];
  if (choice === 0) out.splice(at, 1);
  else if (choice === 1) out.splice(at, 0, random.pick(JUNK));
  else if (choice === 2) out.push(...tree.slice(at));
  else if (choice === 3) [out[at], out[0]] = [out[0], out[at]];
  else if (choice === 4) out.length = at;
  else out[at] = disturbOnce(out[at], random);
  return out;
}

function disturbLeaf(leaf: unknown, random: Random): unknown {
  if (typeof leaf === 'number' && random.chance(60)) return leaf + random.pick([-1, 1, 2, 4096, -4096]);
  if (typeof leaf === 'string' && random.chance(40)) return `${leaf}${leaf}`;
  return random.pick(JUNK);
}

/** Any tree at all. */
export const anyTree: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  tree: fc.oneof(
    { depthSize: 'medium', withCrossShrink: true },
    fc.constantFrom(...JUNK),
    fc.nat(5),
    fc.array(tie('tree'), { maxLength: 6 }),
  ),
})).tree;
