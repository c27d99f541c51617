/**
 * Explanations: what a key's state says about how it came to be, as plain JSON for people and tools. What each
 * replica contributed, which write won and why, which type is hidden, which deadline holds.
 *
 * It tells what the state still knows. A value that was overwritten is gone, and so is a write that lost: of it, its context
 * or its counts remain at most.
 */
import { type ByteString, isAscii, text, toUint8Array } from './bytes.js';
import { type Counter, counterValue, uncovered } from './counter.js';
import { formatDecimal, minusDecimal, parseDecimal } from './decimal.js';
import type { Dot, ReplicaId } from './dot.js';
import { deadlineOf, type ExpiryState } from './expiry.js';
import type {
  ExplainedCount,
  ExplainedDot,
  ExplainedExpiry,
  ExplainedKey,
  ExplainedSet,
  ExplainedString,
  ExplainedValues,
  Readable,
} from './explanation.js';
import {
  isExpired,
  type KeyState,
  liveParts,
  type PartName,
  type VisibleType,
  visibleType,
  winningType,
} from './key-state.js';
import { isSetLive, lastSetWrite, type SetState } from './or-set.js';
import { hasValues, lastValuesWrite, siblingsOf, type ValuesState } from './policy.js';
import { type Register, UNLOADED } from './register.js';
import { stampMs } from './stamp.js';
import { isStringLive, lastStringWrite, type StringState, stringValue } from './string-key.js';
import { compareBytes } from './wire.js';

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Shows bytes to people, up to a number of characters. */
export function readable(value: ByteString, limit = 1024): Readable {
  const cut = value.length > limit ? { cutFrom: value.length } : {};
  const asText = decodePrintable(value);
  if (asText !== null) return { text: asText.slice(0, limit), ...cut };
  const hex = (byte: string) => `\\x${byte.charCodeAt(0).toString(16).padStart(2, '0')}`;
  return { escaped: value.slice(0, limit).replace(/[^ -[\]-~]/g, hex), ...cut };
}

function decodePrintable(value: ByteString): string | null {
  try {
    const decoded = isAscii(value) ? value : strict.decode(toUint8Array(value));
    return /\p{Cc}/u.test(decoded) ? null : decoded;
  } catch {
    return null;
  }
}

/**
 * Explains a key at a Unix time in milliseconds. Reads only what is loaded, and changes nothing.
 *
 * @param options.limit the greatest number of set members that are listed. Default: 100
 */
export function explainKey(state: KeyState, nowMs: number, options: { limit?: number } = {}): ExplainedKey {
  const type = visibleType(state, nowMs);
  const [shown, ...hidden] = liveParts(state);
  return {
    type,
    hidden,
    why: explainType(state, type, shown, hidden[0], nowMs),
    touched: state.touched === 0 ? null : { stamp: state.touched, time: iso(stampMs(state.touched)) },
    string: state.string && explainString(state.string),
    set: state.set && explainSet(state.set, options.limit ?? 100),
    values: state.values && explainValues(state.values),
    expiry: state.expiry && explainExpiry(state, state.expiry, nowMs),
  };
}

function explainType(
  state: KeyState,
  type: VisibleType,
  shown: PartName | undefined,
  hidden: PartName | undefined,
  nowMs: number,
): string {
  if (shown === undefined) return 'nothing is there: never written, or removed by all that saw it';
  if (type === 'none')
    return `a ${winningType(state)} whose deadline passed at ${iso(deadlineOf(state.expiry) ?? nowMs)}`;
  if (hidden === undefined) return `a ${type}, and nothing else`;
  const last = (part: PartName) => name(LAST_WRITE[part](state));
  return `two types were written concurrently: the ${shown} by ${last(shown)} comes after the ${hidden} by ${last(hidden)}; the next DEL clears both`;
}

const LAST_WRITE: Record<PartName, (state: KeyState) => Dot> = {
  string: (state) => lastStringWrite(state.string!),
  set: (state) => lastSetWrite(state.set!),
  values: (state) => lastValuesWrite(state.values!),
};

function explainValues(state: ValuesState): ExplainedValues {
  const siblings = siblingsOf(state).map(({ value, region, replica, stamp }) => ({
    ...dotOf({ replica, stamp }),
    value: readable(value),
    region: text(region as ByteString),
  }));
  return {
    live: hasValues(state),
    siblings,
    why:
      siblings.length === 0
        ? 'a DEL observed every write'
        : siblings.length === 1
          ? 'one write is in force'
          : 'written concurrently: the policy of the key chooses when it is read',
  };
}

