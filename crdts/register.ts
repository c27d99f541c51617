/**
 * Last-writer-wins register (Johnson & Thomas, RFC 677, 1975; Shapiro et al., 2011).
 *
 * Conflict rule: the write with the greater (stamp, replica id) wins, everywhere, whichever arrived first. A deletion is
 * a write like any other, of no value.
 *
 * What merge must answer: which of two writes is later in the one total order that all replicas share?
 */
import type { ByteString } from './bytes.js';
import type { DataType } from './data-type.js';
import { compareDots, type ReplicaId, requireLater, type Site } from './dot.js';
import { DecodeError, InvariantError } from './errors.js';
import type { Stamp } from './stamp.js';
import { asArray, type WireReader, type WireWriter } from './wire.js';

/** Says that a register has a value whose bytes were left in the store: merging doesn't need them. */
export const UNLOADED: unique symbol = Symbol('unloaded value');

/** Stands for the bytes where the sender hasn't got them either: the key expired in its store, or was evicted. */
const UNLOADED_ON_WIRE = 0;

/** A register's state: the winning write. */
export interface Register {
  /** 0 = never written. */
  stamp: Stamp;
  replica: ReplicaId;
  /** null = deleted, or never written. */
  value: ByteString | null | typeof UNLOADED;
}

/** What can be done to a register: write a value, or null to delete it. */
export type RegisterOp = { readonly op: 'write'; readonly value: ByteString | null };

/** Says whether a register holds a value. */
export function isPresent(register: Register): boolean {
  return register.value !== null;
}

/** The value's bytes, or null. Throws InvariantError when they weren't loaded. */
export function registerValue(register: Register): ByteString | null {
  if (register.value === UNLOADED) throw new InvariantError('the value of this register was not loaded');
  return register.value;
}

/** The data type. A single write costs its value plus about 4 bytes on the wire. */
export const registerType: DataType<Register, RegisterOp> = {
  name: 'register',

  empty: () => ({ stamp: 0, replica: '', value: null }),

  mutate(state, op, site: Site) {
    // At an equal stamp the greater replica id still wins.
    requireLater(site, Math.max(0, site.replica > state.replica ? state.stamp - 1 : state.stamp));
    return { stamp: site.stamp, replica: site.replica, value: op.value };
  },

  merge(into, delta) {
    const order = compareDots(delta, into);
    if (order <= 0) {
      // The same write, with its bytes: not news, but they may be wanted.
      if (order === 0 && into.value === UNLOADED) into.value = delta.value;
      return false;
    }
    into.stamp = delta.stamp;
    into.replica = delta.replica;
    into.value = delta.value;
    return true;
  },

  clone: (state) => ({ stamp: state.stamp, replica: state.replica, value: state.value }),

  toWire(state, writer: WireWriter) {
    if (state.stamp === 0) return [];
    const { value } = state;
    return [
      writer.stamp(state.stamp),
      writer.replica(state.replica),
      value === null ? null : value === UNLOADED ? UNLOADED_ON_WIRE : writer.bytes(value),
    ];
  },

  fromWire(wire, reader: WireReader) {
    const parts = asArray(wire, 'register', 3);
    if (parts.length === 0) return registerType.empty();
    if (parts.length !== 3) throw new DecodeError('a register has not three parts');
    const value = parts[2];
    return {
      stamp: reader.stamp(parts[0]),
      replica: reader.replica(parts[1]),
      value:
        typeof value === 'string'
          ? reader.bytes(value)
          : value === null
            ? null
            : Object.is(value, UNLOADED_ON_WIRE)
              ? UNLOADED
              : reader.bytes(value),
    };
  },
};
