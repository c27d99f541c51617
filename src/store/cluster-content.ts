/** Reads of slot hashes and logs in a cluster, over all servers. Each call is one attempt, which a moving slot may end (valkey-cluster.ts tries again). */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { StoreRefusedError } from '../errors.js';
import type { ClusterParts, Part } from './cluster-parts.js';
import { partOf, spread } from './cluster-reads.js';
import { partLogKey } from './layout.js';
import { SLOTS } from './slots.js';
import type { LoggedFrame } from './store.js';
import { SLOTS_PER_CALL } from './valkey-content.js';
import { MOVED_REASON } from './valkey-errors.js';

/** Reads the frames of a replica out of the logs of all anchors, in order. */
export async function readFrames(
  parts: ClusterParts,
  replica: ReplicaId,
  fromNumber: number,
  maxBytes: number,
): Promise<LoggedFrame[]> {
  const frames: LoggedFrame[] = [];
  let bytes = 0;
  let from = fromNumber;
  for (;;) {
    // Each log may end early, so what is certain to have no gaps ends with the first that does.
    const lists = await Promise.all(
      [...parts.anchors].map((anchor) =>
        partOf(parts, anchor).content.readFrames(partLogKey(anchor, replica), replica, from, maxBytes),
      ),
    );
    const ends = lists.flatMap((list) => (list.length > 0 ? [list.at(-1)!.number] : []));
    if (ends.length === 0) return frames;
    const through = Math.min(...ends);
    const some = lists.flat().filter(({ number }) => number <= through);
    for (const frame of some.sort((one, two) => one.number - two.number)) {
      if (frame.number < from) continue;
      bytes += frame.bytes.length;
      if (frames.length > 0 && bytes > maxBytes) return frames;
      frames.push(frame);
    }
    from = through + 1;
  }
}

/** Those of some replicas whose logs hold frames beyond a mark. */
export async function loggedBeyond(
  parts: ClusterParts,
  marks: ReadonlyMap<ReplicaId, number>,
): Promise<ReplicaId[]> {
  const beyond = new Set<ReplicaId>();
  const look = async (replica: ReplicaId, number: number, anchor: number) => {
    const { content } = partOf(parts, anchor);
    const frames = await content.readFrames(partLogKey(anchor, replica), replica, number + 1, 1);
    if (frames.length > 0) beyond.add(replica);
  };
  const looks: Promise<void>[] = [];
  for (const [replica, number] of marks)
    for (const anchor of parts.anchors) looks.push(look(replica, number, anchor));
  await Promise.all(looks);
  return [...beyond];
}

/** The digests of all slots, read bit by bit: a slot that is on its way is asked for again, not all of them. */
export class SlotsDigests {
  readonly #digests = new Map<number, number>();
  #left: number[] = Array.from({ length: SLOTS }, (_, slot) => slot);

  /** Reads what is left. Throws StoreRefusedError while a slot is on its way. */
  async read(parts: ClusterParts): Promise<void> {
    const groups = new Map<Part, number[]>();
    const left: number[] = [];
    for (const slot of this.#left) {
      this.#digests.delete(slot);
      const part = partOf(parts, slot);
      const some = groups.get(part);
      if (some === undefined) groups.set(part, [slot]);
      else some.push(slot);
    }
    await Promise.all(
      [...groups].map(async ([part, slots]) => {
        for (const [slot, digest] of await part.content.digests(slots)) {
          if (digest < 0) left.push(slot);
          else this.#digests.set(slot, digest);
        }
      }),
    );
    this.#left = left;
    if (left.length > 0)
      throw new StoreRefusedError(`TRYAGAIN slot ${left[0]} is being moved`, { reason: MOVED_REASON });
  }

  /** Those that hold any header, in the order of their slots. */
  found(): Map<number, number> {
    return new Map([...this.#digests].sort(([one], [two]) => one - two));
  }
}

/** Reads the headers of some slots, in their order; it may end early, as in the store port. */
export async function readHeaders(
  parts: ClusterParts,
  slots: readonly number[],
  maxBytes: number,
): Promise<[ByteString, ByteString][][]> {
  const lists = new Map<number, [ByteString, ByteString][]>();
  await spread(
    parts,
    slots.slice(0, SLOTS_PER_CALL),
    (slot) => slot,
    async (part, some) => {
      for (const [i, list] of (await part.content.headers(some, maxBytes)).entries())
        lists.set(some[i]!, list);
      return [];
    },
  );
  const whole: [ByteString, ByteString][][] = [];
  let bytes = 0;
  for (const slot of slots) {
    const list = lists.get(slot);
    if (list === undefined) break;
    whole.push(list);
    for (const [key, header] of list) bytes += key.length + header.length;
    if (bytes >= maxBytes) break;
  }
  return whole;
}
