/** Conflicts: which concurrent write lost, to which, and why. Reported, never decided here: the joins decide. */
import type { ByteString } from '../../crdts/bytes.js';
import { compareDots, type Dot, type ReplicaId } from '../../crdts/dot.js';
import type { FrameHead } from '../../crdts/frame-wire.js';
import { type KeyState, liveParts } from '../../crdts/key-state.js';
import { isSetLive, lastSetWrite } from '../../crdts/or-set.js';
import { lastValuesWrite, siblingsOf } from '../../crdts/policy.js';
import { type Register, UNLOADED } from '../../crdts/register.js';
import { isStringLive, lastStringWrite, stringValue } from '../../crdts/string-key.js';
import { covers, mergeVectors, type VersionVector } from '../../crdts/version-vector.js';
import type { KeyRules } from './key-rules.js';

/** One side of a conflict. */
export interface ConflictSide extends Dot {
  /** What was written; null = a deletion; undefined = a set, or not known any more. */
  readonly value: ByteString | null | undefined;
}

/** Two regions wrote a key concurrently, and one write was lost. */
export interface Conflict {
  readonly key: ByteString;
  readonly winner: ConflictSide;
  readonly loser: ConflictSide;
  /**
   * 'later': the winner's stamp is greater. 'replica': the stamps are equal, the winner's replica id is greater.
   * 'policy': the key's policy chose, and may choose anew when it reads; both values are kept until a write has seen them.
   * 'type': one made it a set, the other a string; the type that was written last is visible, the other is kept until the next SET or DEL.
   */
  readonly reason: 'later' | 'replica' | 'policy' | 'type';
}

/** Follows what each replica had applied when it made its frames, as far as this node knows. */
export class Knowledge {
  readonly #seen = new Map<ReplicaId, VersionVector>();

  /** Takes in a frame that is applied now; frames of one replica come in their order. */
  learn(frame: FrameHead): void {
    const seen = this.#seen.get(frame.replica);
    if (frame.full) this.#seen.set(frame.replica, new Map(frame.deps));
    else if (seen !== undefined) mergeVectors(seen, frame.deps);
  }

  /** Forgets all: what comes next may not join on to what was known. */
  clear(): void {
    this.#seen.clear();
  }

  /** Says whether a replica had surely *not* seen a dot when it made its latest frame. */
  hadNotSeen(replica: ReplicaId, dot: Dot): boolean {
    const seen = this.#seen.get(replica);
    return seen !== undefined && replica !== dot.replica && !covers(seen, dot.replica, dot.stamp);
  }
}

/** Finds the conflict that merging a frame's delta into a key is about to settle, if there is one. */
export function findConflict(
  key: ByteString,
  local: KeyState,
  delta: KeyState,
  from: ReplicaId,
  knowledge: Knowledge,
): Conflict | null {
  const mine = local.string?.register;
  const theirs = delta.string?.register;
  if (mine === undefined || theirs === undefined || mine.stamp === 0 || theirs.stamp === 0) return null;
  const order = compareDots(mine, theirs);
  // A register that another replica wrote travels along with EXPIRE: no write of the sender's.
  if (order === 0 || theirs.replica !== from || !knowledge.hadNotSeen(from, mine)) return null;
  const [winner, loser] = order > 0 ? [mine, theirs] : [theirs, mine];
  return {
    key,
    winner: side(winner),
    loser: side(loser),
    reason: mine.stamp === theirs.stamp ? 'replica' : 'later',
  };
}

/** Finds the conflict that a frame's value brought to a key whose concurrent writes are kept: call it after the merge. */
export function findSiblings(
  key: ByteString,
  merged: KeyState,
  delta: KeyState,
  rules: KeyRules,
): Conflict | null {
  const { values } = merged;
  if (delta.values === null || values === null || values.siblings.size < 2) return null;
  const sides = siblingsOf(values).map(
    ({ replica, stamp, value }): ConflictSide => ({ replica, stamp, value }),
  );
  const news = sides.find(({ replica, stamp }) => delta.values!.siblings.get(replica)?.stamp === stamp);
  if (news === undefined) return null;
  const visible = rules.resolve(key, values);
  const winner = sides.find(({ value }) => value === visible) ?? sides.at(-1)!;
  const loser = news !== winner ? news : sides.find((other) => other !== winner)!;
  return { key, winner, loser, reason: 'policy' };
}

/** Says whether a key is a set and a string at once: of two regions that made it so, one is visible. */
export function hasTwoTypes(state: KeyState): boolean {
  // The usual key has one sub-state: no need to look closer.
  if (state.set === null || (state.string === null && state.values === null)) return false;
  return isSetLive(state.set) && liveParts(state).length > 1;
}

/** What to report of a key that has become a set and a string at once. */
export function typeConflict(key: ByteString, { string, set, values }: KeyState, rules: KeyRules): Conflict {
  const sides: ConflictSide[] = [{ ...lastSetWrite(set!), value: undefined }];
  if (string !== null && isStringLive(string))
    sides.push({ ...lastStringWrite(string), value: stringValue(string) });
  else if (values !== null) sides.push({ ...lastValuesWrite(values), value: rules.resolve(key, values) });
  const [loser, winner] = sides.sort(compareDots);
  return { key, winner: winner!, loser: loser!, reason: 'type' };
}

function side(register: Register): ConflictSide {
  const value = register.value === UNLOADED ? undefined : register.value;
  return { stamp: register.stamp, replica: register.replica, value };
}
