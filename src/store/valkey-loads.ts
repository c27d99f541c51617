/** Loads planned as few commands, and flat replies taken apart. */
import type { ByteString } from '../../crdts/bytes.js';
import { entriesKey, slotHashKey } from './layout.js';
import { keySlot } from './slots.js';
import type { LoadedKey, LoadRequest } from './store.js';
import { bytesOf, listOf, type Reply } from './valkey-link.js';
import { MAX_SCRIPT_ARGUMENTS } from './valkey-reads.js';

/** Keys and headers of a slot's hash, from a flat reply. */
export function headersIn(name: ByteString, flat: readonly Reply[]): [ByteString, ByteString][] {
  const headers: [ByteString, ByteString][] = [];
  for (let i = 0; i < flat.length; i += 2) {
    const [key, header] = [bytesOf(flat[i]), bytesOf(flat[i + 1])];
    if (key !== null && header !== null && key !== name) headers.push([key, header]);
  }
  return headers;
}

/** Fields and values of a hash, from a flat reply. */
export function pairs(flat: readonly Reply[]): Map<ByteString, ByteString> {
  const found = new Map<ByteString, ByteString>();
  for (let i = 0; i < flat.length; i += 2) {
    const [field, value] = [bytesOf(flat[i]), bytesOf(flat[i + 1])];
    if (field !== null && value !== null) found.set(field, value);
  }
  return found;
}

export interface LoadPlan {
  readonly commands: ByteString[][];
  /** One for each request: takes its part out of the replies. */
  readonly answers: ((replies: readonly Reply[]) => LoadedKey)[];
}

/**
 * Plans a load as few commands: one HMGET per slot for headers, one MGET for values (one for each slot if `perSlot`), and one read
 * per key for entries.
 */
export function planLoad(requests: readonly LoadRequest[], perSlot = false): LoadPlan {
  const commands: ByteString[][] = [];
  const headers = new Map<number, number>();
  const values = new Map<number, number>();

  /** Adds an argument to the command at `index`, or begins another; gives where the reply's item will stand. */
  const append = (
    index: number,
    start: readonly ByteString[],
    item: ByteString,
  ): [command: number, item: number] => {
    let command = commands[index];
    if (command === undefined || command.length >= MAX_SCRIPT_ARGUMENTS) {
      index = commands.length;
      command = [...start];
      commands.push(command);
    }
    command.push(item);
    return [index, command.length - 1 - start.length];
  };
  const item = (replies: readonly Reply[], [command, index]: [number, number]) =>
    bytesOf(listOf(replies[command])[index]);

  const answers = requests.map(({ key, value, elements = [] }) => {
    const slot = keySlot(key);
    const header = append(headers.get(slot) ?? -1, ['HMGET' as ByteString, slotHashKey(slot)], key);
    headers.set(slot, header[0]);
    const group = perSlot ? slot : 0;
    const native = value ? append(values.get(group) ?? -1, ['MGET' as ByteString], key) : null;
    if (native !== null) values.set(group, native[0]);
    const entries = planEntries(key, elements, commands, append);
    return (replies: readonly Reply[]): LoadedKey => ({
      header: item(replies, header),
      value: native === null ? null : item(replies, native),
      entries: entries((at) => item(replies, at), replies),
    });
  });
  return { commands, answers };
}

type ReadItem = (at: [command: number, item: number]) => ByteString | null;
type Append = (
  index: number,
  start: readonly ByteString[],
  item: ByteString,
) => [command: number, item: number];

function planEntries(
  key: ByteString,
  elements: readonly ByteString[] | 'all',
  commands: ByteString[][],
  append: Append,
): (item: ReadItem, replies: readonly Reply[]) => Map<ByteString, ByteString> {
  if (elements.length === 0) return () => new Map();
  const hash = entriesKey(key);
  if (elements === 'all') {
    const command = commands.push(['HGETALL' as ByteString, hash]) - 1;
    return (_, replies) => {
      return pairs(listOf(replies[command]));
    };
  }
  let command = -1;
  const places = elements.map((element) => {
    const place = append(command, ['HMGET' as ByteString, hash], element);
    command = place[0];
    return place;
  });
  return (item) => {
    const found = new Map<ByteString, ByteString>();
    for (const [i, element] of elements.entries()) {
      const place = places[i];
      const entry = place === undefined ? null : item(place);
      if (entry !== null) found.set(element, entry);
    }
    return found;
  };
}
