/** The store on a single Valkey server. What lies where: layout.ts; how a commit works: commit-script.ts; lost connections: valkey-connection.ts. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { ConfigError, StoreRefusedError } from '../errors.js';
import { type Logger, silentLogger } from '../options.js';
import { systemTimers, type Timers } from '../timers.js';
import { checkCommit, onlyRemoves, writeCommit } from './commit-frame.js';
import { FrameWriter } from './frame-writer.js';
import type { SlotContent } from './inspection.js';
import { KnownKeys } from './known-keys.js';
import { logKey, META } from './layout.js';
import { type Asked, SlotDigests } from './slot-digests.js';
import { keySlot, SLOTS } from './slots.js';
import type {
  Commit,
  CommitResult,
  DropReason,
  LoadedKey,
  LoadRequest,
  LoggedFrame,
  NativeType,
  ScanOptions,
  Store,
  StoredIdentity,
  StoreFacts,
  WrongType,
} from './store.js';
import { addressOf, type ValkeyServerOptions } from './valkey-address.js';
import { finishClearing } from './valkey-clear.js';
import { ValkeyConnection } from './valkey-connection.js';
import { ValkeyContent } from './valkey-content.js';
import { factsOf } from './valkey-facts.js';
import { argument } from './valkey-link.js';
import { ValkeyReads } from './valkey-reads.js';
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
  /** How many keys must be asked for in vain before the store reads which keys there are (known-keys.ts). Default: 4,096. */
  readonly readKeysAfter?: number;
}

/** Slots whose keys are read at once: some milliseconds of the server's time and of ours, where they are full. */
const SLOTS_AT_ONCE = 128;
/** A slot with more isn't read: they share a hash tag. */
const MOST_KEYS_OF_SLOT = 2_000;

const ALL_SLOTS: readonly number[] = Array.from({ length: SLOTS }, (_, slot) => slot);

/** Keeps a region's keys in a Valkey (or Redis) server, version 7.0 or later. */
export class ValkeyStore implements Store {
  readonly #connection: ValkeyConnection;
  readonly #reads: ValkeyReads;
  readonly #content: ValkeyContent;
  readonly #frame = new FrameWriter();
  readonly #known: KnownKeys;
  readonly #digests: SlotDigests;
  #readingKeys = false;
  readonly #logger: Logger;
  readonly #label: string;

  /**
   * @param server a URL, whose forms are in valkey-url.ts, or an object with ioredis's names.
   * Throws ConfigError when it is neither.
   */
  constructor(server: string | ValkeyServerOptions, options: ValkeyStoreOptions = {}) {
    const { at, ...access } = typeof server === 'string' ? parseValkeyUrl(server) : addressOf(server);
    if ('seeds' in at) throw new ConfigError('a cluster needs its own store: open it with openStore');
    const address = { at, ...access };
    this.#label = address.label;
    this.#logger = options.logger ?? silentLogger;
    this.#connection = new ValkeyConnection(address, {
      timers: options.timers ?? systemTimers,
      random: options.random ?? Math.random,
      logger: this.#logger,
      answerTimeoutMs: options.answerTimeoutMs ?? 5000,
    });
    this.#known = new KnownKeys(options.random ?? Math.random, options.readKeysAfter);
    this.#digests = new SlotDigests(this.#known);
    this.#reads = new ValkeyReads(this.#connection);
    this.#content = new ValkeyContent(this.#connection, this.#reads);
  }

  get era(): number {
    return this.#digests.era;
  }

  isAbsent(key: ByteString): boolean {
    const absent = this.#known.isAbsent(key);
    if (!absent && this.#known.isWanted && !this.#readingKeys) void this.#readKeys();
    return absent;
  }

  /** Reads which keys have a header, some slots after the other. */
  async #readKeys(): Promise<void> {
    this.#readingKeys = true;
    try {
      while (this.#known.isWanted) {
        const { slots, token } = this.#known.begin(SLOTS_AT_ONCE);
        const keys = await this.#content.slotKeys(slots, MOST_KEYS_OF_SLOT);
        for (const [i, slot] of slots.entries()) this.#known.learn(token, slot, keys[i]!);
      }
    } catch {
      // What wasn't read isn't known; it may be asked for again.
      this.#known.forget();
    } finally {
      this.#readingKeys = false;
    }
  }

  async open(): Promise<StoreFacts> {
    let { facts, info } = await this.#connection.open();
    for (;;) {
      const mark = facts.get(META.clearing);
      if (mark === undefined) break;
      await finishClearing(this.#connection, mark);
      ({ facts, info } = await this.#connection.open());
    }
    for (const warning of info.warnings) this.#logger.warn({ store: this.#label }, warning);
    return { ...factsOf(facts, info), server: this.describe() };
  }

  async refresh(): Promise<StoreFacts> {
    const { facts, info } = await this.#connection.facts();
    return { ...factsOf(facts, info), server: this.describe() };
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

  retire(peerId: string, silentMs: number): Promise<boolean> {
    return this.#connection.retire(peerId, silentMs);
  }

  load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    return this.#content.load(requests);
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(commit);
    // Now, not when it is sent: that may be later, and what is called meanwhile must know of it.
    for (const write of commit.writes)
      if (write.header !== null && (write.first ?? write.expected === null))
        this.#known.stores(keySlot(write.key), write.key);
    const script = onlyRemoves(commit) ? 'remove' : 'commit';
    let asked: Asked | null = null;
    const answer = await this.#connection.commit(script, (sender) => {
      const bytes = writeCommit(this.#frame, commit, sender, this.#digests);
      asked = this.#digests.end();
      return [bytes];
    });
    if (answer !== null && answer !== 'DONE' && asked !== null) this.#digests.learn(asked, answer);
    return { crowded: answer?.startsWith('DONE*') === true };
  }

  readFrames(replica: ReplicaId, fromNumber: number, maxBytes: number): Promise<LoggedFrame[]> {
    return this.#content.readFrames(logKey(replica), replica, fromNumber, maxBytes);
  }

  async trimLog(replica: ReplicaId, throughNumber: number): Promise<void> {
    await this.#connection.script('trim', [
      argument(logKey(replica)),
      String(Math.max(0, throughNumber) + 1),
    ]);
  }

  digests(): Promise<Map<number, number>> {
    return this.#content.digests(ALL_SLOTS);
  }

  headers(slots: readonly number[], maxBytes: number): Promise<[ByteString, ByteString][][]> {
    return this.#content.headers(slots, maxBytes);
  }

  saveNotes(notes: ByteString, expected: ByteString | null): Promise<ByteString | null> {
    return this.#connection.saveNotes(notes, expected);
  }

  clear(reason: DropReason): Promise<void> {
    return this.#connection.clear(reason);
  }

  slotContent(slot: number): Promise<SlotContent> {
    this.#digests.forget(slot);
    return this.#content.slotContent(slot);
  }

  scanMembers(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; members: ByteString[] } | WrongType> {
    return this.#content.scanMembers(key, cursor, count);
  }

  scanEntries(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; entries: Map<ByteString, ByteString> }> {
    return this.#content.scanEntries(key, cursor, count);
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
