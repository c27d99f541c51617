/** The data types with a generator of operations each. A new type is one more entry: the laws come for free. */
import {
  type ByteString,
  counterType,
  type Decimal,
  expiryType,
  incremented,
  incrementedFloat,
  multiValueType,
  registerType,
  type StringOp,
  type StringState,
  setType,
  stringType,
  stringValue,
  valuesType,
} from '../../crdts/index.js';
import { subjectOf } from './crdt-history.js';
import { anyValue, FLOAT_STEPS, MEMBERS, STEPS } from './crdt-keys.js';
import type { Random } from './crdt-runs.js';

export const registerSubject = subjectOf(registerType, (_state, random) => ({
  op: 'write' as const,
  value: random.chance(25) ? null : anyValue(random),
}));

export const counterSubject = subjectOf(counterType, (_state, random) =>
  random.chance(25)
    ? { op: 'reset' as const }
    : { op: 'add' as const, by: random.pick([...STEPS, ...FLOAT_STEPS]) },
);

/** What a client could send next: INCRBY, INCRBYFLOAT, or neither. */
function anyAdd(state: StringState, random: Random): StringOp | null {
  const float = random.chance(40);
  const op: StringOp = float
    ? { op: 'addFloat', by: random.pick<Decimal>([...STEPS, ...FLOAT_STEPS]) }
    : { op: 'add', by: random.pick(STEPS) };
  try {
    if (op.op === 'addFloat') incrementedFloat(stringValue(state), op.by);
    else incremented(stringValue(state), op.by);
    return op;
  } catch {
    return null;
  }
}

export const stringSubject = subjectOf(stringType, (state, random) => {
  if (random.chance(25)) return { op: 'write' as const, value: anyValue(random) };
  if (random.chance(20)) return { op: 'delete' as const };
  return anyAdd(state, random);
});

export const setSubject = subjectOf(setType, (_state, random) => {
  if (random.chance(8)) return { op: 'clear' as const };
  return { op: random.chance(60) ? ('add' as const) : ('remove' as const), members: random.some(MEMBERS, 3) };
});

export const multiValueSubject = subjectOf(
  multiValueType<ByteString>(
    'multi-value',
    (value, writer) => writer.bytes(value),
    (wire, reader) => reader.bytes(wire),
  ),
  (_state, random) =>
    random.chance(20) ? { op: 'clear' as const } : { op: 'write' as const, value: anyValue(random) },
);

export const expirySubject = subjectOf(expiryType, (_state, random) => {
  if (random.chance(20)) return { op: 'clear' as const };
  return { op: 'write' as const, value: random.chance(25) ? null : random.below(1e9) };
});

export const valuesSubject = subjectOf(valuesType, (_state, random) => {
  if (random.chance(20)) return { op: 'clear' as const };
  const region = random.pick(['eu', 'us'] as ByteString[]);
  return { op: 'write' as const, value: { bytes: anyValue(random), region } };
});
