/** Turns a commit into the one argument of the commit script (commit-script.ts says how it reads it). */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests } from '../../crdts/digest.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { ArgumentError } from '../../crdts/errors.js';
import { entryHashes } from './entry-pages.js';
import type { FrameWriter } from './frame-writer.js';
import { entriesKey, logKey, META, slotHashKey } from './layout.js';
import type { CommitDigests } from './slot-digests.js';
import { keySlot, SLOTS, slotTags, TAG_LENGTH } from './slots.js';
import type { Commit, KeyWrite } from './store.js';

/** Who commits: the script refuses a commit that doesn't carry the next number of the running session. */
export interface CommitSender {
  readonly dataset: ByteString;
  /** Name of the writer's field in the hash of facts. */
  readonly writer: ByteString;
  readonly session: number;
  readonly seq: number;
}

const decimal = (value: number) => String(value) as ByteString;

/** Writes of one slot as a chain: where it begins and ends, and for each write the next one; -1 = none. Reused for each commit. */
const firstOf = new Int32Array(SLOTS).fill(-1);
const lastOf = new Int32Array(SLOTS);
let nextOf = new Int32Array(1024);

/** The name of a slot's hash as msgpack, whose tag {@link nameSlot} changes: quicker than to fetch one of 16,384 strings from memory. */
const slotName = Buffer.from(`\xff${slotHashKey(0)}`, 'latin1');
slotName[0] = 0xa0 | (slotName.length - 1);
const TAG_AT = 1 + slotHashKey(0).indexOf('{') + 1;
const tags = Buffer.from(slotTags().join(''), 'latin1');

function nameSlot(slot: number): void {
  for (let i = 0; i < TAG_LENGTH; i += 1) slotName[TAG_AT + i] = tags[slot * TAG_LENGTH + i]!;
}

/**
 * The headers of a commit by slot, so that a slot's are compared and stored in one command each. One for all commits, since what a batch needs is
 * thousands of numbers.
 */
class SlotPlan {
  /** Slots that are written, in order of their first write. */
  readonly #slots = new Int32Array(SLOTS);
  #count = 0;
  /** What is added to a slot's digest, and the digest after that; NaN = not known. By place in #slots. */
  readonly #added = new Float64Array(SLOTS);
  readonly #after = new Float64Array(SLOTS);
  /** Whether a slot's headers needn't be compared. */
  readonly #assured = new Uint8Array(SLOTS);
  #assuredSlots = 0;
  #assuredWrites = 0;
  #writes: readonly KeyWrite[] = [];

