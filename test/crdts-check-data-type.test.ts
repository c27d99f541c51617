/** The checker for users' data types: our own pass, and broken ones are caught, each with a small counterexample. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  assertPassed,
  type ByteString,
  CheckError,
  type Counter,
  type CounterOp,
  checkDataType,
  counterType,
  counterValue,
  type DataType,
  type DataTypeCheck,
  type Decimal,
  DecodeError,
  deadlineOf,
  expiryType,
  membersOf,
  plusDecimal,
  type Register,
  type RegisterOp,
  registerType,
  type SetOp,
  type SetState,
  setType,
  stringType,
  stringValue,
  valuesType,
} from '../crdts/index.js';

const [a, b] = ['a', '\xff'] as [ByteString, ByteString];

const register: DataTypeCheck<Register, RegisterOp, unknown> = {
  operations: [a, b, null].map((value) => ({ op: 'write', value })),
  model: { empty: null, apply: (_value, op) => op.value, read: (state) => state.value },
};
const counter: DataTypeCheck<Counter, CounterOp, Decimal> = {
  operations: [
    { op: 'add', by: 1 },
    { op: 'reset' },
    { op: 'add', by: -2 },
    { op: 'add', by: '0.5' as Decimal },
  ],
  model: {
    empty: 0,
    apply: (value, op) => (op.op === 'reset' ? 0 : plusDecimal(value, op.by)),
    read: counterValue,
  },
};
const set: DataTypeCheck<SetState, SetOp, unknown> = {
  operations: [
    { op: 'add', members: [a] },
    { op: 'remove', members: [a] },
    { op: 'add', members: [a, b] },
    { op: 'remove', members: [b] },
    { op: 'clear' },
  ],
  model: {
    empty: [],
    apply(value, op) {
      const now = new Set(value as ByteString[]);
      if (op.op === 'clear') now.clear();
      else for (const member of op.members) op.op === 'add' ? now.add(member) : now.delete(member);
      return [...now].sort();
    },
    read: (state) => membersOf(state).sort(),
  },
};

test('passes every type of the library', () => {
  const histories = Math.min(Number(process.env.LAWS_RUNS ?? '60'), 2000);
  assertPassed(checkDataType(registerType, { ...register, histories }));
  assertPassed(checkDataType(counterType, { ...counter, histories }));
  assertPassed(checkDataType(setType, { ...set, histories }));
  assertPassed(
    checkDataType(stringType, {
      histories,
      operations: [
        { op: 'add', by: 1 },
        { op: 'write', value: '5' as ByteString },
        { op: 'addFloat', by: '0.5' as Decimal },
        { op: 'write', value: b },
        { op: 'delete' },
      ],
      model: {
        empty: null as string | null,
        apply: (value, op) =>
          op.op === 'write' ? op.value : op.op === 'delete' ? null : String(Number(value) + Number(op.by)),
        read: stringValue,
      },
    }),
  );
  const deadlines = { empty: null as number | null, read: deadlineOf };
  assertPassed(
    checkDataType(expiryType, {
      histories,
      operations: [{ op: 'clear' }, ...[null, 0, 7].map((value) => ({ op: 'write', value }) as const)],
      model: { ...deadlines, apply: (_value, op) => (op.op === 'clear' ? null : op.value) },
    }),
  );
  const written = { op: 'write', value: { bytes: a, region: 'eu' as ByteString } } as const;
  assertPassed(checkDataType(valuesType, { histories, operations: [written, { op: 'clear' }] }));
});

/** A type that is broken on purpose. */
function broken<State, Op>(
  type: DataType<State, Op>,
  how: Partial<DataType<State, Op>>,
): DataType<State, Op> {
  return { ...type, ...how };
}

/** Fails unless the checker finds one of the laws broken, in at most so many steps, and finds the same again. */
function caught<State, Op, Value>(
  type: DataType<State, Op>,
  options: DataTypeCheck<State, Op, Value>,
  laws: string,
  most: number,
): void {
  const report = checkDataType(type, options);
  assert.equal(report.ok, false);
  const { law, counterexample } = report.failure!;
  const told = `${law} in ${report.cases}: ${report.failure!.message}\n${counterexample.join('\n')}`;
  assert.ok(laws.split(', ').includes(law), told);
  assert.ok(counterexample.length <= most, told);
  assert.deepEqual(JSON.parse(JSON.stringify(report)), report, 'a report is plain data');
  assert.deepEqual(checkDataType(type, { ...options, seed: report.seed }), report, 'a seed is a run');
  assert.throws(() => assertPassed(report), CheckError);
}

