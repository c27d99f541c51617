/** Loads planned as few commands, and flat replies taken apart. */
import type { ByteString } from '../../crdts/bytes.js';
import { entryHashes, HASH_BYTES } from './entry-pages.js';
import { ENTRIES } from './entry-scripts.js';
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

/** Entries by element: from a flat reply, or from one for each page (entry-pages.ts). */
export function entriesIn(reply: readonly Reply[]): Map<ByteString, ByteString> {
  if (!Array.isArray(reply[0])) return pairs(reply);
  const found = new Map<ByteString, ByteString>();
  for (const page of reply)
    for (const [element, entry] of pairs(listOf(page)))
      found.set(element, entry.slice(HASH_BYTES) as ByteString);
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
    const entries = planEntries(key, elements, commands);
    return (replies: readonly Reply[]): LoadedKey => ({
      header: item(replies, header),
      value: native === null ? null : item(replies, native),
      entries: entries(replies),
    });
  });
  return { commands, answers };
}

function planEntries(
  key: ByteString,
  elements: readonly ByteString[] | 'all',
  commands: ByteString[][],
): (replies: readonly Reply[]) => Map<ByteString, ByteString> {
  if (elements.length === 0) return () => new Map();
  const start = [ENTRIES as ByteString, entriesKey(key)];
  const first = commands.length;
  if (elements === 'all') {
    commands.push(start);
    return (replies) => entriesIn(listOf(replies[first]));
  }
  for (let from = 0; from < elements.length; from += MAX_SCRIPT_ARGUMENTS) {
    const some = elements.slice(from, from + MAX_SCRIPT_ARGUMENTS);
    commands.push([...start, entryHashes(some), ...some]);
  }
  return (replies) => {
    const found = new Map<ByteString, ByteString>();
    for (let from = 0; from < elements.length; from += MAX_SCRIPT_ARGUMENTS) {
      const items = listOf(replies[first + from / MAX_SCRIPT_ARGUMENTS]);
      for (let i = from; i < elements.length && i < from + MAX_SCRIPT_ARGUMENTS; i += 1) {
        const entry = bytesOf(items[i - from]);
        if (entry !== null) found.set(elements[i]!, entry);
      }
    }
    return found;
  };
}
