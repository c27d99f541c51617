/** The store on a single Valkey server. What lies where: layout.ts; how a commit works: commit-script.ts; lost connections: valkey-connection.ts. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { StoreRefusedError } from '../errors.js';
import { type Logger, silentLogger } from '../options.js';
import { systemTimers, type Timers } from '../timers.js';
import { checkCommit, onlyRemoves, writeCommit } from './commit-frame.js';
import { FrameWriter } from './frame-writer.js';
import type { SlotContent } from './inspection.js';
import { entriesKey, logKey, META, slotHashKey, slotHashKeys } from './layout.js';
import { type Asked, SlotDigests } from './slot-digests.js';
import { keySlot } from './slots.js';
import {
  type AppliedMark,
  type Commit,
  type LoadedKey,
  type LoadRequest,
  type LoggedFrame,
  type NativeType,
  type ScanOptions,
  type Store,
  type StoredIdentity,
  type StoreFacts,
  WRONG_TYPE,
  type WrongType,
} from './store.js';
import { addressOf, type ValkeyServerOptions } from './valkey-address.js';
import { finishClearing } from './valkey-clear.js';
import { ValkeyConnection } from './valkey-connection.js';
import { cleanMark } from './valkey-handshake.js';
import type { ServerInfo } from './valkey-health.js';
import { argument, bytesOf, listOf, numberOf, type Reply } from './valkey-link.js';
import { MAX_SCRIPT_ARGUMENTS, ValkeyReads } from './valkey-reads.js';
import { parseValkeyUrl } from './valkey-url.js';

/** Options of a {@link ValkeyStore}. */
export interface ValkeyStoreOptions {
  /** Default: the machine's. */
  readonly timers?: Timers;
  /** 0 ≤ x < 1. Default: Math.random. */
  readonly random?: () => number;
  /** Default: silent. */
  readonly logger?: Logger;
  /** How long a call waits for an answer before it rejects with StoreUnavailableError. Default: 5,000. */
  readonly answerTimeoutMs?: number;
}

/** Slot hashes that one call of a script looks at: about a millisecond of the server's time. */
const SLOTS_PER_CALL = 2048;

/** Keeps a region's keys in a Valkey (or Redis) server, version 7.0 or later. */
export class ValkeyStore implements Store {
  readonly #connection: ValkeyConnection;
  readonly #reads: ValkeyReads;
  readonly #frame = new FrameWriter();
  readonly #digests = new SlotDigests();
  readonly #logger: Logger;
  readonly #label: string;

