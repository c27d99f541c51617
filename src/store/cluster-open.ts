/**
 * What the parts of a cluster together know when they are opened: whether all have what they should, and the facts that hold then.
 *
 * A commit leaves its vector with each part that it touches: for each part the last commit of that writer which touched it. A writer's last
 * vector, the one with the highest number, thus names what every part must have. Where all have it, a mark that one part knows holds for
 * all, because what it covers touched the others not at all, or before. Where one has less, it lost its end (a failover, a restart
 * without it), and only the marks that every part knows are certain. Being behind does no harm: frames are merged once more. The others
 * then forget what they know beyond that (agreeOnMarks), so that it isn't taken for done afterwards. Frames that the logs of other parts hold
 * beyond the marks may be nowhere else: they are told to whoever opens the store (StoreFacts.unapplied), until they have been merged.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { PART } from './cluster-scripts.js';
import { META } from './layout.js';
import type { AppliedMark, StoredIdentity, StoreFacts } from './store.js';
import { factsOf } from './valkey-facts.js';
import type { ServerInfo } from './valkey-health.js';

/** One part's hash of facts, as it was found. */
export interface FoundPart {
  readonly anchor: number;
  readonly facts: ReadonlyMap<string, ByteString>;
  readonly info: ServerInfo;
  /** It isn't used any more: it tells only whether it still is there. */
  readonly retired: boolean;
}

/** What all parts together know. */
export interface ClusterFacts {
  readonly facts: Omit<StoreFacts, 'server'>;
  /** No part has lost anything that another one knows of. */
  readonly complete: boolean;
  /** Writers that have left a vector. */
  readonly vectors: number;
}

/** Notes as they are stored: a number that goes up, then the notes. */
export interface StoredNotes {
  readonly number: number;
  readonly notes: ByteString | null;
}

/** Writes notes as they are stored. */
export function numberedNotes(number: number, notes: ByteString): ByteString {
  return `${number}:${notes}` as ByteString;
}

/** Reads notes as they are stored. */
export function readNotes(stored: ByteString | null | undefined): StoredNotes {
  if (stored === null || stored === undefined) return { number: 0, notes: null };
  const colon = stored.indexOf(':');
  return { number: Number(stored.slice(0, colon)), notes: stored.slice(colon + 1) as ByteString };
}

/**
 * Puts together what the parts know. `live`: this store has been open all along, so what one part knows holds for all, or
 * is about to; its connections notice when anything is lost.
 */
export function clusterFacts(all: readonly FoundPart[], live: boolean): ClusterFacts {
  const looked = looksComplete(all);
  const complete = live || looked.complete;
  const parts = all.filter(({ retired }) => !retired).sort((one, two) => one.anchor - two.anchor);
  const each = parts.map(({ facts, info }) => factsOf(facts, info));
  const [first] = each;
  const notes = each
    .map((one) => readNotes(one.notes))
    .reduce((one, two) => (two.number > one.number ? two : one));
  const facts = {
    identities: identitiesOfAll(each).map((one) => ({ ...one, clean: one.clean && complete })),
    applied: appliedOfAll(each, complete),
    notes: notes.notes,
    dataset: first!.dataset,
    place: first!.place,
    dropped: first!.dropped,
  };
  return { facts, complete: looked.complete, vectors: looked.vectors };
}

function looksComplete(parts: readonly FoundPart[]): { complete: boolean; vectors: number } {
  /** Writer → part → its vector there. */
  const writers = new Map<string, Map<number, { number: number; last: string }>>();
  for (const { anchor, facts } of parts) {
    for (const [field, value] of facts) {
      if (!field.startsWith(META.writerPrefix) || !field.endsWith(PART.vectorSuffix)) continue;
      const [number = '0', last = ''] = value.slice(0, value.lastIndexOf(':')).split('|');
      let known = writers.get(field);
      if (known === undefined) {
        known = new Map();
        writers.set(field, known);
      }
      known.set(anchor, { number: Number(number), last });
    }
  }
  let complete = writers.size > 0;
  for (const known of writers.values()) {
    let newest = { number: 0, last: '' };
    for (const each of known.values()) if (each.number >= newest.number) newest = each;
    for (const each of newest.last.split(',').filter((one) => one !== '')) {
      const [anchor, number] = each.split('=').map(Number);
      if ((known.get(anchor!)?.number ?? 0) < number!) complete = false;
    }
  }
  return { complete, vectors: writers.size };
}

type PartFacts = Pick<StoreFacts, 'applied' | 'identities'>;

function appliedOfAll(parts: readonly PartFacts[], complete: boolean): AppliedMark[] {
  const marks = new Map<string, { mark: AppliedMark; parts: number }>();
  for (const { applied } of parts) {
    for (const mark of applied) {
      const other = marks.get(mark.replica);
      const better =
        other === undefined || (complete ? mark.number > other.mark.number : mark.number < other.mark.number);
      marks.set(mark.replica, { mark: better ? mark : other.mark, parts: (other?.parts ?? 0) + 1 });
    }
  }
  return [...marks.values()]
    .filter((each) => complete || each.parts === parts.length)
    .map(({ mark }) => mark);
}

/** A node was shut down cleanly only if all parts say so, of the same replica. */
function identitiesOfAll(parts: readonly PartFacts[]): StoredIdentity[] {
  const found = new Map<string, { identity: StoredIdentity; parts: number }>();
  for (const { identities } of parts) {
    for (const identity of identities) {
      const other = found.get(identity.peerId);
      if (other === undefined) found.set(identity.peerId, { identity, parts: 1 });
      else {
        const clean = other.identity.clean && identity.clean && other.identity.replica === identity.replica;
        found.set(identity.peerId, { identity: { ...other.identity, clean }, parts: other.parts + 1 });
      }
    }
  }
  return [...found.values()].map(({ identity, parts: count }) => ({
    ...identity,
    clean: identity.clean && count === parts.length,
  }));
}
