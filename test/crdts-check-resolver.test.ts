/** The checker for users' resolvers: our own pass, and broken ones are caught, each with a small counterexample. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  assertPassed,
  type ByteString,
  CheckError,
  checkResolver,
  type Resolver,
  type ResolverCheck,
  resolvers,
  utf8,
} from '../crdts/index.js';

test("passes the library's own resolvers, and says which of them depend on the order", () => {
  for (const name of ['lww', 'fww', 'max', 'min'] as const) {
    const report = checkResolver(resolvers[name]);
    assertPassed(report);
    const ordered = name === 'lww' || name === 'fww';
    assert.equal(report.orderDependent !== null, ordered, name);
    if (ordered) assert.equal(report.orderDependent!.counterexample.length, 2);
    else assertPassed(checkResolver(resolvers[name], { anyOrder: true, seed: 5 }));
  }
});

test('passes resolvers that compute a value of all siblings', () => {
  const longest: Resolver = (siblings) =>
    siblings.reduce((best, next) => (next.value.length > best.value.length ? next : best)).value;
  assertPassed(checkResolver(longest));
  const union: Resolver = (siblings) =>
    [...new Set(siblings.flatMap(({ value }) => value.split(',')))].sort().join() as ByteString;
  assertPassed(checkResolver(union, { anyOrder: true, values: ['a,b', 'b,c'] as ByteString[] }));
  const home: Resolver = (siblings) => (siblings.find(({ region }) => region === 'eu') ?? siblings[0]!).value;
  assertPassed(checkResolver(home));
});

/** Fails unless the checker finds the law broken, with so many siblings, and finds the same again. */
function caught(make: () => Resolver, law: string, siblings: number, options: ResolverCheck = {}): void {
  const report = checkResolver(make(), options);
  assert.equal(report.ok, false, 'not caught');
  const told = `${report.failure!.law}: ${report.failure!.message}\n${report.failure!.counterexample.join('\n')}`;
  assert.equal(report.failure!.law, law, told);
  assert.equal(report.failure!.counterexample.length, siblings, told);
  assert.deepEqual(JSON.parse(JSON.stringify(report)), report, 'a report is plain data');
  assert.deepEqual(checkResolver(make(), options), report, 'a seed is a run');
  assert.throws(() => assertPassed(report), CheckError);
}

test('catches a resolver that throws for what it did not expect', () => {
  caught(() => (siblings) => JSON.parse(siblings[0]!.value), 'total', 1);
  const twoAtMost: Resolver = (siblings) => {
    if (siblings.length > 2) throw new Error('I only thought of two');
    return siblings[0]!.value;
  };
  caught(() => twoAtMost, 'total', 3);
  const unequal: Resolver = (siblings) => {
    const [first, second] = siblings;
    if (second !== undefined && first!.stamp === second.stamp) throw new Error('which one is later?');
    return first!.value;
  };
  caught(() => unequal, 'total', 2);
});

test('catches a resolver that sorts in place', () => {
  const sorting: Resolver = (siblings) =>
    (siblings as unknown as { value: ByteString }[]).sort((a, b) => (a.value < b.value ? -1 : 1))[0]!.value;
  caught(() => sorting, 'total', 2);
});

test('catches a resolver that is async, or gives no bytes', () => {
  caught(() => (async () => utf8('v')) as unknown as Resolver, 'bytes', 1);
  caught(() => (async () => Promise.reject(new Error('later'))) as unknown as Resolver, 'bytes', 1);
  caught(() => () => undefined as unknown as ByteString, 'bytes', 1);
  caught(() => (siblings) => siblings.length as unknown as ByteString, 'bytes', 1);
  caught(() => (siblings) => `${siblings[0]!.value}\u20ac` as ByteString, 'bytes', 1);
  assertPassed(checkResolver((siblings) => utf8(`${siblings.length} €`)));
});

test('catches a resolver that draws lots, or counts its calls', () => {
  const counting = (): Resolver => {
    let calls = 0;
    return (siblings) => {
      calls += 1;
      return siblings[calls % siblings.length]!.value;
    };
  };
  caught(counting, 'deterministic', 2);
  const report = checkResolver((siblings) => siblings[Math.floor(Math.random() * siblings.length)]!.value);
  assert.equal(report.failure?.law, 'deterministic');
});

test('catches a resolver that remembers what it was shown', () => {
  const sticky = (): Resolver => {
    let greatest = '' as ByteString;
    return (siblings) => {
      for (const { value } of siblings) if (value > greatest) greatest = value;
      return greatest;
    };
  };
  const report = checkResolver(sticky());
  assert.equal(report.failure?.law, 'deterministic');
  const identity = (): Resolver => {
    const known = new WeakMap<object, ByteString>();
    let named = 0;
    return (siblings) => {
      const sibling = siblings[0]!;
      if (!known.has(sibling)) {
        named += 1;
        known.set(sibling, String(named) as ByteString);
      }
      return known.get(sibling)!;
    };
  };
  caught(identity, 'deterministic', 1);
});

test('catches a resolver that depends on the order, where that is asked for', () => {
  caught(() => resolvers.lww, 'order', 2, { anyOrder: true });
  const concatenating: Resolver = (siblings) => siblings.map(({ value }) => value).join('') as ByteString;
  caught(() => concatenating, 'order', 2, { anyOrder: true });
  const report = checkResolver(concatenating);
  assertPassed(report);
  assert.match(report.orderDependent!.message, /in another order/);
});

test('shrinks values to simple ones, and says what it saw', () => {
  const noText: Resolver = (siblings) => {
    for (const { value } of siblings) if (/[^0-9]/.test(value)) throw new Error(`not a number: ${value}`);
    return siblings[0]!.value;
  };
  const { failure } = checkResolver(noText);
  assert.match(failure!.message, /it threw Error: not a number: -1/);
  assert.match(failure!.counterexample[0]!, /^"-1" by [a-z.0-9]+ in \w+ at \d+$/);
});
