/** What stands in a server's slot hashes, entry hashes and logs, read over one connection. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import type { SlotContent } from './inspection.js';
import { entriesKey, slotHashKey } from './layout.js';
import { type LoadedKey, type LoadRequest, type LoggedFrame, WRONG_TYPE, type WrongType } from './store.js';
import type { ValkeyConnection } from './valkey-connection.js';
import { argument, bytesOf, listOf, numberOf, type Reply } from './valkey-link.js';
import { entriesIn, headersIn, pairs, planLoad } from './valkey-loads.js';
import type { ValkeyReads } from './valkey-reads.js';

/** Slot hashes that one call of a script looks at: about a millisecond of the server's time. */
export const SLOTS_PER_CALL = 2048;

export class ValkeyContent {
  readonly #connection: ValkeyConnection;
  readonly #reads: ValkeyReads;
  readonly #perSlot: boolean;

  /** @param perSlot no command may name keys of several slots, as in a cluster */
  constructor(connection: ValkeyConnection, reads: ValkeyReads, perSlot = false) {
    this.#connection = connection;
    this.#reads = reads;
    this.#perSlot = perSlot;
  }

  async load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    const plan = planLoad(requests, this.#perSlot);
    const replies = await this.#reads.readAll(plan.commands);
    return plan.answers.map((answer) => answer(replies));
  }

  /** Frames of one log. */
  async readFrames(
    log: ByteString,
    replica: ReplicaId,
    fromNumber: number,
    maxBytes: number,
  ): Promise<LoggedFrame[]> {
    const args = [argument(log), String(Math.max(1, fromNumber)), String(maxBytes)];
    const flat = listOf(await this.#connection.script('frames', args));
    const frames: LoggedFrame[] = [];
    for (let i = 0; i < flat.length; i += 3) {
      const number = Number.parseInt(bytesOf(flat[i]) ?? '', 10);
      const bytes = flat[i + 2];
      if (Buffer.isBuffer(bytes)) frames.push({ replica, number, stamp: numberOf(flat[i + 1]), bytes });
    }
    return frames;
  }

  /** Digests of those of some slots that hold any header. */
  async digests(slots: readonly number[]): Promise<Map<number, number>> {
    const calls: Promise<Reply>[] = [];
    for (let first = 0; first < slots.length; first += SLOTS_PER_CALL) {
      const names = slots.slice(first, first + SLOTS_PER_CALL).map(slotHashKey);
      calls.push(this.#connection.script('digests', [names.join(''), String(names[0]?.length)]));
    }
    const digests = new Map<number, number>();
    for (const [call, reply] of (await Promise.all(calls)).entries()) {
      const flat = listOf(reply);
      for (let i = 0; i < flat.length; i += 2) {
        digests.set(slots[call * SLOTS_PER_CALL + numberOf(flat[i])]!, numberOf(flat[i + 1]));
      }
    }
    return digests;
  }

  async headers(slots: readonly number[], maxBytes: number): Promise<[ByteString, ByteString][][]> {
    this.#connection.check();
    if (slots.length === 0) return [];
    const names = slots.slice(0, SLOTS_PER_CALL).map(slotHashKey);
    const args = [names.join(''), String(names[0]?.length), String(maxBytes)];
    const lists = listOf(await this.#connection.script('headers', args));
    return lists.map((list, i) => headersIn(names[i]!, listOf(list)));
  }

  /** Keys that have a header, a list for each slot; null for a slot with more than `most`. */
  async slotKeys(slots: readonly number[], most: number): Promise<(ByteString[] | null)[]> {
    const names = slots.map(slotHashKey);
    const replies = listOf(
      await this.#connection.script('names', [names.join(''), String(names[0]?.length), String(most)]),
    );
    return replies.map((reply, i) =>
      Array.isArray(reply) ? reply.map((each) => bytesOf(each)!).filter((key) => key !== names[i]) : null,
    );
  }

  async slotContent(slot: number): Promise<SlotContent> {
    const name = slotHashKey(slot);
    const flat = listOf((await this.#connection.call('HGETALL', [name])) as Reply);
    const headers = pairs(flat);
    const digest = Number(headers.get(name) ?? 0);
    headers.delete(name);
    return { digest, headers };
  }

  async scanMembers(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; members: ByteString[] } | WrongType> {
    const args = [argument(key), cursor, 'COUNT', String(count)];
    const reply = await this.#connection.call('SSCAN', args, true);
    if (reply === WRONG_TYPE) return WRONG_TYPE;
    const [next, items] = listOf(reply);
    return { cursor: bytesOf(next) ?? '0', members: listOf(items).map((item) => bytesOf(item)!) };
  }

  async scanEntries(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; entries: Map<ByteString, ByteString> }> {
    const args = [argument(entriesKey(key)), cursor, String(count)];
    const [next, items] = listOf(await this.#connection.script('scanEntries', args));
    return { cursor: bytesOf(next) ?? '0', entries: entriesIn(listOf(items)) };
  }
}
