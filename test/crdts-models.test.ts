/**
 * The types do what users expect. The laws alone would pass a set that never removes. With taking turns each type is a plain
 * Map, Set or bigint; with concurrency it is what the oracle says, at every replica and at every time.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ByteString,
  counterValue,
  deadlineOf,
  hasHiddenType,
  type KeyState,
  membersOf,
  type SetState,
  stringValue,
  visibleType,
} from '../crdts/index.js';
import { anySteps, History, play, type Subject } from './support/crdt-history.js';
import { type Command, keySubject } from './support/crdt-keys.js';
import {
  expectedCount,
  expectedDeadline,
  expectedMembers,
  expectedSiblings,
  expectedString,
  fromUnits,
  lastValue,
  type Past,
  pastOf,
  units,
} from './support/crdt-oracle.js';
import { check, Random } from './support/crdt-runs.js';
import {
  counterSubject,
  expirySubject,
  multiValueSubject,
  registerSubject,
  setSubject,
  stringSubject,
} from './support/crdt-subjects.js';

/** Compares every replica with the oracle during and after a concurrent history. */
function testOracle<State, Op>(
  subject: Subject<State, Op>,
  expected: (past: Past<Op>) => unknown,
  actual: (state: State) => unknown,
): void {
  test(`${subject.name}: is what the oracle says of concurrent operations`, () => {
    check(
      400,
      fc.property(anySteps, fc.nat(), (steps, seed) => {
        const history = play(subject, steps);
        const compare = () => {
          for (const [at, { state }] of history.replicas.entries()) {
            assert.deepEqual(actual(state), expected(pastOf(history, at)));
          }
        };
        compare();
        history.settle(new Random(seed));
        compare();
      }),
    );
  });
}

/** Compares every replica with a plain model when each operation arrives before the next one is made. */
function testTurns<State, Op>(
  subject: Subject<State, Op>,
  model: () => { apply(op: Op): void; value(): unknown },
  actual: (state: State) => unknown,
): void {
  test(`${subject.name}: is a plain value when replicas take turns`, () => {
    check(
      200,
      fc.property(fc.array(fc.tuple(fc.nat(2), fc.nat()), { maxLength: 40, size: 'max' }), (turns) => {
        const history = new History(subject);
        const plain = model();
        for (const [at, seed] of turns) {
          const op = subject.generate(history.replicas[at]!.state, new Random(seed));
          if (op === null) continue;
          history.takeTurn(at, op);
          plain.apply(op);
          for (const { state } of history.replicas) assert.deepEqual(actual(state), plain.value());
        }
      }),
    );
  });
}

const sortedMembers = (state: SetState) => membersOf(state).sort();

testOracle(
  registerSubject,
  (past) => lastValue(past, (op) => op.value) ?? null,
  (state) => state.value,
);
testOracle(counterSubject, expectedCount, (state) => units(String(counterValue(state))));
testOracle(stringSubject, expectedString, stringValue);
testOracle(setSubject, expectedMembers, sortedMembers);
testOracle(
  multiValueSubject,
  (past) => expectedSiblings(past),
  (state) => [...state.siblings.values()].map(({ value }) => value).sort(),
);
testOracle(expirySubject, expectedDeadline, deadlineOf);

testTurns(
  registerSubject,
  () => {
    let last: ByteString | null = null;
    return { apply: ({ value }) => (last = value), value: () => last };
  },
  (state) => state.value,
);
testTurns(
  counterSubject,
  () => {
    let sum = 0n;
    return {
      apply: (op) => (sum = op.op === 'add' ? sum + units(String(op.by))! : 0n),
      value: () => sum,
    };
  },
  (state) => units(String(counterValue(state))),
);
testTurns(
  stringSubject,
  () => {
    let now: string | null = null;
    return {
      apply(op) {
        if (op.op === 'write') now = op.value;
        else now = op.op === 'delete' ? null : fromUnits(units(now ?? '0')! + units(String(op.by))!);
      },
      value: () => now,
    };
  },
  stringValue,
);
testTurns(
  setSubject,
  () => {
    const now = new Set<ByteString>();
    return {
      apply(op) {
        if (op.op === 'clear') now.clear();
        else for (const member of op.members) op.op === 'add' ? now.add(member) : now.delete(member);
      },
      value: () => [...now].sort(),
    };
  },
  sortedMembers,
);
testTurns(
  expirySubject,
  () => {
    let now: number | null = null;
    return { apply: (op) => (now = op.op === 'write' ? op.value : null), value: () => now };
  },
  deadlineOf,
);

