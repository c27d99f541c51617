/** Turns a commit into the one argument of the commit script (commit-script.ts says how it reads it). */
import type { ByteString } from '../../crdts/bytes.js';
import { ArgumentError } from '../../crdts/errors.js';
import type { FrameWriter } from './frame-writer.js';
import { entriesKey, logKey, META, slotHashKey } from './layout.js';
import { keySlot } from './slots.js';
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

/** Groups the writes by slot, so that a slot's headers are compared and stored in one command each. */
function bySlot(writes: readonly KeyWrite[]): Map<number, KeyWrite[]> {
  const groups = new Map<number, KeyWrite[]>();
  for (const write of writes) {
    const slot = keySlot(write.key);
    const group = groups.get(slot);
    if (group === undefined) groups.set(slot, [write]);
    else group.push(write);
  }
  return groups;
}

function writeHeaders(out: FrameWriter, writes: readonly KeyWrite[]): void {
  const groups = bySlot(writes);
  out.array(groups.size * 3 + writes.length * 3);
  for (const [slot, group] of groups) {
    let digest = 0;
    for (const write of group) digest = (digest + write.digest) % 2 ** 48;
    out.string(slotHashKey(slot));
    out.number(digest);
    out.number(group.length);
    for (const { key, expected, header } of group) {
      out.string(key);
      out.optional(expected);
      out.optional(header);
    }
  }
}

function writeEntries(out: FrameWriter, writes: readonly KeyWrite[]): void {
  const touched = writes.filter((w) => w.clearEntries || w.header === null || (w.entries?.length ?? 0) > 0);
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
    if (native?.kind === 'string') strings += 1;
    else if (native?.kind === 'delete') deletes += 1;
    else if (native?.kind === 'set') sets += 1;
    else if (native?.kind === 'rebuild') rebuilds += 1;
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
    if (!Number.isInteger(digest) || digest < 0 || digest >= 2 ** 48) {
      throw new ArgumentError(`digest ${digest} is not an integer from 0 to 2^48-1`);
    }
    if (
      expireAtMs !== undefined &&
      expireAtMs !== null &&
      !(Number.isSafeInteger(expireAtMs) && expireAtMs >= 0)
    ) {
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

/** Writes a commit as one frame. */
export function writeCommit(out: FrameWriter, commit: Commit, sender: CommitSender): Buffer {
  const { writes, frame, applied = [] } = commit;
  out.reset();
  out.array(13);
  out.string(sender.dataset);
  out.string(sender.writer);
  out.number(sender.session);
  out.number(sender.seq);
  if (frame === undefined) {
    out.boolean(false);
  } else {
    out.array(5);
    out.string(logKey(frame.replica));
    out.string((META.appliedPrefix + frame.replica) as ByteString);
    out.string(decimal(frame.number));
    out.string(decimal(frame.stamp));
    out.raw(frame.bytes);
  }
  out.array(applied.length * 3);
  for (const mark of applied) {
    out.string((META.appliedPrefix + mark.replica) as ByteString);
    out.string(decimal(mark.number));
    out.string(decimal(mark.stamp));
  }
  writeHeaders(out, writes);
  writeEntries(out, writes);
  writeNatives(out, writes); // four arrays
  writeExpiries(out, writes);
  return out.bytes();
}
