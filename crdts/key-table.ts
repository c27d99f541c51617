/** The keys of a document and their states: plain writes as long as that is all there is to a key, key states otherwise. */
import type { ByteString } from './bytes.js';
import { cloneKeyState, type KeyState, mergeKeyState } from './key-state.js';
import type { SetState } from './or-set.js';
import { keyStateOf, PlainWrite, replacesWrite } from './plain-write.js';
import type { Stamp } from './stamp.js';

/** A key's delta. */
export type Delta = PlainWrite | readonly [ByteString, KeyState];

type States = Map<ByteString, KeyState | PlainWrite>;

/** Key → state. */
export class KeyTable {
  readonly #states: States = new Map();

  /** A key's state, to be looked at and not changed; undefined when the key was never written. */
  get(key: ByteString): KeyState | undefined {
    const state = this.#states.get(key);
    return state instanceof PlainWrite ? keyStateOf(state) : state;
  }

  /** All keys with their states, to be looked at and not changed. */
  *[Symbol.iterator](): Generator<[ByteString, KeyState]> {
    for (const [key, state] of this.#states)
      yield [key, state instanceof PlainWrite ? keyStateOf(state) : state];
  }

  /** Joins a delta or a state into a key, and may keep it; says whether the key grew. */
  join(key: ByteString, delta: KeyState): boolean {
    return joinState(this.#states, key, delta);
  }

  /** Joins deltas and plain writes into their keys, and may keep them; adds the keys that grew to a list, where there is one. */
  joinAll(deltas: readonly Delta[], grown: ByteString[] | null): void {
    joinDeltas(this.#states, deltas, grown);
  }

  /** Joins a delta that its owner keeps: it is copied. */
  joinCopy(key: ByteString, delta: KeyState): boolean {
    return this.join(key, this.#states.has(key) ? delta : cloneKeyState(delta));
  }

  /** Sets the stamp of the last frame that touched a key. */
  touch(key: ByteString, stamp: Stamp): void {
    const before = this.#states.get(key)!;
    const state = before instanceof PlainWrite ? keyStateOf(before) : before;
    state.touched = stamp;
    this.#states.set(key, state);
  }
}

// Plain functions: V8 drops code that was optimized for a class when its last instance goes, here with each document.

function joinDeltas(states: States, deltas: readonly Delta[], grown: ByteString[] | null): void {
  for (const delta of deltas) {
    if (delta instanceof PlainWrite) {
      if (joinWrite(states, delta)) grown?.push(delta.key);
    } else if (joinState(states, delta[0], delta[1])) grown?.push(delta[0]);
  }
}

/** Joins a plain write into its key; says whether the key grew. */
function joinWrite(states: States, write: PlainWrite): boolean {
  const before = states.get(write.key);
  if (before !== undefined && !(before instanceof PlainWrite && replacesWrite(write, before)))
    return joinState(states, write.key, keyStateOf(write));
  states.set(write.key, write);
  return true;
}

function joinState(states: States, key: ByteString, delta: KeyState): boolean {
  const before = states.get(key);
  if (before === undefined) {
    states.set(key, stateOf(delta));
    return true;
  }
  if (!(before instanceof PlainWrite)) return mergeKeyState(before, delta);
  const state = keyStateOf(before);
  if (!mergeKeyState(state, delta)) return false;
  states.set(key, state);
  return true;
}

/** Makes a delta the state of a key that had none. A delta that isn't part of a set is a state as it stands. */
function stateOf(delta: KeyState): KeyState {
  if (delta.set !== null && !delta.set.whole) complete(delta.set);
  return delta;
}

/** Turns what a delta says of some members into the whole set, where nothing else was ever seen: members with dots are there. */
function complete(set: SetState): void {
  for (const [member, dots] of set.entries) if (dots.length === 0) set.entries.delete(member);
  set.whole = true;
  set.size = set.entries.size;
}
