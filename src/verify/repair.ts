/**
 * Repairs what stands in this region's store, and not as the metadata say: native values from headers and entries, native
 * strings whose bytes stand nowhere else from other regions, metadata from other regions too. Never touches a native key that no
 * header knows of.
 *
 * Each write expects the header that it was decided on, so it can't undo what is newer: then it is decided anew.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests, subtractDigests } from '../../crdts/digest.js';
import { deadlineOf } from '../../crdts/expiry.js';
import { winningPart, winningType } from '../../crdts/key-state.js';
import type { Register } from '../../crdts/register.js';
import { DecodeError, StaleCommitError } from '../errors.js';
import type { Logger } from '../options.js';
import type { KeyRules } from '../replica/key-rules.js';
import { slotTags } from '../store/slots.js';
import type { KeyWrite, NativeWrite, Store } from '../store/store.js';
import { headerDigest, UNREADABLE_DIGEST } from './cut-member.js';
import type { DeepCheck, KeyReading } from './deep-check.js';
import { entryDigest } from './deep-check.js';
import { contentOf, expectedString } from './judge.js';
import { bytesFrom, toBytes } from './wire.js';

export interface RepairOptions {
  readonly store: Store;
  readonly rules: KeyRules;
  readonly check: DeepCheck;
  readonly logger: Logger;
  /** Commits; see Replica.rewrite. */
  readonly rewrite: (writes: readonly KeyWrite[]) => Promise<void>;
  /** Asks every other member that is present; who doesn't answer is left out. */
  readonly askOthers: <T>(
    question: readonly unknown[],
    read: (parts: unknown[]) => T,
  ) => Promise<{ readonly replica: string; readonly answer: T }[]>;
  /** Pulls whole states from all members that are present. */
  readonly pullAll: () => Promise<void>;
  /** This node's own replica id. */
  readonly ownReplica: () => string;
}

/** How often a repair is decided anew, because the key has changed meanwhile. */
const TRIES = 5;
const NEVER_REMOVED = 'what was written past the node is never removed';

export class Repair {
  readonly #options: RepairOptions;

  constructor(options: RepairOptions) {
    this.#options = options;
  }

  /** Repairs one fault; gives 'repaired', or why it was left. */
  async run(kind: string, key: ByteString | null, slot: number): Promise<string> {
    const { logger } = this.#options;
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      try {
        const outcome =
          key === null || kind === 'header damaged' ? await this.#slot(slot) : await this.#key(key, kind);
        logger.warn({ kind, slot, outcome }, 'repaired what a verification found');
        return outcome;
      } catch (error) {
        if (!(error instanceof StaleCommitError)) return (error as Error).message;
      }
    }
    return 'it changes too often: try again';
  }

  /** Takes headers out that can't be read, brings the slot's digest to what its headers say, and fetches what is missing then. */
  async #slot(slot: number): Promise<string> {
    const { store, rewrite, pullAll } = this.#options;
    const { digest, headers } = await store.slotContent(slot);
    const writes: KeyWrite[] = [];
    let sum = 0;
    let any: [ByteString, ByteString] | null = null;
    for (const [key, header] of headers) {
      const one = headerDigest(key, header);
      if (one === UNREADABLE_DIGEST) writes.push({ key, expected: header, header: null, digest: 0 });
      else {
        sum = addDigests(sum, one);
        any = [key, header];
      }
    }
    const correction = subtractDigests(sum, digest);
    // The tag of a slot belongs to the slot itself: a name to stand for it where it has no key.
    const [key, header] = any ?? [slotTags()[slot]!, null];
    if (correction !== 0) writes.push({ key, expected: header, header, digest: correction });
    if (writes.length > 0) await rewrite(writes);
    await pullAll();
    return 'repaired';
  }

  async #key(key: ByteString, kind: string): Promise<string> {
    const { rewrite, check } = this.#options;
    const reading = (await check.read([key])).get(key);
    if (reading === null) return 'it changes too often: try again';
    if (reading === undefined) return kind === 'unreplicated' ? NEVER_REMOVED : 'it has no header any more';
    const { record } = reading;
    // Found by comparing with other regions; nothing here says which bytes are right.
    const alien =
      kind === 'native differs' && expectedString(record, this.#options.rules.resolve) === 'unknown';
    if (reading.faults.length === 0 && !alien) return 'repaired';
    if (reading.faults.some(({ kind }) => kind === 'unreplicated')) return NEVER_REMOVED;
    let write: KeyWrite = { key, expected: record.header, header: record.header, digest: 0 };
    if (reading.faults.some(({ kind }) => kind === 'entries damaged')) {
      const entries = await this.#entries(key, record.membersDigest);
      if (entries === null) return 'no other region has the entries that its header was written with';
      write = { ...write, clearEntries: true, entries: [...entries] };
    }
    if (winningType(record.state) !== 'none') {
      write = { ...write, expireAtMs: deadlineOf(record.state.expiry) };
    }
    if (
      winningType(record.state) !== 'none' &&
      (alien || reading.faults.some(({ kind: what }) => what !== 'expiry differs'))
    ) {
      const native = await this.#native(reading);
      if (native === null) return 'no other region has the bytes of this write, or they do not agree';
      write = { ...write, native };
    }
    await rewrite([write]);
    return 'repaired';
  }

  async #native({ record, native }: KeyReading): Promise<NativeWrite | null> {
    const { rules } = this.#options;
    if (winningPart(record.state) === 'set') return { kind: 'rebuild' };
    const expected = expectedString(record, rules.resolve);
    if (expected === null) return null;
    if (expected !== 'unknown') return { kind: 'string', value: expected };
    const mine = contentOf(record, native, rules.resolve);
    const value = await this.#vote(record.key, record.state.string!.register, mine?.value ?? null);
    return value === null ? null : { kind: 'string', value };
  }

  /** The bytes of a write as most regions have them natively; in a tie, as the region has them that wrote it. */
  async #vote(
    key: ByteString,
    { stamp, replica }: Register,
    mine: ByteString | null,
  ): Promise<ByteString | null> {
    const { askOthers, ownReplica } = this.#options;
    const answers = await askOthers(['value', toBytes(key), stamp, replica], ([value]) =>
      value === null ? null : bytesFrom(value, 'value'),
    );
    const votes = [...answers, { replica: ownReplica(), answer: mine }];
    const counts = new Map<ByteString, number>();
    for (const { answer } of votes) if (answer !== null) counts.set(answer, (counts.get(answer) ?? 0) + 1);
    const best = Math.max(0, ...counts.values());
    const leading = [...counts].filter(([, votesFor]) => votesFor === best).map(([value]) => value);
    if (leading.length === 1) return leading[0]!;
    const identity = replica.slice(0, replica.indexOf('.') + 1);
    const maker = votes.find((vote) => vote.replica.startsWith(identity))?.answer ?? null;
    return maker !== null && leading.includes(maker) ? maker : null;
  }

  async #entries(key: ByteString, digest: number): Promise<Map<ByteString, ByteString> | null> {
    const answers = await this.#options.askOthers(['entries', toBytes(key), digest], (flat) => {
      const found = new Map<ByteString, ByteString>();
      for (let i = 0; i < flat.length; i += 2)
        found.set(bytesFrom(flat[i], 'element'), bytesFrom(flat[i + 1], 'entry'));
      let sum = 0;
      for (const [member, entry] of found) sum = addDigests(sum, entryDigest(key, member, entry));
      if (found.size > 0 && sum !== digest) throw new DecodeError('other entries came than were asked for');
      return found;
    });
    return answers.find(({ answer }) => answer.size > 0)?.answer ?? null;
  }
}
