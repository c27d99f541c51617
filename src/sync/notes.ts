/**
 * Notes: what must still be known of the mesh after a restart, stored beside the data (Store.saveNotes).
 *
 * They belong to the data, not to a node: when one node on a store has forgotten a tombstone, no other one there can give it any more,
 * and so must name the floor with what it gives, and judge by it. So nodes that share a store share them, and what one adds is joined with
 * what stands there ({@link joinNotes}: commutative, associative, idempotent; shared-notes.ts does it). What is a node's own, the epoch in which
 * it began to use the data, stands with its identity.
 *
 * Positional: [version, floor, members, forgotten]. They are one value, so they change together.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { asArray } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { packBytes, unpackBytes } from '../replica/msgpack.js';
import {
  count,
  type Forgotten,
  floorFromWire,
  floorToWire,
  forgottenFromWire,
  forgottenToWire,
  MAX_FORGOTTEN,
  MAX_MEMBERS,
  membersFromWire,
} from './messages.js';

export interface Notes {
  /** What all members had applied when something was last forgotten here: replica → number. */
  readonly floor: ReadonlyMap<ReplicaId, number>;
  /** The members that count when it is judged what all have applied, with the epochs in which their data began; 0 = not known. */
  readonly members: readonly Forgotten[];
  readonly forgotten: readonly Forgotten[];
}

/** Nothing is known. */
export const NO_NOTES: Notes = { floor: new Map(), members: [], forgotten: [] };

const VERSION = 2;

/** Equal notes make equal bytes. */
export function encodeNotes(notes: Notes): ByteString {
  const { floor, members, forgotten } = joinNotes(notes, NO_NOTES);
  return packBytes([VERSION, floorToWire(floor), forgottenToWire(members), forgottenToWire(forgotten)]);
}

/**
 * Reads notes; those of an earlier release tell the epoch in which the one node's data began, too (`born`, else null). Throws DecodeError
 * when the bytes are no notes, or those of a newer release.
 */
export function decodeNotes(bytes: ByteString): Notes & { readonly born: number | null } {
  const parts = asArray(unpackBytes(bytes), 'notes');
  if (parts[0] === 1 && parts.length === 5) {
    const [, born, floor, members, forgotten] = parts;
    return {
      born: count(born),
      floor: floorFromWire(floor),
      members: membersFromWire(members).map((peerId) => ({ peerId, born: 0 })),
      forgotten: forgottenFromWire(forgotten),
    };
  }
  if (parts[0] !== VERSION || parts.length !== 4)
    throw new DecodeError("this store's notes are damaged, or were written by a newer release");
  const [, floor, members, forgotten] = parts;
  return {
    born: null,
    floor: floorFromWire(floor),
    members: forgottenFromWire(members, MAX_MEMBERS),
    forgotten: forgottenFromWire(forgotten),
  };
}

/** Joins two notes: the greater number of each replica; and of a member, whatever says the later epoch: that it is one, or was forgotten. */
export function joinNotes(a: Notes, b: Notes): Notes {
  const floor = joinNumbers(a.floor, b.floor);
  const forgotten = joinNumbers(epochs(a.forgotten), epochs(b.forgotten));
  const members = joinNumbers(epochs(a.members), epochs(b.members));
  for (const [peerId, born] of members) {
    const bound = forgotten.get(peerId);
    if (bound === undefined) continue;
    if (born > bound) forgotten.delete(peerId);
    else members.delete(peerId);
  }
  const latest = [...forgotten].sort(([p, x], [q, y]) => y - x || (p < q ? -1 : 1)).slice(0, MAX_FORGOTTEN);
  return {
    floor,
    members: sorted(members).slice(0, MAX_MEMBERS),
    forgotten: sorted(latest),
  };
}

function epochs(list: readonly Forgotten[]): Map<string, number> {
  return new Map(list.map(({ peerId, born }) => [peerId, born]));
}

function sorted(entries: Iterable<readonly [string, number]>): Forgotten[] {
  return [...entries].sort(([p], [q]) => (p < q ? -1 : 1)).map(([peerId, born]) => ({ peerId, born }));
}

/** The greater number of each name, sorted by name. */
function joinNumbers(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): Map<string, number> {
  const joined = new Map<string, number>();
  for (const name of [...new Set([...a.keys(), ...b.keys()])].sort())
    joined.set(name, Math.max(a.get(name) ?? 0, b.get(name) ?? 0));
  return joined;
}
