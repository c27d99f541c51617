/**
 * Multi-value register (DeCandia et al., "Dynamo", 2007; Shapiro et al., 2011), with a causal context.
 *
 * Conflict rule: none. A write replaces the values that it saw; concurrent ones stay side by side as *siblings*, and
 * whoever reads chooses among them with a function of its own. Because the join never calls that function, no choice can
 * break convergence.
 *
 * What merge must answer: is a sibling that only one side has new to the other, or replaced by something that it saw?
 * As in the set: the other's context covers it, or not.
 */
import type { DataType } from './data-type.js';
import { type ReplicaId, requireLater, type Site } from './dot.js';
import { DecodeError } from './errors.js';
import type { Stamp } from './stamp.js';
import { covers, mergeVectors, raise, type VersionVector } from './version-vector.js';
import { asArray, type WireReader, type WireWriter } from './wire.js';

/** One of the values that were written concurrently. Immutable. */
export interface Sibling<V> {
  readonly stamp: Stamp;
  readonly value: V;
}

/** A multi-value register's state. */
export interface MultiValue<V> {
  /** Every write that has been seen. */
  context: VersionVector;
  /** The writes that nothing has replaced; at most one per replica. */
  siblings: Map<ReplicaId, Sibling<V>>;
}

/** What can be done to a multi-value register. */
export type MultiValueOp<V> =
  | { readonly op: 'write'; readonly value: V }
  /** Removes the siblings that were seen, and writes nothing. */
  | { readonly op: 'clear' };

/** Makes the data type for one kind of value. */
export function multiValueType<V>(
  name: string,
  valueToWire: (value: V, writer: WireWriter) => unknown,
  valueFromWire: (wire: unknown, reader: WireReader) => V,
): DataType<MultiValue<V>, MultiValueOp<V>> {
  return {
    name,

    empty: () => ({ context: new Map(), siblings: new Map() }),

    mutate(state, op, site: Site) {
      const delta: MultiValue<V> = { context: new Map(), siblings: new Map() };
      for (const [replica, { stamp }] of state.siblings) raise(delta.context, replica, stamp);
      if (op.op === 'write') {
        requireLater(site, state.context.get(site.replica) ?? 0);
        raise(delta.context, site.replica, site.stamp);
        delta.siblings.set(site.replica, { stamp: site.stamp, value: op.value });
      }
      return delta;
    },

    merge(into, delta) {
      let grew = false;
      for (const [replica, { stamp }] of into.siblings) {
        if (covers(delta.context, replica, stamp) && delta.siblings.get(replica)?.stamp !== stamp) {
          into.siblings.delete(replica);
          grew = true;
        }
      }
      for (const [replica, sibling] of delta.siblings) {
        if (covers(into.context, replica, sibling.stamp)) continue;
        into.siblings.set(replica, sibling);
        grew = true;
      }
      return mergeVectors(into.context, delta.context) || grew;
    },

    clone: (state) => ({ context: new Map(state.context), siblings: new Map(state.siblings) }),

    toWire(state, writer) {
      const siblings: unknown[] = [];
      for (const [replica, { stamp, value }] of [...state.siblings].sort((a, b) => (a[0] < b[0] ? -1 : 1))) {
        siblings.push(writer.replica(replica), writer.stamp(stamp), valueToWire(value, writer));
      }
      return [writer.vector(state.context), siblings];
    },

    fromWire(wire, reader) {
      const parts = asArray(wire, name, 2);
      const state: MultiValue<V> = { context: reader.vector(parts[0]), siblings: new Map() };
      const flat = asArray(parts[1], `${name} siblings`);
      if (flat.length % 3 !== 0) throw new DecodeError(`${name} siblings are not in groups of three`);
      let last = '';
      for (let i = 0; i < flat.length; i += 3) {
        const replica = reader.replica(flat[i]);
        if (replica <= last) throw new DecodeError(`${name} siblings are not in the order of their replicas`);
        last = replica;
        const stamp = reader.stamp(flat[i + 1]);
        reader.requireCovered(state.context, { replica, stamp });
        state.siblings.set(replica, { stamp, value: valueFromWire(flat[i + 2], reader) });
      }
      return state;
    },
  };
}