/** What a client sees of a key; commands of the wrong type are not generated. */
const seen = (state: KeyState) => {
  const type = visibleType(state, 0);
  return {
    type,
    value:
      type === 'string' ? stringValue(state.string!) : type === 'set' ? membersOf(state.set!).sort() : null,
    deadline: type === 'none' ? null : deadlineOf(state.expiry),
  };
};

testTurns(
  keySubject,
  () => {
    let string: string | null = null;
    let members = new Set<string>();
    let deadline: number | null = null;
    return {
      apply(command: Command) {
        if (command.op === 'SET') [string, members] = [command.value, new Set()];
        if (command.op === 'DEL') [string, members] = [null, new Set()];
        if (command.op === 'DEL' || (command.op === 'SET' && !command.keepTtl)) deadline = null;
        if ('by' in command) string = fromUnits(units(string ?? '0')! + units(String(command.by))!);
        if (command.op === 'SADD') for (const member of command.members) members.add(member);
        if (command.op === 'SREM') for (const member of command.members) members.delete(member);
        if (command.op === 'PEXPIREAT') deadline = command.at;
      },
      value() {
        const type = string !== null ? 'string' : members.size > 0 ? 'set' : 'none';
        // A set that lost its last member keeps its deadline here; the next write finds it. Valkey forgets it.
        if (type === 'none') return { type, value: null, deadline: null };
        return { type, value: string ?? [...members].sort(), deadline };
      },
    };
  },
  seen,
);

/** The part of a key's past that one sub-state sees. */
function part<Op>(
  past: Past<Command>,
  map: (command: Command, observed: readonly Command[]) => Op | null,
): Past<Op> {
  const original = new Map(past.entries.map((entry) => [entry.id, entry]));
  const mapped = past.entries.flatMap((entry) => {
    const observed = past.entries.filter((earlier) => past.observed(entry, earlier)).map(({ op }) => op);
    const op = map(entry.op, observed);
    return op === null ? [] : [{ ...entry, op }];
  });
  return {
    entries: mapped,
    observed: (later, earlier) => past.observed(original.get(later.id)!, original.get(earlier.id)!),
  };
}

test('key: each sub-state is what the oracle says, and the visible type is the same everywhere', () => {
  check(
    400,
    fc.property(anySteps, fc.nat(), (steps, seed) => {
      const history = play(keySubject, steps);
      history.settle(new Random(seed));
      const past = pastOf(history, 0);
      const string = expectedString(
        part(past, (command, observed) => {
          if (command.op === 'SET') return { op: 'write', value: command.value } as const;
          if (command.op === 'INCRBY') return { op: 'add', by: command.by } as const;
          if (command.op === 'INCRBYFLOAT') return { op: 'addFloat', by: command.by } as const;
          // A DEL that saw no string writes none.
          const saw = observed.some(({ op }) => op === 'SET' || op === 'INCRBY' || op === 'INCRBYFLOAT');
          return command.op === 'DEL' && saw ? ({ op: 'delete' } as const) : null;
        }),
      );
      const members = expectedMembers(
        part(past, (command) => {
          if (command.op === 'SADD') return { op: 'add', members: command.members } as const;
          if (command.op === 'SREM') return { op: 'remove', members: command.members } as const;
          return command.op === 'SET' || command.op === 'DEL' ? ({ op: 'clear' } as const) : null;
        }),
      );
      const deadline = expectedDeadline(
        part(past, (command) => {
          if (command.op === 'PEXPIREAT') return { op: 'write', value: command.at } as const;
          const ends = command.op === 'DEL' || (command.op === 'SET' && !command.keepTtl);
          return ends ? ({ op: 'clear' } as const) : null;
        }),
      );
      for (const { state } of history.replicas) {
        assert.equal(state.string && stringValue(state.string), string);
        assert.deepEqual(state.set === null ? [] : membersOf(state.set).sort(), members);
        assert.equal(deadlineOf(state.expiry), deadline);
        const type = visibleType(state, -1);
        assert.equal(type, visibleType(history.replicas[0]!.state, -1));
        assert.equal(hasHiddenType(state), string !== null && members.length > 0);
        if (type === 'string') assert.notEqual(string, null);
        if (type === 'set') assert.notEqual(members.length, 0);
        if (type === 'none') assert.ok(string === null && members.length === 0);
      }
      history.takeTurn(seed % 3, { op: 'DEL' });
      for (const { state } of history.replicas) assert.equal(visibleType(state, -1), 'none');
    }),
  );
});
