/** INCRBYFLOAT through real nodes: three regions agree on every byte (SEMANTICS row 15), and a key's rule holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { type Decimal, readDecimal } from '../crdts/decimal.js';
import { createNode } from '../src/node.js';
import type { Transaction } from '../src/replica/operation.js';
import { waitFor } from './support/wait.js';

type Node = Awaited<ReturnType<typeof createNode>>;

/** Runs one operation on a node. */
function operate<T>(node: Node, key: ByteString, run: (tx: Transaction) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const operation = { needs: [{ key, value: true }], run };
    node.engine.submit<T>(operation, {
      settled: (error, value) => (error === null ? resolve(value as T) : reject(error)),
    });
  });
}

const add = (node: Node, key: string, by: string): Promise<Decimal> =>
  operate(node, utf8(key), (tx) => tx.incrementFloat(utf8(key), readDecimal(by)));

test('fractions and integers of three regions come to the same bytes in every region', async () => {
  const a = await createNode({ region: 'a' });
  const peers = a.status().addresses;
  const [b, c] = [await createNode({ region: 'b', peers }), await createNode({ region: 'c', peers })];
  const nodes = [a, b, c];
  try {
    await Promise.all(nodes.map((node) => node.whenReady()));
    const steps = ['0.1', '0.2', '-0.30', '1e16', '1', '-1e16', '1.1', '1.9'];
    await Promise.all(steps.map((step, i) => add(nodes[i % 3]!, 'sum', step)));
    await b.counter('whole').increment(2);
    await c.counter('whole').increment(3);
    await add(a, 'whole', '0.5');
    const read = (key: string) => Promise.all(nodes.map((node) => node.register(key).get()));
    const all = async (key: string, value: string) => (await read(key)).every((found) => found === value);
    await waitFor(() => all('sum', '4'));
    await waitFor(() => all('whole', '5.5'));
    await assert.rejects(a.counter('whole').increment(1), { code: 'NOT_AN_INTEGER' });
    await add(b, 'whole', '-.5');
    await waitFor(() => all('whole', '5'));
    assert.equal(await c.counter('whole').increment(1), 6n);
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
  }
});

test('a key that is to hold a counter takes whole steps only, and one under a policy takes none', async () => {
  const node = await createNode({
    region: 'a',
    listen: [],
    rules: [
      { pattern: 'c:*', type: 'counter' },
      { pattern: 's:*', type: 'set' },
      { pattern: 'm:*', type: 'string', policy: 'max' },
    ],
  });
  try {
    assert.equal(await add(node, 'c:1', '5.0e3'), 5000);
    await assert.rejects(add(node, 'c:1', '0.5'), { code: 'NOT_AN_INTEGER' });
    await assert.rejects(add(node, 'c:1', '1e20'), { code: 'NOT_AN_INTEGER' });
    await assert.rejects(add(node, 'c:1', '9223372036854775807'), { code: 'OVERFLOW' });
    await assert.rejects(add(node, 's:1', '1'), { code: 'RULE' });
    await assert.rejects(add(node, 'm:1', '1'), { code: 'RULE' });
    await assert.rejects(add(node, 'any', '1e21'), { code: 'FLOAT_RANGE' });
    assert.equal(await node.register('c:1').get(), '5000');
    assert.equal(await node.register('any').get(), null);
  } finally {
    await node.stop();
  }
});
