/**
 * The contract of every data type: a join semilattice with delta mutations (Almeida, Shoker, Baquero, "Delta State
 * Replicated Data Types", 2018).
 *
 * - `mutate` is pure: it leaves the state alone and gives a delta, which is a small state of the same type. The mutator
 *   applies it with `merge`, as every other replica does.
 * - `merge` joins into its first argument and says whether that grew. It never keeps a reference to anything mutable in
 *   the delta. False means: nothing to store, nothing to pass on.
 * - The wire form is a plain tree of arrays, numbers and byte strings, and canonical: equal states, equal trees.
 */
import type { Site } from './dot.js';
import type { WireReader, WireWriter } from './wire.js';

/** A data type: how its states begin, change, join and travel. One object per type; states are plain data. */
export interface DataType<State, Op> {
  /** Name for people, as in rules and EXPLAIN. */
  readonly name: string;
  /** The bottom of the lattice. */
  empty(): State;
  /** What an operation changes, as a delta. Throws before any effect when the operation isn't possible in this state. */
  mutate(state: State, op: Op, site: Site): State;
  /** Joins a delta or a state into `into`; says whether `into` grew. */
  merge(into: State, delta: State): boolean;
  /** A copy that shares nothing mutable. */
  clone(state: State): State;
  /** The canonical wire form. */
  toWire(state: State, writer: WireWriter): unknown;
  /** Reads a wire form. Throws DecodeError unless it is canonical and within bounds. */
  fromWire(wire: unknown, reader: WireReader): State;
}
