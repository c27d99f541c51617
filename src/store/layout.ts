/**
 * Names of what we keep in Valkey. Everything stands under one reserved prefix; what belongs to a key stands in the
 * key's own hash slot, by the slot's tag:
 *
 *     __mesh:{tag}h          hash of a slot: key → header; its digest is the field named like the hash itself
 *     __mesh:{tag}e:KEY      hash of a set: element → entry; of a big set a string, the directory of its pages (entry-pages.ts)
 *     __mesh:{tag}pNUMBER:KEY  a page of a big set, a hash: element → hash of the element, entry
 *     __mesh:log:REPLICA     stream of that replica's frames: the id is the frame's number, s = stamp, b = bytes
 *     __mesh:meta            hash of facts about the store and its nodes, see META
 *
 * In a cluster the last two exist once for each server, in a slot of its own, the anchor (cluster-parts.ts):
 *
 *     __mesh:{tag}m          hash of facts
 *     __mesh:{tag}m:p        a commit that was prepared there (cluster-commit.ts)
 *     __mesh:{tag}log:REPLICA
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { keySlot, SLOTS, slotTags } from './slots.js';

/** Every key that begins so is ours: hidden from clients, and refused when they name it. */
export const RESERVED_PREFIX = '__mesh:';

/** The hash of facts. */
export const META_KEY = `${RESERVED_PREFIX}meta` as ByteString;

/** Fields of the hash of facts. */
export const META = {
  /** Random name of this data set: another one there means that ours is lost. */
  dataset: 'dataset',
  /** Number of keys under the reserved prefix, this one included. */
  reserved: 'reserved',
  /** + PeerId → `replica born clean writer`, of each node that uses the store; see valkey-facts.ts. */
  nodePrefix: 'n:',
  /** One node's identity, as it stood in earlier releases: read, and moved to its own field with the next identity that is stored. */
  oldPeerId: 'peer',
  oldReplica: 'replica',
  oldClean: 'clean',
  /** What the nodes remember besides, opaque. */
  notes: 'notes',
  /** A name for it while everything is being removed; see valkey-clear.ts. */
  clearing: 'clearing',
  /** Which data set was removed here last, and why: `dataset reason`. */
  dropped: 'dropped',
  /** Which writer has been the only one to commit, and since its how manyth turn: `number:writer`; see slot-digests.ts. */
  turn: 'turn',
  /** + replica id → `number stamp`. */
  appliedPrefix: 'a:',
  /** + id of a store object → its session and how many commits of it took effect; see commit-script.ts. */
  writerPrefix: 'w:',
} as const;

/** Says whether a key is one of ours. */
export function isReservedKey(key: ByteString): boolean {
  return key.startsWith(RESERVED_PREFIX);
}

let slotHashes: ByteString[] | null = null;

/** Names of the header hashes, by slot. The digest of a slot is the field of that same name. */
export function slotHashKeys(): readonly ByteString[] {
  slotHashes ??= slotTags().map((tag) => `${RESERVED_PREFIX}{${tag}}h` as ByteString);
  return slotHashes;
}

/** Name of a slot's header hash. */
export function slotHashKey(slot: number): ByteString {
  const name = slotHashKeys()[slot];
  if (name === undefined) throw new RangeError(`slot ${slot} is not in 0 … ${SLOTS - 1}`);
  return name;
}

/** Name of the hash that holds a set's entries, or of the directory of its pages. */
export function entriesKey(key: ByteString): ByteString {
  return `${RESERVED_PREFIX}{${slotTags()[keySlot(key)]}}e:${key}` as ByteString;
}

/** Name of a page of a big set's entries. */
export function entryPageKey(key: ByteString, page: number): ByteString {
  return `${RESERVED_PREFIX}{${slotTags()[keySlot(key)]}}p${page}:${key}` as ByteString;
}

/** Name of the stream that holds a replica's frames. */
export function logKey(replica: ReplicaId): ByteString {
  return `${RESERVED_PREFIX}log:${replica}` as ByteString;
}

/** Name of the hash of facts that is anchored in a slot. */
export function partMetaKey(slot: number): ByteString {
  return `${RESERVED_PREFIX}{${slotTags()[slot]}}m` as ByteString;
}

/** Name of the stream of a replica's frames that is anchored in a slot. */
export function partLogKey(slot: number, replica: ReplicaId): ByteString {
  return `${RESERVED_PREFIX}{${slotTags()[slot]}}log:${replica}` as ByteString;
}