test('catches a register that keeps what it has at equal stamps', () => {
  const merge = (into: Register, delta: Register) => {
    if (delta.stamp <= into.stamp) return false;
    Object.assign(into, delta);
    return true;
  };
  caught(broken(registerType, { merge }), register, 'commutative, converges', 2);
});

test('catches a set that merges without asking what the other side has seen', () => {
  const merge = (into: SetState, delta: SetState) => {
    const before = into.entries.size + into.context.size;
    for (const [member, dots] of delta.entries) if (dots.length > 0) into.entries.set(member, dots);
    for (const [replica, stamp] of delta.context) {
      into.context.set(replica, Math.max(stamp, into.context.get(replica) ?? 0));
    }
    return into.entries.size + into.context.size > before;
  };
  caught(broken(setType, { merge }), set, 'commutative, associative, grew, idempotent, converges', 3);
});

test('catches a set that never removes, by the model only', () => {
  const mutate: typeof setType.mutate = (state, op, site) =>
    op.op === 'add' ? setType.mutate(state, op, site) : { ...setType.empty(), whole: false };
  const type = broken(setType, { mutate });
  assertPassed(checkDataType(type, { operations: set.operations, histories: 100 }));
  caught(type, set, 'model', 2);
});

test('catches a counter that adds where it should take the greatest', () => {
  const merge = (into: Counter, delta: Counter) => {
    for (const [replica, { since, p, n }] of delta.counts) {
      const own = into.counts.get(replica);
      into.counts.set(replica, {
        since,
        p: plusDecimal(own?.p ?? 0, p),
        n: plusDecimal(own?.n ?? 0, n),
      });
    }
    return delta.counts.size > 0;
  };
  caught(broken(counterType, { merge }), counter, 'idempotent, bottom, grew, commutative', 1);
});

test('catches a merge that always says that it grew, and one that never does', () => {
  const always = broken(registerType, { merge: (into, delta) => registerType.merge(into, delta) || true });
  caught(always, register, 'grew, bottom, idempotent', 1);
  const never = broken(registerType, { merge: (into, delta) => registerType.merge(into, delta) && false });
  caught(never, register, 'grew', 1);
});

test('catches a mutate that changes its state, and one that does so and then refuses', () => {
  const mutate: typeof counterType.mutate = (state, op, site) => {
    const delta = counterType.mutate(state, op, site);
    counterType.merge(state, delta);
    return delta;
  };
  caught(broken(counterType, { mutate }), counter, 'pure', 1);
  const refuse: typeof registerType.mutate = (state, op, site) => {
    const delta = registerType.mutate(state, op, site);
    if (op.value !== null) return delta;
    Object.assign(state, site);
    throw new Error('too late');
  };
  caught(broken(registerType, { mutate: refuse }), register, 'pure', 1);
});

test('catches a mutate that draws lots', () => {
  let drawn = 0;
  const mutate: typeof registerType.mutate = (_state, _op, site) => {
    drawn += 1;
    return { ...site, value: String(drawn) as ByteString };
  };
  const report = checkDataType(broken(registerType, { mutate }), register);
  assert.equal(report.failure?.law, 'pure');
  assert.equal(report.failure.counterexample.length, 1);
});

test('catches a wire form in the order of arrival', () => {
  const toWire: typeof setType.toWire = (state, writer) => {
    const context: number[] = [];
    for (const [replica, stamp] of state.context) context.push(writer.replica(replica), writer.stamp(stamp));
    return [context, ...(setType.toWire(state, writer) as unknown[]).slice(1)];
  };
  caught(broken(setType, { toWire }), set, 'canonical, round trip', 2);
});

