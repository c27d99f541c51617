/**
 * Wire form of a key's state or delta: [tag, body, tag, body, …], in the order of the tags. `touched` isn't part of it:
 * it is the stamp of the frame that carries the delta, the base of all stamps inside.
 */
import { DecodeError } from './errors.js';
import { type ExpiryState, expiryType } from './expiry.js';
import type { KeyState } from './key-state.js';
import { type SetState, setType } from './or-set.js';
import { type ValuesState, valuesType } from './policy.js';
import type { Stamp } from './stamp.js';
import { type StringState, stringType } from './string-key.js';
import type { WireReader, WireWriter } from './wire.js';

const STRING_TAG = 1;
const SET_TAG = 2;
const EXPIRY_TAG = 3;
const VALUES_TAG = 4;

// A sub-state that is empty says what no sub-state says; one of the two forms had to go.
const isStringEmpty = (state: StringState) => state.register.stamp === 0 && state.counter === null;
const isSetEmpty = (state: SetState) => state.context.size === 0 && state.entries.size === 0;
const isExpiryEmpty = (state: ExpiryState) => state.context.size === 0;
const isValuesEmpty = (state: ValuesState) => state.context.size === 0;

/** Appends a key's sub-states to a wire form, but for empty ones. */
export function writeKeyState(state: KeyState, writer: WireWriter, out: unknown[]): void {
  const { string, set, expiry, values } = state;
  if (string !== null && !isStringEmpty(string)) out.push(STRING_TAG, stringType.toWire(string, writer));
  if (set !== null && !isSetEmpty(set)) out.push(SET_TAG, setType.toWire(set, writer));
  if (expiry !== null && !isExpiryEmpty(expiry)) out.push(EXPIRY_TAG, expiryType.toWire(expiry, writer));
  if (values !== null && !isValuesEmpty(values)) out.push(VALUES_TAG, valuesType.toWire(values, writer));
}

/** Reads what {@link writeKeyState} wrote, from a position on. Throws DecodeError on anything else. */
export function readKeyState(
  wire: readonly unknown[],
  from: number,
  touched: Stamp,
  reader: WireReader,
): KeyState {
  let string: StringState | null = null;
  let set: SetState | null = null;
  let values: ValuesState | null = null;
  let expiry: ExpiryState | null = null;
  if ((wire.length - from) % 2 !== 0) throw new DecodeError('a key does not consist of tags and bodies');
  let last = 0;
  for (let i = from; i < wire.length; i += 2) {
    const tag = wire[i];
    if (typeof tag !== 'number' || tag <= last) throw new DecodeError('the tags of a key are not in order');
    last = tag;
    const body = wire[i + 1];
    if (tag === STRING_TAG) string = required(stringType.fromWire(body, reader), isStringEmpty);
    else if (tag === SET_TAG) set = required(setType.fromWire(body, reader), isSetEmpty);
    else if (tag === EXPIRY_TAG) expiry = required(expiryType.fromWire(body, reader), isExpiryEmpty);
    else if (tag === VALUES_TAG) values = required(valuesType.fromWire(body, reader), isValuesEmpty);
    else
      throw new DecodeError(
        `unknown data type ${tag}: this node is older than its peer, or the peer is broken`,
      );
  }
  return { touched, string, set, values, expiry };
}

function required<State>(state: State, isEmpty: (state: State) => boolean): State {
  if (isEmpty(state)) throw new DecodeError('an empty sub-state of a key is not canonical');
  return state;
}
