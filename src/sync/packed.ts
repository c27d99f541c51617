/** Packed numbers: lists of digests, hashes and slots as plain bytes, big-endian. As msgpack numbers they would take half as much again. */
import { asArray } from '../../crdts/wire.js';
import { DecodeError } from '../errors.js';

/** A list of records whose fields have these widths in bytes (1–6). */
export function packRecords(widths: readonly number[], flat: readonly number[]): Uint8Array {
  const size = widths.reduce((sum, width) => sum + width, 0);
  const bytes = Buffer.alloc((flat.length / widths.length) * size);
  let at = 0;
  for (const [i, value] of flat.entries()) at = bytes.writeUIntBE(value, at, widths[i % widths.length]!);
  return bytes;
}

/** Reads what {@link packRecords} wrote, as one flat list. Throws DecodeError on anything else, and beyond `limit` records. */
export function unpackRecords(
  wire: unknown,
  widths: readonly number[],
  what: string,
  limit: number,
): number[] {
  const size = widths.reduce((sum, width) => sum + width, 0);
  if (!(wire instanceof Uint8Array) || wire.length % size !== 0)
    throw new DecodeError(`${what}: bytes are missing`);
  if (wire.length / size > limit) throw new DecodeError(`${what}: more than ${limit}`);
  const bytes = Buffer.from(wire.buffer, wire.byteOffset, wire.length);
  const flat: number[] = [];
  for (let at = 0, field = 0; at < bytes.length; field = (field + 1) % widths.length) {
    flat.push(bytes.readUIntBE(at, widths[field]!));
    at += widths[field]!;
  }
  return flat;
}

/** Throws DecodeError unless numbers ascend and stay below a bound. */
export function requireAscending(numbers: readonly number[], below: number, what: string): void {
  let last = -1;
  for (const number of numbers) {
    if (number <= last || number >= below) throw new DecodeError(`${what} are out of order or out of range`);
    last = number;
  }
}

/** Checks that a wire value is an array of exactly so many items, or more: what a newer member adds is ignored. */
export function fields(wire: unknown, what: string, count: number): unknown[] {
  const parts = asArray(wire, what, 64);
  if (parts.length < count) throw new DecodeError(`${what}: something is missing`);
  return parts;
}
