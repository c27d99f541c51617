/** Reads what the hash of facts says. A node stands in it as `replica born clean writer`; see layout.ts. */
import type { ByteString } from '../../crdts/bytes.js';
import { META } from './layout.js';
import type { AppliedMark, DroppedData, StoredIdentity, StoreFacts } from './store.js';
import type { ServerInfo } from './valkey-health.js';

/**
 * What stands in the store for a clean shutdown: the run id of the server that it was told to. '0' = not clean.
 *
 * A server that was started since then may hold a backup, or a copy that had not caught up; the mark in it must not let a
 * node go on as if nothing was done after it.
 */
export function cleanMark(identity: StoredIdentity | null, info: ServerInfo | undefined): string {
  return identity?.clean ? (info?.runId ?? '') || '1' : '0';
}

/** What stands for an epoch or a writer that isn't known. */
const UNKNOWN = '-';

/** Name of the field of a node. */
export function nodeField(peerId: string): string {
  return META.nodePrefix + peerId;
}

/** The value of a node's field, when its store commits under this name. */
export function nodeRecord(identity: StoredIdentity, info: ServerInfo | undefined, writer: string): string {
  return `${identity.replica} ${identity.born ?? UNKNOWN} ${cleanMark(identity, info)} ${writer}`;
}

/** The identities in the hash of facts, one that an earlier release stored included. */
function identitiesOf(facts: ReadonlyMap<string, ByteString>, info: ServerInfo): StoredIdentity[] {
  const found: StoredIdentity[] = [];
  const add = (peerId: string, replica: string, born: string, clean: string): void => {
    const epoch = born === UNKNOWN ? null : Number(born);
    const identity = { peerId, replica, born: epoch, clean: true };
    found.push({ ...identity, clean: clean === cleanMark(identity, info) });
  };
  for (const [field, value] of facts) {
    if (!field.startsWith(META.nodePrefix)) continue;
    const [replica = '', born = UNKNOWN, clean = ''] = value.split(' ');
    add(field.slice(META.nodePrefix.length), replica, born, clean);
  }
  const [peerId, replica] = [facts.get(META.oldPeerId), facts.get(META.oldReplica)];
  if (peerId !== undefined && replica !== undefined && !facts.has(nodeField(peerId)))
    add(peerId, replica, UNKNOWN, facts.get(META.oldClean) ?? '');
  return found;
}

/** The applied vector in the hash of facts. */
export function appliedOf(facts: ReadonlyMap<string, ByteString>): AppliedMark[] {
  const marks: AppliedMark[] = [];
  for (const [field, value] of facts) {
    if (!field.startsWith(META.appliedPrefix)) continue;
    const [number, stamp] = value.split(' ').map(Number);
    if (number === undefined || stamp === undefined) continue;
    marks.push({ replica: field.slice(META.appliedPrefix.length), number, stamp });
  }
  return marks;
}

/** What the hash of facts tells; all but the server's own. */
export function factsOf(
  facts: ReadonlyMap<string, ByteString>,
  info: ServerInfo,
): Omit<StoreFacts, 'server'> {
  const dataset = facts.get(META.dataset) ?? '';
  return {
    identities: identitiesOf(facts, info),
    applied: appliedOf(facts),
    notes: facts.get(META.notes) ?? null,
    dataset,
    // Where the server doesn't tell its run id, a copy of the data can't be told from the data.
    place: info.runId === '' ? '' : `${dataset}@${info.runId.slice(0, 16)}`,
    dropped: droppedOf(facts),
  };
}

/** What was removed before, by the hash of facts. */
function droppedOf(facts: ReadonlyMap<string, ByteString>): DroppedData | null {
  const [dataset, reason] = facts.get(META.dropped)?.split(' ') ?? [];
  if (dataset === undefined || (reason !== 'forgotten' && reason !== 'outdated')) return null;
  return { dataset, reason };
}
