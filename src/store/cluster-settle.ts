/**
 * How a commit of several parts that was decided comes to its end (cluster-commit.ts says what it is), also when whoever began it is
 * gone, and when slots have moved since it was prepared.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { StaleCommitError, StoreRefusedError, StoreUnavailableError } from '../errors.js';
import type { Timers } from '../timers.js';
import type { ClusterParts, Part } from './cluster-parts.js';
import { PART, PENDING_SUFFIX } from './cluster-scripts.js';
import { type CommitSender, writeCommit } from './commit-frame.js';
import { readCommit } from './frame-reader.js';
import { FrameWriter } from './frame-writer.js';
import { partLogKey, slotHashKey } from './layout.js';
import type { CommitDigests } from './slot-digests.js';
import { keySlot } from './slots.js';
import type { Commit, KeyWrite } from './store.js';
import { LOCKED_REASON } from './valkey-connection.js';
import { MOVED_REASON } from './valkey-errors.js';
import { type Argument, argument, bytesOf, listOf, type Reply } from './valkey-link.js';

/** In a cluster the script adds up the digests itself: a slot may be changed elsewhere and come back. */
export const NO_DIGESTS: CommitDigests = { era: Number.NaN, begin: () => '', next: () => null };

/** Says that something was refused only because of where it was sent, or when: it is tried again. */
export function isElsewhere(error: unknown): error is StoreRefusedError {
  return (
    error instanceof StoreRefusedError &&
    [MOVED_REASON, LOCKED_REASON, 'CLUSTERDOWN', 'READONLY', 'MASTERDOWN', 'LOADING'].includes(
      error.reason ?? '',
    )
  );
}

/** How long another writer's lock may stay before it is taken for left behind. */
export const LOCK_PATIENCE_MS = 1000;

export function pause(timers: Timers, ms: number): Promise<void> {
  return new Promise((resolve) => {
    timers.after(ms, resolve);
  });
}

/** Has a part write what it kept; gives it, where slots have moved, what to write in its place. */
type Apply = (replacement: (sender: CommitSender) => Argument) => Promise<void>;

/**
 * Has a part write its share of a commit. Writes to slots that the part has no more are made first, where these slots are now.
 * Throws a StoreRefusedError ({@link isElsewhere}) while a slot is on its way: try again.
 */
export async function finishPart(
  parts: ClusterParts,
  part: Part,
  lock: string,
  commit: Commit,
  apply: Apply,
  frame: FrameWriter,
): Promise<void> {
  const slots = new Map<number, KeyWrite[]>();
  for (const write of commit.writes) {
    const slot = keySlot(write.key);
    if (parts.of(slot) === part) continue;
    const some = slots.get(slot);
    if (some === undefined) slots.set(slot, [write]);
    else some.push(write);
  }
  if (slots.size === 0) {
    await apply(() => '');
    return;
  }
  for (const [slot, writes] of slots) await writeMoved(parts, slot, writes, lock, frame);
  const rest: Commit = {
    ...commit,
    writes: commit.writes.filter(({ key }) => !slots.has(keySlot(key))),
  };
  const writer = lock.slice(0, lock.indexOf('|')) as ByteString;
  await apply((sender) =>
    writeCommit(frame, rest, { ...sender, writer }, NO_DIGESTS, (replica) =>
      partLogKey(part.anchor, replica),
    ),
  );
}

