/** Judges one key: does what stands natively in the store follow from its header? Pure. */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, memberDigest } from '../../crdts/digest.js';
import type { Dot } from '../../crdts/dot.js';
import { type Deadline, deadlineOf } from '../../crdts/expiry.js';
import { winningPart, winningType } from '../../crdts/key-state.js';
import { UNLOADED } from '../../crdts/register.js';
import { stringValue } from '../../crdts/string-key.js';
import type { ResolveKey } from '../replica/key-change.js';
import type { KeyRecord } from '../replica/key-record.js';
import type { NativeType } from '../store/store.js';
import type { FindingKind } from './report.js';

/** What stands natively. */
export interface Native {
  /** `other`: a type that the mesh doesn't know, written past it. */
  readonly type: NativeType | 'other';
  /** The bytes of a string. */
  readonly value: ByteString | null;
  /** Unix milliseconds; null = none. */
  readonly deadline: Deadline;
}

export interface Judgement {
  readonly kind: FindingKind;
  readonly detail: string;
}

/** A native string whose bytes stand nowhere but there: they can be compared with those of other regions. */
export interface NativeContent {
  readonly written: Dot;
  readonly value: ByteString;
}

/** Around its deadline a key is natively here or gone, as the clocks of node and Valkey have it. */
const CLOCK_SLACK_MS = 2_000;

/** What a key's native string should be: `unknown` when only the native value itself says it. Null when it is no string. */
export function expectedString(record: KeyRecord, resolve: ResolveKey): ByteString | 'unknown' | null {
  const { state, key } = record;
  switch (winningPart(state)) {
    case 'string': {
      if (state.string!.register.value === UNLOADED) return 'unknown';
      return stringValue(state.string!);
    }
    case 'values':
      return resolve(key, state.values!);
    default:
      return null;
  }
}

/**
 * What is wrong with a key whose header was read at the same time as its native value; the members of a set are compared
 * elsewhere. `record` must hold nothing but what the header says.
 */
export function judgeKey(record: KeyRecord, native: Native, nowMs: number, resolve: ResolveKey): Judgement[] {
  const type = winningType(record.state);
  const deadline = deadlineOf(record.state.expiry);
  if (type === 'none') {
    if (native.type === 'none') return [];
    return [
      { kind: 'unreplicated', detail: `a native ${nameOf(native.type)}; its header says that it is gone` },
    ];
  }
  const isAround = (moment: Deadline) => moment !== null && moment <= nowMs + CLOCK_SLACK_MS;
  if (isAround(deadline)) {
    // Long past: natively it would be gone, were the deadline there too.
    if (native.type === 'none' || deadline! > nowMs - CLOCK_SLACK_MS) return [];
    return [
      { kind: 'expiry differs', detail: `natively ${say(native.deadline)}, by its header ${say(deadline)}` },
    ];
  }
  if (native.type === 'none') return [{ kind: 'native missing', detail: `its header says: a ${type}` }];
  const found: Judgement[] = [];
  if (native.type !== type)
    return [
      {
        kind: 'native of another type',
        detail: `natively a ${nameOf(native.type)}, by its header a ${type}`,
      },
    ];
  if (type === 'string') {
    const expected = expectedString(record, resolve);
    if (expected !== 'unknown' && expected !== native.value)
      found.push({
        kind: 'native differs',
        detail: `${native.value?.length ?? 0} bytes that are not the ${expected?.length ?? 0} bytes of its header`,
      });
  }
  if (native.deadline !== deadline)
    found.push({
      kind: 'expiry differs',
      detail: `natively ${say(native.deadline)}, by its header ${say(deadline)}`,
    });
  return found;
}

/** The native content of a key, where it stands nowhere else. */
export function contentOf(record: KeyRecord, native: Native, resolve: ResolveKey): NativeContent | null {
  if (native.type !== 'string' || native.value === null) return null;
  if (expectedString(record, resolve) !== 'unknown') return null;
  const { stamp, replica } = record.state.string!.register;
  return { written: { stamp, replica }, value: native.value };
}

/** A hash of native content, below 2^48: equal where key, write and bytes are. */
export function contentDigest(key: ByteString, { written, value }: NativeContent): number {
  return addDigests(memberDigest(key, value, [written]), 1);
}

function nameOf(type: Native['type']): string {
  return type === 'other' ? 'value of a type that is not replicated' : type;
}

function say(deadline: Deadline): string {
  return deadline === null ? 'no expiry' : `expires at ${new Date(deadline).toISOString()}`;
}
