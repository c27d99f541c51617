/** The steps by which the parts of a cluster are brought in order when a store is opened on them, and what they tell of nodes. */
import type { ByteString } from '../../crdts/bytes.js';
import type { Timers } from '../timers.js';
import type { FoundPart } from './cluster-open.js';
import type { ClusterParts, Part } from './cluster-parts.js';
import { partOf } from './cluster-reads.js';
import { PART } from './cluster-scripts.js';
import { LOCK_PATIENCE_MS, pause, settleLeft } from './cluster-settle.js';
import { META, partMetaKey } from './layout.js';
import type { AppliedMark } from './store.js';
import { finishClearingPart } from './valkey-clear.js';
import { nodeField } from './valkey-facts.js';
import { argument, bytesOf, listOf, numberOf, type Reply } from './valkey-link.js';

/** Goes on with a clearing that has begun; says whether there was one. */
export async function finishClearing(parts: ClusterParts, found: readonly FoundPart[]): Promise<boolean> {
  const marked = found.find(({ facts }) => facts.has(META.clearing))?.facts;
  const mark = marked?.get(META.clearing);
  if (mark === undefined) return false;
  const reason = marked?.get(META.dropped)?.split(' ')[1] ?? '';
  const servers = parts.topology.servers();
  await Promise.all(
    parts.all().map(async ({ connection, meta, server }) => {
      // Those that it hasn't reached yet; one with other data has begun anew.
      await connection.script('clear', [argument(mark), reason]);
      await finishClearingPart(connection, meta, mark, servers.get(server)?.slots ?? []);
    }),
  );
  return true;
}

/** Gives all parts one name of the data, where some have lost theirs; says whether it had to. */
export async function nameAlike(
  parts: ClusterParts,
  found: readonly FoundPart[],
  name: string,
): Promise<boolean> {
  const others = found.filter(({ retired, facts }) => !retired && facts.get(META.dataset) !== name);
  for (const { anchor } of others)
    await partOf(parts, anchor).connection.call('HSET', [partMetaKey(anchor), META.dataset, name]);
  return others.length > 0;
}

/** Settles what writers have left behind: of this store's `own` at once. */
export async function settleLocks(
  parts: ClusterParts,
  own: ReadonlySet<string>,
  timers: Timers,
): Promise<void> {
  const seen = new Map<string, number>();
  for (;;) {
    const locks = new Set<string>();
    for (const anchor of parts.anchors) {
      const { connection } = partOf(parts, anchor);
      const lock = bytesOf((await connection.call('HGET', [partMetaKey(anchor), PART.lock])) as Reply);
      if (lock !== null) locks.add(lock);
    }
    if (locks.size === 0) return;
    const now = performance.now();
    for (const lock of locks) {
      const since = seen.get(lock) ?? now;
      seen.set(lock, since);
      const mine = own.has(lock.slice(0, lock.indexOf('|')));
      if (mine || now - since > LOCK_PATIENCE_MS) await settleLeft(parts, lock, timers);
    }
    await pause(timers, 20);
  }
}

/** The hashes of facts of all anchors; those in use come first. */
export async function findParts(parts: ClusterParts): Promise<FoundPart[]> {
  const used = parts.all();
  const found = await Promise.all(
    used.map(async ({ anchor, meta, connection }) => ({
      anchor,
      retired: false,
      facts: factsIn((await connection.call('HGETALL', [meta])) as Reply),
      info: connection.session!.info,
    })),
  );
  for (const anchor of parts.anchors) {
    if (used.some((part) => part.anchor === anchor)) continue;
    const { connection } = partOf(parts, anchor);
    const facts = factsIn((await connection.call('HGETALL', [partMetaKey(anchor)])) as Reply);
    found.push({ anchor, retired: true, facts, info: connection.session!.info });
  }
  return found;
}

/**
 * A part has lost its end: has all parts forget the marks that not all of them know, or what the others know would be taken for done on that
 * part too. Says whether there were any. Other nodes that use the store have to open it again.
 */
export async function agreeOnMarks(
  parts: ClusterParts,
  found: readonly FoundPart[],
  agreed: readonly AppliedMark[],
  writer: ByteString,
): Promise<boolean> {
  const numbers = new Map(agreed.map(({ replica, number }) => [META.appliedPrefix + replica, number]));
  const marksIn = ({ facts }: FoundPart) =>
    [...facts].filter(([field]) => field.startsWith(META.appliedPrefix));
  const isAhead = ([field, value]: [string, string]) => Number.parseInt(value, 10) !== numbers.get(field);
  if (!found.some((part) => marksIn(part).some((mark) => part.retired || isAhead(mark)))) return false;
  const marks = agreed.flatMap(({ replica, number, stamp }) => [
    META.appliedPrefix + replica,
    `${number} ${stamp}`,
  ]);
  await Promise.all(
    parts.all().map(({ connection }) => connection.script('agree', [argument(writer), ...marks])),
  );
  for (const part of found.filter(({ retired }) => retired)) {
    const fields = marksIn(part).map(([field]) => field);
    if (fields.length > 0)
      await partOf(parts, part.anchor).connection.call('HDEL', [partMetaKey(part.anchor), ...fields]);
  }
  return true;
}

/** Drops vectors: all, or those of writers that have ended. */
export async function dropVectors(
  parts: ClusterParts,
  found: readonly FoundPart[],
  all: boolean,
): Promise<void> {
  for (const { anchor, facts } of found) {
    const ended = [...facts.keys()].filter(
      (field) =>
        field.startsWith(META.writerPrefix) &&
        field.endsWith(PART.vectorSuffix) &&
        (all || !facts.has(field.slice(0, -PART.vectorSuffix.length))),
    );
    if (ended.length === 0) continue;
    await partOf(parts, anchor).connection.call('HDEL', [partMetaKey(anchor), ...ended]);
  }
}

/** Says whether a node has given a sign of life on a part. */
export async function isAlive(
  { connection, meta }: Part,
  peerId: string,
  silentMs: number,
): Promise<boolean> {
  const record = bytesOf(
    (await connection.call('HGET', [meta, argument(nodeField(peerId) as ByteString)])) as Reply,
  );
  const writer = record?.split(' ').at(-1);
  if (writer === undefined) return false;
  const [used, [seconds]] = await Promise.all([
    connection.call('HGET', [meta, argument(writer as ByteString)]),
    connection.call('TIME', []).then((reply) => listOf(reply as Reply)),
  ]);
  const usedS = Number(
    bytesOf(used as Reply)
      ?.split(':')
      .at(-1) ?? 0,
  );
  return usedS + silentMs / 1000 > numberOf(seconds);
}

function factsIn(reply: Reply): Map<string, ByteString> {
  const flat = listOf(reply);
  const facts = new Map<string, ByteString>();
  for (let i = 0; i < flat.length; i += 2)
    facts.set(bytesOf(flat[i]) ?? '', bytesOf(flat[i + 1]) ?? ('' as ByteString));
  return facts;
}