  /**
   * Sorts writes by slot. Those of an era that still holds (Store.era) need no comparison: the script looks whether it does, once for all of
   * them. But only where the slot's digest is known, or the script would have to read it.
   */
  begin(writes: readonly KeyWrite[], digests: CommitDigests): void {
    for (let s = 0; s < this.#count; s += 1) firstOf[this.#slots[s]!] = -1;
    this.#count = 0;
    this.#writes = writes;
    if (nextOf.length < writes.length) nextOf = new Int32Array(writes.length * 2);
    for (let i = 0; i < writes.length; i += 1) {
      const slot = keySlot(writes[i]!.key);
      if (firstOf[slot] === -1) {
        this.#slots[this.#count] = slot;
        this.#count += 1;
        firstOf[slot] = i;
      } else nextOf[lastOf[slot]!] = i;
      lastOf[slot] = i;
      nextOf[i] = -1;
    }
    this.#assuredSlots = 0;
    this.#assuredWrites = 0;
    for (let s = 0; s < this.#count; s += 1) this.#judge(s, digests);
  }

  #judge(s: number, digests: CommitDigests): void {
    const slot = this.#slots[s]!;
    let added = 0;
    let count = 0;
    let removes = false;
    let assured = true;
    for (let i = firstOf[slot]!; i >= 0; i = nextOf[i]!) {
      const { digest, header, era } = this.#writes[i]!;
      added = addDigests(added, digest);
      count += 1;
      if (header === null) removes = true;
      if (era !== digests.era) assured = false;
    }
    const after = digests.next(slot, added, removes);
    this.#added[s] = added;
    this.#after[s] = after ?? Number.NaN;
    this.#assured[s] = assured && after !== null ? 1 : 0;
    if (this.#assured[s] === 0) return;
    this.#assuredSlots += 1;
    this.#assuredWrites += count;
  }

  /** Writes what is compared: slot, what is added to its digest, the digest after that, and how many headers follow. */
  writeCompared(out: FrameWriter): void {
    const writes = this.#writes;
    out.array((this.#count - this.#assuredSlots) * 4 + (writes.length - this.#assuredWrites) * 3);
    for (let s = 0; s < this.#count; s += 1) {
      if (this.#assured[s] === 1) continue;
      const slot = this.#slots[s]!;
      let count = 0;
      for (let i = firstOf[slot]!; i >= 0; i = nextOf[i]!) count += 1;
      out.string(slotHashKey(slot));
      out.number(this.#added[s]!);
      const after = this.#after[s]!;
      if (Number.isNaN(after)) out.boolean(false);
      else out.decimal(after);
      out.number(count);
      for (let i = firstOf[slot]!; i >= 0; i = nextOf[i]!) {
        const { key, expected, header } = writes[i]!;
        out.string(key);
        out.optional(expected);
        out.optional(header);
      }
    }
  }

  /** Writes what isn't: slot, its digest after the commit, key and header of each. */
  writeAssured(out: FrameWriter): void {
    out.array(this.#assuredWrites * 4);
    for (let s = 0; s < this.#count && this.#assuredSlots > 0; s += 1) {
      if (this.#assured[s] === 0) continue;
      const slot = this.#slots[s]!;
      nameSlot(slot);
      for (let i = firstOf[slot]!; i >= 0; i = nextOf[i]!) {
        const { key, header } = this.#writes[i]!;
        out.record(slotName, this.#after[s]!, key, header!);
      }
    }
  }

  /** Lets go of the writes. */
  end(): void {
    this.#writes = [];
  }
}

const plan = new SlotPlan();

/** Those whose entries a commit changes. */
const entryWrites = (writes: readonly KeyWrite[]): readonly KeyWrite[] =>
  writes.filter((w) => w.entries !== undefined || w.clearEntries || w.header === null);

function writeEntries(out: FrameWriter, touched: readonly KeyWrite[]): void {
  out.array(touched.length * 4);
  for (const { key, header, clearEntries = false, entries = [] } of touched) {
    let stored = 0;
    for (const [, entry] of entries) if (entry !== null) stored += 1;
    out.string(entriesKey(key));
    out.boolean(clearEntries || header === null);
    out.array(stored * 2);
    for (const [element, entry] of entries) {
      if (entry === null) continue;
      out.string(element);
      out.string(entry);
    }
    out.array(entries.length - stored);
    for (const [element, entry] of entries) if (entry === null) out.string(element);
  }
}

/** For each, the hashes of the elements as {@link writeEntries} orders them: first those that are stored (entry-pages.ts). */
function writeHashes(out: FrameWriter, touched: readonly KeyWrite[]): void {
  out.array(touched.length);
  for (const { entries = [] } of touched) {
    const elements: ByteString[] = [];
    for (const [element, entry] of entries) if (entry !== null) elements.push(element);
    for (const [element, entry] of entries) if (entry === null) elements.push(element);
    out.string(entryHashes(elements));
  }
}

function writeStrings(out: FrameWriter, items: readonly ByteString[]): void {
  out.array(items.length);
  for (const item of items) out.string(item);
}

function writeNatives(out: FrameWriter, writes: readonly KeyWrite[]): void {
  let strings = 0;
  let deletes = 0;
  let sets = 0;
  let rebuilds = 0;
  for (const { native } of writes) {
    if (native === undefined) continue;
    const { kind } = native;
    if (kind === 'string') strings += 1;
    else if (kind === 'delete') deletes += 1;
    else if (kind === 'set') sets += 1;
    else rebuilds += 1;
  }
  out.array(strings * 2);
  if (strings > 0) {
    for (const { key, native } of writes) {
      if (native?.kind !== 'string') continue;
      out.string(key);
      out.string(native.value);
    }
  }
  out.array(deletes);
  if (deletes > 0) for (const { key, native } of writes) if (native?.kind === 'delete') out.string(key);
  out.array(sets * 4);
  if (sets > 0) {
    for (const { key, native } of writes) {
      if (native?.kind !== 'set') continue;
      out.string(key);
      out.string(entriesKey(key));
      writeStrings(out, native.add);
      writeStrings(out, native.remove);
    }
  }
  out.array(rebuilds * 2);
  if (rebuilds > 0) {
    for (const { key, native } of writes) {
      if (native?.kind !== 'rebuild') continue;
      out.string(key);
      out.string(entriesKey(key));
    }
  }
}

function writeExpiries(out: FrameWriter, writes: readonly KeyWrite[]): void {
  let count = 0;
  for (const write of writes) if (write.expireAtMs !== undefined) count += 1;
  out.array(count * 2);
  if (count === 0) return;
  for (const { key, expireAtMs } of writes) {
    if (expireAtMs === undefined) continue;
    out.string(key);
    out.optional(expireAtMs === null ? null : decimal(expireAtMs));
  }
}

/** Throws ArgumentError for numbers that the script could not store exactly; then nothing is sent. */
export function checkCommit(commit: Commit): void {
  for (const { digest, expireAtMs } of commit.writes) {
    if (!(digest >= 0 && digest < 2 ** 48 && Number.isInteger(digest))) {
      throw new ArgumentError(`digest ${digest} is not an integer from 0 to 2^48-1`);
    }
    if (expireAtMs === undefined || expireAtMs === null) continue;
    if (!(Number.isSafeInteger(expireAtMs) && expireAtMs >= 0)) {
      throw new ArgumentError(`expireAtMs ${expireAtMs} is not an integer from 0 to 2^53-1`);
    }
  }
  for (const { number, stamp } of [...(commit.frame ? [commit.frame] : []), ...(commit.applied ?? [])]) {
    if (!Number.isSafeInteger(number) || number < 1 || !Number.isSafeInteger(stamp) || stamp < 0) {
      throw new ArgumentError(`frame number ${number} or its stamp ${stamp} is not an integer below 2^53`);
    }
  }
}

/** Says whether a commit only takes data away: it is let through when the server is out of memory, as a DEL is. */
export function onlyRemoves({ writes }: Commit): boolean {
  return writes.length > 0 && writes.every((w) => w.native?.kind === 'delete' || w.header === null);
}

/** Writes a commit as one frame. `log`: the name of a replica's log. */
export function writeCommit(
  out: FrameWriter,
  commit: Commit,
  sender: CommitSender,
  digests: CommitDigests,
  log: (replica: ReplicaId) => ByteString = logKey,
): Buffer {
  const { writes, frame, applied = [] } = commit;
  out.reset();
  out.array(16);
  out.string(sender.dataset);
  out.string(sender.writer);
  out.number(sender.session);
  out.number(sender.seq);
  out.string(digests.begin(sender) as ByteString);
  if (frame === undefined) {
    out.boolean(false);
  } else {
    out.array(5);
    out.string(log(frame.replica));
    out.string((META.appliedPrefix + frame.replica) as ByteString);
    out.string(decimal(frame.number));
    out.string(decimal(frame.stamp));
    out.raw(frame.bytes);
  }
  out.array(applied.length * 4);
  for (const mark of applied) {
    out.string((META.appliedPrefix + mark.replica) as ByteString);
    out.string(decimal(mark.number));
    out.string(decimal(mark.stamp));
    if (mark.after === undefined) out.boolean(false);
    else out.number(mark.after);
  }
  plan.begin(writes, digests);
  plan.writeCompared(out);
  const touched = entryWrites(writes);
  writeEntries(out, touched);
  writeNatives(out, writes); // four arrays
  writeExpiries(out, writes);
  plan.writeAssured(out);
  plan.end();
  writeHashes(out, touched);
  return out.bytes();
}
