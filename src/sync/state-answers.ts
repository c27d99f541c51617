/**
 * The messages of which the answer to a request for keys or members consists:
 *
 *     [1, slots done, [state, …]]                 whole states of keys (key-chunk.ts); how many of the slots asked for are complete
 *     [2, key, size, coarse digests]              a big set that differs, with the digests of its coarse buckets: ask for members
 *     [3, size, fine buckets or null, state]      a big set begins: those buckets (null = all) travel, in at most `size` members; what else
 *                                                 the key holds, and the set's context. The same key may begin again: forget what came
 *     [4, touched, replicas, set]                 members of the set that has begun
 *     [5]                                         the set is complete
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { KeyState } from '../../crdts/key-state.js';
import { type Dots, setType } from '../../crdts/or-set.js';
import type { Stamp } from '../../crdts/stamp.js';
import { raise, type VersionVector } from '../../crdts/version-vector.js';
import { asArray, WireReader, WireWriter } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';
import { pack, unpack } from '../replica/msgpack.js';
import { decodeState, encodeState } from './key-chunk.js';
import { COARSE, FINE } from './member-buckets.js';
import { count } from './messages.js';
import { fields, packRecords, requireAscending, unpackRecords } from './packed.js';

/** One message of an answer. */
export type StateAnswer =
  | {
      readonly kind: 'keys';
      readonly slotsDone: number;
      readonly states: readonly (readonly [ByteString, KeyState])[];
    }
  | {
      readonly kind: 'big set';
      readonly key: ByteString;
      readonly size: number;
      readonly coarse: readonly number[];
    }
  | {
      readonly kind: 'begin';
      readonly size: number;
      readonly fine: readonly number[] | null;
      readonly key: ByteString;
      /** Its set names no members yet. */
      readonly state: KeyState;
    }
  | {
      readonly kind: 'members';
      readonly touched: Stamp;
      readonly entries: ReadonlyMap<ByteString, Dots>;
    }
  | { readonly kind: 'end' };

const KEYS = 1;
const BIG_SET = 2;
const BEGIN = 3;
const MEMBERS = 4;
const END = 5;

export function encodeStateAnswer(answer: StateAnswer): Uint8Array {
  switch (answer.kind) {
    case 'keys':
      return pack([KEYS, answer.slotsDone, answer.states.map(([key, state]) => encodeState(key, state))]);
    case 'big set': {
      const key = new WireWriter(1).bytes(answer.key);
      return pack([BIG_SET, key, answer.size, packRecords([6], answer.coarse)]);
    }
    case 'begin': {
      const fine = answer.fine === null ? null : packRecords([2], answer.fine);
      return pack([BEGIN, answer.size, fine, encodeState(answer.key, answer.state)]);
    }
    case 'members': {
      const writer = new WireWriter(answer.touched);
      const context: VersionVector = new Map();
      for (const dots of answer.entries.values())
        for (const dot of dots) raise(context, dot.replica, dot.stamp);
      const entries = new Map(answer.entries);
      const set = setType.toWire({ context, entries, whole: false, size: 0 }, writer);
      return pack([MEMBERS, answer.touched, writer.replicas satisfies ReplicaId[], set]);
    }
    case 'end':
      return pack([END]);
  }
}

/** Throws DecodeError on anything but a message of an answer. */
export function decodeStateAnswer(bytes: Uint8Array, maxValueBytes: number): StateAnswer {
  const parts = asArray(unpack(bytes), 'part of a state transfer', 4);
  switch (parts[0]) {
    case KEYS: {
      const states = asArray(parts[2], 'key states').map((wire) => decodeState(wire, maxValueBytes));
      if (states.some(([, { set }]) => set !== null && !set.whole))
        throw new DecodeError('a key state holds only a part of its set');
      return { kind: 'keys', slotsDone: count(parts[1]), states };
    }
    case BIG_SET: {
      const key = new WireReader(1, [], maxValueBytes).bytes(parts[1]);
      const coarse = unpackRecords(parts[3], [6], 'digests of buckets', COARSE);
      if (coarse.length !== COARSE) throw new DecodeError('digests of buckets are missing');
      return { kind: 'big set', key, size: count(parts[2]), coarse };
    }
    case BEGIN: {
      const fine = parts[2] === null ? null : unpackRecords(parts[2], [2], 'buckets', FINE);
      if (fine !== null) requireAscending(fine, FINE, 'buckets');
      const [key, state] = decodeState(parts[3], maxValueBytes);
      if (state.set === null || state.set.whole || state.set.entries.size > 0)
        throw new DecodeError('a set begins without a context, or with members');
      return { kind: 'begin', size: count(parts[1]), fine, key, state };
    }
    case MEMBERS: {
      const reader = new WireReader(parts[1] as Stamp, parts[2], maxValueBytes);
      const { entries, whole } = setType.fromWire(parts[3], reader);
      if (whole || entries.size === 0) throw new DecodeError('a part of a set has no members');
      for (const dots of entries.values())
        if (dots.length === 0) throw new DecodeError('a part of a set names an absent member');
      return { kind: 'members', touched: parts[1] as Stamp, entries };
    }
    case END:
      fields(parts, 'end of a set', 1);
      return { kind: 'end' };
    default:
      throw new DecodeError('a state transfer holds something unknown: run the same release everywhere');
  }
}