test('catches a wire form that leaves something out, and one that no codec keeps', () => {
  const lossy = broken(registerType, {
    toWire: (state, writer) => (state.stamp === 0 ? [] : [0, writer.replica(state.replica), state.value]),
    fromWire: (wire, reader) => registerType.fromWire(wire, reader),
  });
  caught(lossy, { operations: [{ op: 'write', value: a }] }, 'grew, round trip, canonical, commutative', 2);
  const dates = broken(registerType, { toWire: (state) => [new Date(state.stamp)] });
  caught(dates, register, 'wire form', 0);
});

test('catches a wire form that loses what only a delta says', () => {
  const lossy = broken(setType, {
    toWire: (state, writer) => (setType.toWire(state, writer) as unknown[]).slice(0, 2),
    fromWire: (wire, reader) => {
      const parts = wire as unknown[];
      if (!Array.isArray(parts) || parts.length !== 2) throw new DecodeError('not a set');
      return setType.fromWire([...parts, 1], reader);
    },
  });
  // Adds alone: a removal, read as whole, would be refused at once.
  const adds = [a, b].map((member) => ({ op: 'add', members: [member] }) as const);
  caught(lossy, { operations: adds }, 'grew, converges, delta joins', 3);
});

test('catches a reader that takes anything', () => {
  const fromWire: typeof registerType.fromWire = (wire, reader) => {
    const [stamp, replica, value] = wire as [number, number, ByteString | null];
    if (stamp === undefined) return registerType.empty();
    return {
      stamp: reader.stamp(stamp),
      replica: reader.replica(replica),
      value: value === null ? null : reader.bytes(value),
    };
  };
  caught(broken(registerType, { fromWire }), register, 'decode', 1);
});

test('catches a clone that shares', () => {
  const clone = (state: Counter): Counter => ({ ...state, counts: new Map(state.counts) });
  caught(broken(counterType, { clone }), counter, 'clone, pure', 3);
});

test('catches a merge that keeps the delta, and changes it later', () => {
  const merge = (into: SetState, delta: SetState) => {
    if (into.context.size === 0 && delta.whole && delta.context.size > 0) {
      Object.assign(into, delta);
      return true;
    }
    return setType.merge(into, delta);
  };
  caught(broken(setType, { merge }), set, 'pure, clone', 4);
});

test('catches an empty state that is not empty, and one that all states share', () => {
  const full = (): Counter => ({ counts: new Map([['z', { since: 1, p: 1, n: 0 }]]), resets: new Map() });
  caught(broken(counterType, { empty: full }), counter, 'model', 1);
  const shared = counterType.empty();
  const report = checkDataType(broken(counterType, { empty: () => shared }), { ...counter, steps: 5 });
  assert.equal(report.ok, false);
});

test('catches a type that throws where it must not, and one that can do nothing', () => {
  const merge = (into: Register, delta: Register) => {
    if (into.stamp > 0 && delta.value === null) throw new Error('no');
    return registerType.merge(into, delta);
  };
  caught(broken(registerType, { merge }), register, 'total', 2);
  const mutate = () => {
    throw new Error('never');
  };
  caught(broken(registerType, { mutate }), register, 'operations', 0);
  caught(registerType, { operations: [] }, 'operations', 0);
});

test('says what to do to see it, and takes the simplest operations for that', () => {
  const merge = (into: Register, delta: Register) => {
    if (delta.stamp <= into.stamp) return false;
    Object.assign(into, delta);
    return true;
  };
  const report = checkDataType(broken(registerType, { merge }), { ...register, seed: 7 });
  assert.throws(
    () => assertPassed(report),
    (error: Error) => {
      assert.match(error.message, /^(commutative|converges): .*differ/);
      assert.match(error.message, /1\. b does \{"op":"write","value":"a"\} at 1/);
      assert.match(error.message, /of seed 7$/);
      return true;
    },
  );
});

test('draws operations from a function too', () => {
  let asked = 0;
  const report = checkDataType(counterType, {
    operations(state, chance): CounterOp | null {
      asked += 1;
      return state.counts.size > 2
        ? { op: 'reset' }
        : chance.below(4) === 0
          ? null
          : { op: 'add', by: chance.below(9) };
    },
    histories: 50,
    steps: 20,
  });
  assertPassed(report);
  assert.deepEqual(report, { ok: true, seed: 1, cases: 50 });
  assert.ok(asked > 100);
});
