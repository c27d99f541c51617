/** Whole keys as clients use them: what each command changes, as one delta of the key. */
import {
  appendKeyDelta,
  type ByteString,
  bodyDigest,
  cloneKeyState,
  type Deadline,
  type Decimal,
  type ExpiryOp,
  emptyKeyState,
  expiryType,
  type Fraction,
  type Integer,
  incremented,
  incrementedFloat,
  isExpired,
  type KeyState,
  mergeKeyState,
  readKeyState,
  type SetOp,
  type Site,
  type StringOp,
  setType,
  stringType,
  stringValue,
  visibleType,
  WireReader,
  WireWriter,
  winningType,
  writeKeyState,
} from '../../crdts/index.js';
import { packr, type Subject } from './crdt-history.js';
import type { Random } from './crdt-runs.js';

export type Command =
  | { readonly op: 'SET'; readonly value: ByteString; readonly keepTtl?: boolean }
  | { readonly op: 'INCRBY'; readonly by: Integer }
  | { readonly op: 'INCRBYFLOAT'; readonly by: Decimal }
  | { readonly op: 'SADD' | 'SREM'; readonly members: readonly ByteString[] }
  | { readonly op: 'DEL' }
  | { readonly op: 'PEXPIREAT'; readonly at: Deadline };

const onString = (state: KeyState, op: StringOp, site: Site) =>
  stringType.mutate(state.string ?? stringType.empty(), op, site);
const onSet = (state: KeyState, op: SetOp, site: Site) =>
  setType.mutate(state.set ?? setType.empty(), op, site);
const onExpiry = (state: KeyState, op: ExpiryOp, site: Site) =>
  expiryType.mutate(state.expiry ?? expiryType.empty(), op, site);

/** The delta of a command. Says nothing of types: who sends the wrong command gets a key with two. */
export function commandDelta(state: KeyState, command: Command, site: Site): KeyState {
  const delta = emptyKeyState();
  delta.touched = site.stamp;
  switch (command.op) {
    case 'SET':
      delta.string = onString(state, { op: 'write', value: command.value }, site);
      if (state.set !== null) delta.set = onSet(state, { op: 'clear' }, site);
      if (state.expiry !== null && !command.keepTtl) delta.expiry = onExpiry(state, { op: 'clear' }, site);
      break;
    case 'DEL':
      if (state.string !== null) delta.string = onString(state, { op: 'delete' }, site);
      if (state.set !== null) delta.set = onSet(state, { op: 'clear' }, site);
      if (state.expiry !== null) delta.expiry = onExpiry(state, { op: 'clear' }, site);
      break;
    case 'INCRBY':
      delta.string = onString(state, { op: 'add', by: command.by }, site);
      break;
    case 'INCRBYFLOAT':
      delta.string = onString(state, { op: 'addFloat', by: command.by }, site);
      break;
    case 'SADD':
      delta.set = onSet(state, { op: 'add', members: command.members }, site);
      break;
    case 'SREM':
      delta.set = onSet(state, { op: 'remove', members: command.members }, site);
      break;
    case 'PEXPIREAT':
      delta.expiry = onExpiry(state, { op: 'write', value: command.at }, site);
      break;
  }
  return delta;
}

/** As {@link commandDelta}, at a time: what has expired is deleted first, in the same delta. Takes two stamps. */
export function commandDeltaAt(state: KeyState, command: Command, nowMs: number, next: () => Site): KeyState {
  if (!isExpired(state, nowMs)) return commandDelta(state, command, next());
  const delta = commandDelta(state, { op: 'DEL' }, next());
  const cleared = cloneKeyState(state);
  mergeKeyState(cleared, delta);
  appendKeyDelta(delta, commandDelta(cleared, command, next()));
  return delta;
}

export const MEMBERS = ['a', 'b', 'c', 'dd', '\xff\x00', ''] as ByteString[];
const VALUES = ['', '0', '7', '-12', '3.0', '-.25', '9007199254740993', 'abc', '\x80\xff'] as ByteString[];
export const STEPS: readonly Integer[] = [1, 2, -1, -3, 10, Number.MAX_SAFE_INTEGER, -9007199254740993n];

export const FLOAT_STEPS = ['0.1', '-0.3', '2.5', '-0.00000000000000001', '12345678.125'] as Fraction[];

export function anyValue(random: Random): ByteString {
  return random.pick(VALUES);
}

function canAdd(state: KeyState, command: Extract<Command, { by: unknown }>): boolean {
  const current = state.string && stringValue(state.string);
  try {
    if (command.op === 'INCRBYFLOAT') incrementedFloat(current, command.by);
    else incremented(current, command.by);
    return true;
  } catch {
    return false;
  }
}

/** A command that a client could send: the type that it sees, or none. */
export function anyCommand(state: KeyState, random: Random): Command | null {
  const type = winningType(state);
  const choice = random.below(12);
  if (choice < 2) return { op: 'SET', value: anyValue(random), keepTtl: random.chance(30) };
  if (choice < 3) return { op: 'DEL' };
  if (choice < 5) {
    if (type === 'none') return null;
    return { op: 'PEXPIREAT', at: random.chance(25) ? null : random.below(1e9) };
  }
  if (type === 'string' || (type === 'none' && choice < 8)) {
    const command: Extract<Command, { by: unknown }> = random.chance(35)
      ? { op: 'INCRBYFLOAT', by: random.pick<Decimal>([...FLOAT_STEPS, ...STEPS]) }
      : { op: 'INCRBY', by: random.pick(STEPS) };
    return canAdd(state, command) ? command : null;
  }
  return { op: random.chance(60) ? 'SADD' : 'SREM', members: random.some(MEMBERS, 3) };
}

/** A key, through msgpack, as a frame would carry it. */
export const keySubject: Subject<KeyState, Command> = {
  name: 'key',
  empty: emptyKeyState,
  generate: anyCommand,
  mutate: commandDelta,
  merge: mergeKeyState,
  append: appendKeyDelta,
  clone: cloneKeyState,
  encode(state) {
    const writer = new WireWriter(state.touched);
    const body: unknown[] = [];
    writeKeyState(state, writer, body);
    return packr.pack([state.touched, writer.replicas, ...body]).toString('latin1');
  },
  decode(bytes) {
    const wire = packr.unpack(Buffer.from(bytes, 'latin1')) as unknown[];
    const touched = wire[0] as number;
    return readKeyState(wire, 2, touched, new WireReader(touched, wire[1], 1000));
  },
};

export { bodyDigest, visibleType };