  /**
   * @param server a URL, whose forms are in valkey-url.ts, or an object with ioredis's names.
   * Throws ConfigError when it is neither.
   */
  constructor(server: string | ValkeyServerOptions, options: ValkeyStoreOptions = {}) {
    const address = typeof server === 'string' ? parseValkeyUrl(server) : addressOf(server);
    this.#label = address.label;
    this.#logger = options.logger ?? silentLogger;
    this.#connection = new ValkeyConnection(address, {
      timers: options.timers ?? systemTimers,
      random: options.random ?? Math.random,
      logger: this.#logger,
      answerTimeoutMs: options.answerTimeoutMs ?? 5000,
    });
    this.#reads = new ValkeyReads(this.#connection);
  }

  async open(): Promise<StoreFacts> {
    let { facts, info } = await this.#connection.open();
    if (facts.has(META.clearing)) {
      await finishClearing(this.#connection);
      ({ facts, info } = await this.#connection.open());
    }
    for (const warning of info.warnings) this.#logger.warn({ store: this.#label }, warning);
    const notes = facts.get(META.notes) ?? null;
    return { identity: identityOf(facts, info), applied: appliedOf(facts), notes, server: this.describe() };
  }

  describe(): Readonly<Record<string, string | number>> {
    const { session, place, problem } = this.#connection;
    if (session === null) return { kind: 'valkey', address: this.#label, problem };
    const { fields, version, runId, warnings } = session.info;
    return {
      kind: 'valkey',
      server: fields.has('valkey_version') ? 'valkey' : 'redis',
      version,
      runId,
      address: place,
      ...(warnings.length > 0 ? { warnings: warnings.join('; ') } : {}),
      ...(problem === '' ? {} : { problem }),
    };
  }

  saveIdentity(identity: StoredIdentity): Promise<void> {
    return this.#connection.saveIdentity(identity);
  }

  async load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    const plan = planLoad(requests);
    const replies = await this.#reads.readAll(plan.commands);
    return plan.answers.map((answer) => answer(replies));
  }

  async commit(commit: Commit): Promise<void> {
    checkCommit(commit);
    const script = onlyRemoves(commit) ? 'remove' : 'commit';
    let asked: Asked | null = null;
    const answer = await this.#connection.commit(script, (sender) => {
      const bytes = writeCommit(this.#frame, commit, sender, this.#digests);
      asked = this.#digests.end();
      return bytes;
    });
    if (answer !== null && answer !== 'DONE' && asked !== null) this.#digests.learn(asked, answer);
  }

  async readFrames(replica: ReplicaId, fromNumber: number, maxBytes: number): Promise<LoggedFrame[]> {
    const args = [argument(logKey(replica)), String(Math.max(1, fromNumber)), String(maxBytes)];
    const flat = listOf(await this.#connection.script('frames', args));
    const frames: LoggedFrame[] = [];
    for (let i = 0; i < flat.length; i += 3) {
      const number = Number.parseInt(bytesOf(flat[i]) ?? '', 10);
      const bytes = flat[i + 2];
      if (Buffer.isBuffer(bytes)) frames.push({ replica, number, stamp: numberOf(flat[i + 1]), bytes });
    }
    return frames;
  }

  async trimLog(replica: ReplicaId, throughNumber: number): Promise<void> {
    await this.#connection.script('trim', [
      argument(logKey(replica)),
      String(Math.max(0, throughNumber) + 1),
    ]);
  }

  async digests(): Promise<Map<number, number>> {
    const names = slotHashKeys();
    const calls: Promise<Reply>[] = [];
    for (let first = 0; first < names.length; first += SLOTS_PER_CALL) {
      const some = names.slice(first, first + SLOTS_PER_CALL);
      calls.push(this.#connection.script('digests', [some.join(''), String(names[0]?.length)]));
    }
    const digests = new Map<number, number>();
    for (const [call, reply] of (await Promise.all(calls)).entries()) {
      const flat = listOf(reply);
      for (let i = 0; i < flat.length; i += 2) {
        digests.set(call * SLOTS_PER_CALL + numberOf(flat[i]), numberOf(flat[i + 1]));
      }
    }
    return digests;
  }

  async slotKeys(slot: number): Promise<ByteString[]> {
    const name = slotHashKey(slot);
    const fields = listOf((await this.#connection.call('HKEYS', [name])) as Reply);
    return fields.map((field) => bytesOf(field) ?? ('' as ByteString)).filter((field) => field !== name);
  }

  async slotHeaders(slot: number): Promise<[ByteString, ByteString][]> {
    const name = slotHashKey(slot);
    return headersIn(name, listOf((await this.#connection.call('HGETALL', [name])) as Reply));
  }

  async headers(slots: readonly number[], maxBytes: number): Promise<[ByteString, ByteString][][]> {
    this.#connection.check();
    if (slots.length === 0) return [];
    const names = slots.slice(0, SLOTS_PER_CALL).map(slotHashKey);
    const args = [names.join(''), String(names[0]?.length), String(maxBytes)];
    const lists = listOf(await this.#connection.script('headers', args));
    return lists.map((list, i) => headersIn(names[i]!, listOf(list)));
  }

  saveNotes(notes: ByteString): Promise<void> {
    return this.#connection.saveNotes(notes);
  }

  clear(): Promise<void> {
    return this.#connection.clear();
  }

  async slotContent(slot: number): Promise<SlotContent> {
    this.#digests.forget(slot);
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
    const args = [argument(entriesKey(key)), cursor, 'COUNT', String(count)];
    const [next, items] = listOf((await this.#connection.call('HSCAN', args)) as Reply);
    return { cursor: bytesOf(next) ?? '0', entries: pairs(listOf(items)) };
  }

  async ping(): Promise<boolean> {
    try {
      await this.#connection.probe();
      return !this.#connection.isLost;
    } catch (error) {
      // So it says while it can't write to its disk; reads are served.
      return error instanceof StoreRefusedError && error.reason === 'MISCONF';
    }
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    return this.#reads.strings(keys);
  }

  stringLength(key: ByteString): Promise<number | WrongType> {
    return this.#reads.stringLength(key);
  }

  members(key: ByteString): Promise<ByteString[] | WrongType> {
    return this.#reads.members(key);
  }

  contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    return this.#reads.contains(key, members);
  }

  cardinality(key: ByteString): Promise<number | WrongType> {
    return this.#reads.cardinality(key);
  }

  randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    return this.#reads.randomMembers(key, count);
  }

  types(keys: readonly ByteString[]): Promise<NativeType[]> {
    return this.#reads.types(keys);
  }

  deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    return this.#reads.deadlines(keys);
  }

  scan(cursor: string, options?: ScanOptions): Promise<{ cursor: string; keys: ByteString[] }> {
    return this.#reads.scan(cursor, options);
  }

  count(): Promise<number> {
    return this.#reads.count();
  }
}

/** Keys and headers of a slot's hash, from a flat reply. */
function headersIn(name: ByteString, flat: readonly Reply[]): [ByteString, ByteString][] {
  const headers: [ByteString, ByteString][] = [];
  for (let i = 0; i < flat.length; i += 2) {
    const [key, header] = [bytesOf(flat[i]), bytesOf(flat[i + 1])];
    if (key !== null && header !== null && key !== name) headers.push([key, header]);
  }
  return headers;
}

/** Fields and values of a hash, from a flat reply. */
function pairs(flat: readonly Reply[]): Map<ByteString, ByteString> {
  const found = new Map<ByteString, ByteString>();
  for (let i = 0; i < flat.length; i += 2) {
    const [field, value] = [bytesOf(flat[i]), bytesOf(flat[i + 1])];
    if (field !== null && value !== null) found.set(field, value);
  }
  return found;
}

interface LoadPlan {
  readonly commands: ByteString[][];
  /** One for each request: takes its part out of the replies. */
  readonly answers: ((replies: readonly Reply[]) => LoadedKey)[];
}

/** Plans a load as few commands: one HMGET per slot for headers, one MGET for values, and one read per key for entries. */
function planLoad(requests: readonly LoadRequest[]): LoadPlan {
  const commands: ByteString[][] = [];
  const headers = new Map<number, number>();
  let values = -1;

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
    const native = value ? append(values, ['MGET' as ByteString], key) : null;
    if (native !== null) values = native[0];
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

function identityOf(facts: ReadonlyMap<string, ByteString>, info: ServerInfo): StoredIdentity | null {
  const peerId = facts.get(META.peerId);
  const replica = facts.get(META.replica);
  if (peerId === undefined || replica === undefined) return null;
  const clean = facts.get(META.clean) === cleanMark({ peerId, replica, clean: true }, info);
  return { peerId, replica, clean };
}

function appliedOf(facts: ReadonlyMap<string, ByteString>): AppliedMark[] {
  const marks: AppliedMark[] = [];
  for (const [field, value] of facts) {
    if (!field.startsWith(META.appliedPrefix)) continue;
    const [number, stamp] = value.split(' ').map(Number);
    if (number === undefined || stamp === undefined) continue;
    marks.push({ replica: field.slice(META.appliedPrefix.length), number, stamp });
  }
  return marks;
}
