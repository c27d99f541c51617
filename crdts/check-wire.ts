/** Wire forms of a data type under check: as text, to compare states by; read back; and read when they are malformed. */
import { show } from './check-report.js';
import type { DataType } from './data-type.js';
import { DecodeError } from './errors.js';
import { WireReader, WireWriter } from './wire.js';

/** A law that turned out broken. Internal to the checkers: reports hold its parts. */
export class LawBroken extends Error {
  readonly law: string;

  constructor(law: string, message: string) {
    super(message);
    this.law = law;
  }
}

/** Throws LawBroken unless something holds. */
export function expectLaw(holds: boolean, law: string, message: () => string): asserts holds {
  if (!holds) throw new LawBroken(law, message());
}

/** No stamp in a history is greater. */
const BASE = 1_000_000;
const MAX_BYTES = 1 << 20;

/** The wire form of a state, as text: equal where the forms are. Throws LawBroken for what is no wire form. */
export function formOf<State>(type: DataType<State, never>, state: State): string {
  const writer = new WireWriter(BASE);
  const body = type.toWire(state, writer);
  return treeText([writer.replicas, body]);
}

function treeText(tree: unknown): string {
  if (Array.isArray(tree)) return `[${tree.map(treeText).join()}]`;
  if (tree instanceof Uint8Array) return `<${[...tree].join(' ')}>`;
  if (tree === null) return 'null';
  if (typeof tree === 'number' && Number.isFinite(tree) && !Object.is(tree, -0)) return String(tree);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is the point
  if (typeof tree === 'string' && /^[\x00-\x7f]*$/.test(tree)) return JSON.stringify(tree);
  throw new LawBroken(
    'wire form',
    `${show(tree)} is in it; a wire form consists of arrays, numbers, null, ASCII strings and Uint8Arrays`,
  );
}

/** Writes a state and reads it back. Throws LawBroken unless that gives the same form. */
export function throughWire<State>(type: DataType<State, never>, state: State): State {
  const writer = new WireWriter(BASE);
  const body = type.toWire(state, writer);
  const form = treeText([writer.replicas, body]);
  let back: State;
  try {
    back = type.fromWire(body, new WireReader(BASE, writer.replicas, MAX_BYTES));
  } catch (error) {
    throw new LawBroken('round trip', `fromWire refuses ${form}, which toWire gave: ${String(error)}`);
  }
  const again = formOf(type, back);
  expectLaw(again === form, 'round trip', () => `${form} was read as a state whose form is ${again}`);
  return back;
}

/** Reads a malformed form of a state. Throws LawBroken unless that is refused with DecodeError, or read as what it says. */
export function readsMalformed<State>(
  type: DataType<State, never>,
  state: State,
  spoil: (body: unknown) => unknown,
): void {
  const writer = new WireWriter(BASE);
  const body = spoil(type.toWire(state, writer));
  let back: State;
  try {
    back = type.fromWire(body, new WireReader(BASE, writer.replicas, MAX_BYTES));
  } catch (error) {
    expectLaw(
      error instanceof DecodeError,
      'decode',
      () => `fromWire of ${show(body)} threw ${String(error)}`,
    );
    return;
  }
  const form = treeText(type.toWire(back, new WireWriter(BASE, writer.replicas)));
  const said = show(body);
  let same = false;
  try {
    same = treeText(body) === form;
  } catch {
    // Not even a tree of the allowed values: it should have been refused.
  }
  expectLaw(
    same,
    'decode',
    () => `fromWire accepts ${said}, which is malformed: its state has the form ${form}`,
  );
}