/** Makes the writes of a decided commit to a slot that has moved, unless they have been made. */
async function writeMoved(
  parts: ClusterParts,
  slot: number,
  writes: readonly KeyWrite[],
  lock: string,
  frame: FrameWriter,
): Promise<void> {
  const part = parts.of(slot);
  if (part === null) throw new StoreRefusedError('TRYAGAIN a slot is being moved', { reason: MOVED_REASON });
  const keys = writes.map(({ key }) => argument(key));
  const stored = listOf((await part.connection.call('HMGET', [slotHashKey(slot), ...keys])) as Reply).map(
    bytesOf,
  );
  if (writes.every(({ header }, i) => stored[i] === header)) return;
  try {
    // As what removes: what was decided must not fail for want of memory.
    await part.connection.commit('remove', (sender) => [
      writeCommit(frame, { writes }, sender, NO_DIGESTS, (replica) => partLogKey(part.anchor, replica)),
      '',
      lock,
    ]);
  } catch (error) {
    if (!(error instanceof StaleCommitError)) throw error;
    throw new StoreUnavailableError(`slot ${slot} was changed while it moved: ${error.message}`);
  }
}

interface Left {
  readonly writer: ByteString;
  readonly number: number;
  readonly anchors: readonly number[];
}

/** Reads a lock, `writer|number|anchor=number,…`. */
function readLock(lock: string): Left {
  const [writer = '', number = '', vector = ''] = lock.split('|');
  const anchors = vector.split(',').flatMap((each) => {
    const [anchor, at] = each.split('=');
    return at === number ? [Number(anchor)] : [];
  });
  return { writer: writer as ByteString, number: Number(number), anchors };
}

/** The number of the last commit of a writer that took effect on a part; 0 = none. */
export async function lastCommitOn({ connection, meta }: Part, writer: ByteString): Promise<number> {
  const vector = (await connection.call('HGET', [meta, `${writer}${PART.vectorSuffix}`])) as Reply;
  return Number.parseInt(bytesOf(vector) ?? '0', 10);
}

/**
 * Settles a commit that was left behind. Nothing of its writer can arrive any more after that, in this session of it.
 * It is written where it was decided: written on any part, or kept on all; else it is dropped.
 *
 * Where a later commit of that writer stands on any part, this one had come to its end before: a failover has brought back what is
 * kept here, and lost how it ended. If it was written, that is one of the writes that this part has lost; but it may have been dropped, and its caller told
 * so. So it isn't written.
 */
export async function settleLeft(parts: ClusterParts, lock: string, timers: Timers): Promise<void> {
  const { writer, number, anchors } = readLock(lock);
  const involved = await Promise.all(anchors.map((anchor) => parts.anchored(anchor)));
  const frame = new FrameWriter(4096);
  const states = await Promise.all(
    involved.map(async (part) => {
      const reply = listOf(await part.connection.script('fence', [writer]));
      return { part, kept: bytesOf(reply[0]) === lock, last: Number.parseInt(bytesOf(reply[1]) || '0', 10) };
    }),
  );
  const others = await Promise.all(
    parts
      .all()
      .filter((part) => !involved.includes(part))
      .map((part) => lastCommitOn(part, writer)),
  );
  const last = [...states.map((state) => state.last), ...others];
  const ended = last.some((each) => each > number);
  const decided = !ended && (last.includes(number) || states.every(({ kept }) => kept));
  for (const { part, kept } of states) {
    if (!kept) continue;
    if (!decided) {
      await part.connection.script('abort', [lock, '', '', '']);
      continue;
    }
    const pending = await part.connection.call('GET', [`${part.meta}${PENDING_SUFFIX}`]);
    if (!Buffer.isBuffer(pending)) continue;
    const { commit } = readCommit(pending);
    const apply: Apply = async (replacement) => {
      const reply = await part.connection.script('apply', (sender) => [lock, '', '', replacement(sender)]);
      const said = bytesOf(reply) ?? '';
      if (said.startsWith(MOVED_REASON))
        throw new StoreRefusedError(`TRYAGAIN ${said}`, { reason: MOVED_REASON });
    };
    for (let tries = 0; ; tries += 1) {
      try {
        await finishPart(parts, part, lock, commit, apply, frame);
        break;
      } catch (error) {
        if (!isElsewhere(error) || tries > 100) throw error;
        await pause(timers, 20);
        await parts.refresh();
      }
    }
  }
}
