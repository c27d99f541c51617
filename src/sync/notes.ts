/**
 * Notes: what a node must still know of the mesh after a restart, stored beside its data (Store.saveNotes).
 *
 * Positional: [version, born, floor, members, forgotten]. They are one value, so they change together.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { asArray } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import { packBytes, unpackBytes } from '../replica/msgpack.js';
import {
  count,
  type Forgotten,
  floorFromWire,
  floorToWire,
  forgottenFromWire,
  forgottenToWire,
  membersFromWire,
} from './messages.js';

export interface Notes {
  /** The epoch in which this node's data began. */
  readonly born: number;
  /** What all members had applied when something was last forgotten here: replica → number. */
  readonly floor: ReadonlyMap<ReplicaId, number>;
  /** The members that count when it is judged what all have applied. */
  readonly members: readonly PeerId[];
  readonly forgotten: readonly Forgotten[];
}

const VERSION = 1;

export function encodeNotes({ born, floor, members, forgotten }: Notes): ByteString {
  return packBytes([VERSION, born, floorToWire(floor), members, forgottenToWire(forgotten)]);
}

/** Throws DecodeError when the bytes are no notes, or those of a newer release. */
export function decodeNotes(bytes: ByteString): Notes {
  const parts = asArray(unpackBytes(bytes), 'notes');
  if (parts[0] !== VERSION || parts.length !== 5)
    throw new DecodeError("this node's stored notes are damaged, or were written by a newer release");
  const [, born, floor, members, forgotten] = parts;
  return {
    born: count(born),
    floor: floorFromWire(floor),
    members: membersFromWire(members),
    forgotten: forgottenFromWire(forgotten),
  };
}
