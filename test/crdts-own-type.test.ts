/** A best score: whoever writes, the greatest score ever written is what all replicas keep. */
import { test } from 'node:test';
import { assertPassed, checkDataType, type DataType, DecodeError } from '../crdts/index.js';

interface Best {
  score: number;
}

type BestOp = { readonly op: 'raise'; readonly to: number };

const isScore = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);

export const bestType: DataType<Best, BestOp> = {
  name: 'best',

  // Where every replica begins. Joined with anything, it changes nothing.
  empty: () => ({ score: 0 }),

  // What an operation changes, as a small state of its own: the state is left alone. Throws before anything has changed.
  mutate(_state, op) {
    if (!isScore(op.to)) throw new RangeError('a score is a whole number from 0 on');
    return { score: op.to };
  },

  // Joins, in any order and however often, and says whether that was news.
  merge(into, delta) {
    if (delta.score <= into.score) return false;
    into.score = delta.score;
    return true;
  },

  clone: ({ score }) => ({ score }),

  // Equal states, equal forms; and what a stranger sends is checked.
  toWire: ({ score }) => score,
  fromWire(wire) {
    if (!isScore(wire)) throw new DecodeError('a score is not a whole number from 0 on');
    return { score: wire };
  },
};

test('best: the laws hold, and it does what it is for', () => {
  const report = checkDataType(bestType, {
    operations: [
      { op: 'raise', to: 1 },
      { op: 'raise', to: 2 },
      { op: 'raise', to: 500 },
    ],
    // Without a model, a type that ignores every operation would pass.
    model: { empty: 0, apply: (value, op) => Math.max(value, op.to), read: (state) => state.score },
  });
  assertPassed(report);
});
