/** Reads of native values in a cluster: each key where its slot is, and what concerns all keys on all servers. */
import type { ByteString } from '../../crdts/bytes.js';
import { StoreRefusedError } from '../errors.js';
import type { ClusterParts, Part } from './cluster-parts.js';
import { META, partMetaKey } from './layout.js';
import { keySlot } from './slots.js';
import type { NativeReads, NativeType, ScanOptions, WrongType } from './store.js';
import { MOVED_REASON } from './valkey-errors.js';
import { numberOf } from './valkey-link.js';

/** The part that has a slot. Throws StoreRefusedError while no part is known to have it. */
export function partOf(parts: ClusterParts, slot: number): Part {
  const part = parts.of(slot);
  if (part === null)
    throw new StoreRefusedError(`TRYAGAIN slot ${slot} is being moved`, { reason: MOVED_REASON });
  return part;
}

/** Asks each part for its items, all at once; gives the answers in the order of the items. */
export async function spread<Item, Answer>(
  parts: ClusterParts,
  items: readonly Item[],
  slotOf: (item: Item) => number,
  ask: (part: Part, items: Item[]) => Promise<Answer[]>,
): Promise<Answer[]> {
  const groups = new Map<Part, { items: Item[]; places: number[] }>();
  for (const [place, item] of items.entries()) {
    const part = partOf(parts, slotOf(item));
    let group = groups.get(part);
    if (group === undefined) {
      group = { items: [], places: [] };
      groups.set(part, group);
    }
    group.items.push(item);
    group.places.push(place);
  }
  const answers: Answer[] = new Array(items.length);
  await Promise.all(
    [...groups].map(async ([part, group]) => {
      for (const [i, answer] of (await ask(part, group.items)).entries()) answers[group.places[i]!] = answer;
    }),
  );
  return answers;
}

/** Numbers of anchors, which a scan's cursor holds besides the server's own. */
const ANCHORS = 16384n;

/** Reads native values; each call is one attempt, which a moving slot may end (valkey-cluster.ts tries again). */
export class ClusterReads implements NativeReads {
  readonly #parts: ClusterParts;

  constructor(parts: ClusterParts) {
    this.#parts = parts;
  }

  #of(key: ByteString): Part {
    return partOf(this.#parts, keySlot(key));
  }

  async strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    return spread(this.#parts, keys, keySlot, (part, some) => part.reads.strings(some));
  }

  async stringLength(key: ByteString): Promise<number | WrongType> {
    return this.#of(key).reads.stringLength(key);
  }

  async members(key: ByteString): Promise<ByteString[] | WrongType> {
    return this.#of(key).reads.members(key);
  }

  async contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    return this.#of(key).reads.contains(key, members);
  }

  async cardinality(key: ByteString): Promise<number | WrongType> {
    return this.#of(key).reads.cardinality(key);
  }

  async randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    return this.#of(key).reads.randomMembers(key, count);
  }

  async types(keys: readonly ByteString[]): Promise<NativeType[]> {
    return spread(this.#parts, keys, keySlot, (part, some) => part.reads.types(some));
  }

  async deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    return spread(this.#parts, keys, keySlot, (part, some) => part.reads.deadlines(some));
  }

  /** Server after server, in the order of their anchors. Keys that move meanwhile may be missed or come twice, as in Valkey Cluster. */
  async scan(cursor: string, options?: ScanOptions): Promise<{ cursor: string; keys: ByteString[] }> {
    if (!/^\d{1,30}$/.test(cursor)) throw new StoreRefusedError('ERR invalid cursor');
    const parts = this.#parts.all().sort((one, two) => one.anchor - two.anchor);
    const given = BigInt(cursor);
    const anchor = Number(given % ANCHORS);
    const at = cursor === '0' ? 0 : parts.findIndex((part) => part.anchor >= anchor);
    const part = parts[at];
    if (part === undefined) return { cursor: '0', keys: [] };
    const inside = part.anchor === anchor ? String(given / ANCHORS) : '0';
    const page = await part.reads.scan(inside, options);
    const next = parts[at + 1];
    const goesOn = page.cursor !== '0';
    const where = goesOn ? BigInt(page.cursor) * ANCHORS + BigInt(part.anchor) : BigInt(next?.anchor ?? 0);
    return { cursor: String(where), keys: page.keys };
  }

  /** Keys that a server has received and another not yet dropped, while their slot moves, count twice. */
  async count(): Promise<number> {
    const counting = this.#parts.all().map(async (part) => {
      const [size] = await part.reads.readAll([['DBSIZE' as ByteString]]);
      return numberOf(size);
    });
    const reading = spread(
      this.#parts,
      [...this.#parts.anchors],
      (anchor) => anchor,
      async (part, anchors) => {
        const command = (anchor: number) => ['HGET', partMetaKey(anchor), META.reserved] as ByteString[];
        return (await part.reads.readAll(anchors.map(command))).map((reply) => numberOf(reply ?? 0));
      },
    );
    const sum = (numbers: readonly number[]) => numbers.reduce((one, two) => one + two, 0);
    // Both may reject, and each must be waited for.
    const [sizes, reserved] = await Promise.all([Promise.all(counting), reading]);
    return sum(sizes) - sum(reserved);
  }
}