function explainString(state: StringState): ExplainedString {
  const { register, counter } = state;
  const counts = counter === null ? [] : explainCounts(counter);
  const alive = counter?.counts.size ?? 0;
  const unloaded = register.value === UNLOADED;
  const base = typeof register.value === 'string' ? parseDecimal(register.value) : 0;
  const countsApplied = alive > 0 && !unloaded && base !== null;
  const value = unloaded ? UNLOADED : stringValue(state);
  return {
    live: isStringLive(state),
    value: value === null ? null : bytes(value),
    winner:
      register.stamp === 0
        ? null
        : {
            ...dotOf(register),
            write: register.value === null ? 'delete' : 'set',
            value: register.value === null ? null : bytes(register.value),
          },
    counts,
    counted: formatDecimal(counter === null ? 0 : counterValue(counter)),
    countsApplied,
    why: explainWinner(register, alive, countsApplied, unloaded),
  };
}

function explainWinner(register: Register, counts: number, applied: boolean, unloaded: boolean): string {
  const write =
    register.stamp === 0
      ? 'no SET or DEL was seen'
      : `the ${register.value === null ? 'DEL' : 'SET'} by ${name(register)} has the greatest (stamp, replica)`;
  if (counts === 0) return write;
  const increments = `increments of ${counts} replica${counts === 1 ? '' : 's'} that no SET or DEL observed`;
  if (unloaded) return `${write}; ${increments} stand beside a value that is not loaded`;
  return applied
    ? `${write}; ${increments} are added to it`
    : `${write}; ${increments} are kept aside, since it is not a number`;
}

function explainCounts(counter: Counter): ExplainedCount[] {
  // Of a count that was cancelled as a whole, the reset is what is left.
  const all = [...new Map([...counter.resets, ...counter.counts])].sort(byReplica);
  return all.map(([replica, count]) => {
    const left = uncovered(counter, replica);
    const total = minusDecimal(count.p, count.n);
    const counts = minusDecimal(left.p, left.n);
    return {
      replica,
      since: dotOf({ replica, stamp: count.since }),
      increments: formatDecimal(count.p),
      decrements: formatDecimal(count.n),
      cancelled: formatDecimal(minusDecimal(total, counts)),
      counts: formatDecimal(counts),
    };
  });
}

function explainSet(state: SetState, limit: number): ExplainedSet {
  const present = [...state.entries].filter(([, dots]) => dots.length > 0);
  const listed = present.sort((a, b) => compareBytes(a[0], b[0])).slice(0, limit);
  const seen = [...state.context].sort(byReplica).map(([replica, stamp]) => dotOf({ replica, stamp }));
  return {
    live: isSetLive(state),
    size: state.size,
    whole: state.whole,
    members: listed.map(([member, dots]) => ({ member: readable(member), addedBy: dots.map(dotOf) })),
    more: present.length - listed.length,
    seen,
    why: isSetLive(state)
      ? 'a member is in as long as one of its adds was observed by no SREM or DEL'
      : 'every add that was seen here was observed by an SREM or DEL',
  };
}

function explainExpiry(key: KeyState, state: ExpiryState, nowMs: number): ExplainedExpiry {
  const deadline = deadlineOf(state);
  const candidates = [...state.siblings].sort(byReplica).map(([replica, { stamp, value }]) => ({
    ...dotOf({ replica, stamp }),
    deadline: value === null ? null : iso(value),
    holds: value === deadline,
  }));
  return {
    deadline: deadline === null ? null : iso(deadline),
    expired: isExpired(key, nowMs),
    candidates,
    why:
      candidates.length === 0
        ? 'no deadline: a later SET, DEL or PERSIST removed what there was'
        : candidates.length === 1
          ? 'the last one that was given holds'
          : 'given concurrently: the longest holds, and none is longer than any',
  };
}

function bytes(value: ByteString | typeof UNLOADED): Readable {
  return value === UNLOADED ? { unloaded: true } : readable(value);
}

function dotOf({ replica, stamp }: Dot): ExplainedDot {
  return { replica, stamp, time: iso(stampMs(stamp)) };
}

function name(dot: Dot): string {
  return `${dot.replica} at ${iso(stampMs(dot.stamp))}`;
}

function iso(unixMs: number): string {
  return new Date(unixMs).toISOString();
}

function byReplica(a: readonly [ReplicaId, unknown], b: readonly [ReplicaId, unknown]): number {
  return compareBytes(a[0], b[0]);
}
