/**
 * State transfer: brings a member up to another's state, whatever it has missed: new members, trimmed logs, lost data.
 *
 * The asker sends the digests of its slots; the giver answers with its applied marks, as they are *before* it reads anything,
 * and then with the whole state of every key in the slots that differ. Merging whole states is always safe.
 *
 * Invariant: only when all differing slots have been merged are the asker's marks raised to the giver's. Raised earlier,
 * a transfer that breaks off would leave holes that nothing would ever fill.
 *
 * First, simple form: a slot is the unit of difference, and a key's whole state is one message.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests } from '../../crdts/digest.js';
import type { KeyState } from '../../crdts/key-state.js';
import { asArray } from '../../crdts/wire.js';
import { DecodeError, PeerError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import { decodeRecord } from '../replica/key-record.js';
import { pack, unpack } from '../replica/msgpack.js';
import type { RemoteItem } from '../replica/remote-batch.js';
import type { AppliedMark, Store } from '../store/store.js';
import { decodeKeyChunk, encodeKeyChunk } from './key-chunk.js';
import { count, marksFromWire, marksToWire, PROTOCOLS } from './messages.js';
import { fromPieces } from './pieces.js';

/** Keys per chunk, at most, and bytes per chunk, about. */
const CHUNK_KEYS = 256;
const CHUNK_BYTES = 256 * 1024;

const SLOTS = 16384;

/** One digest over all slots. */
export function totalDigest(digests: ReadonlyMap<number, number>): number {
  let total = 0;
  for (const digest of digests.values()) total = addDigests(total, digest);
  return total;
}

/** Reads the whole state of some keys from a store. Keys without a header are left out. */
export async function readStates(
  store: Store,
  keys: readonly ByteString[],
): Promise<[ByteString, KeyState][]> {
  const loaded = await store.load(keys.map((key) => ({ key, value: true, elements: 'all' as const })));
  const states: [ByteString, KeyState][] = [];
  for (const [i, key] of keys.entries()) {
    const record = decodeRecord(key, loaded[i]!, { value: true, whole: true, members: [] });
    if (record.header === null) continue;
    states.push([key, record.state]);
  }
  return states;
}

/** Answers a state request. `marks` gives the applied marks of this moment. */
export async function* giveState(
  store: Store,
  marks: () => Iterable<AppliedMark>,
  body: Uint8Array,
): AsyncIterable<Uint8Array> {
  const theirs = decodeDigests(body);
  const before = marksToWire(marks());
  const ours = await store.digests();
  const slots: number[] = [];
  for (const slot of new Set([...ours.keys(), ...theirs.keys()])) {
    if ((ours.get(slot) ?? 0) !== (theirs.get(slot) ?? 0)) slots.push(slot);
  }
  yield pack([before, slots.length]);
  for (const slot of slots) {
    const keys = await store.slotKeys(slot);
    for (let start = 0; start < keys.length; start += CHUNK_KEYS) {
      yield* chunks(await readStates(store, keys.slice(start, start + CHUNK_KEYS)));
    }
  }
}

/** Cuts states into messages of about {@link CHUNK_BYTES}; one key is never cut. */
function* chunks(states: readonly [ByteString, KeyState][]): Generator<Uint8Array> {
  let batch: [ByteString, KeyState][] = [];
  let bytes = 0;
  for (const item of states) {
    const size = roughSize(item[1]);
    if (batch.length > 0 && bytes + size > CHUNK_BYTES) {
      yield encodeKeyChunk(batch);
      batch = [];
      bytes = 0;
    }
    batch.push(item);
    bytes += size;
  }
  if (batch.length > 0) yield encodeKeyChunk(batch);
}

function roughSize(state: KeyState): number {
  const value = state.string?.register.value;
  let size = 64 + (typeof value === 'string' ? value.length : 0);
  for (const member of state.set?.entries.keys() ?? []) size += member.length + 24;
  return size;
}

/** What a pull has merged so far. Counted up while it runs. */
export interface PullCounts {
  keys: number;
  /** Keys that the giver announced; an estimate, 0 = not told. */
  keysTotal: number;
  /** Bytes received. */
  bytes: number;
}

export interface TransferOutcome {
  readonly slots: number;
  readonly keys: number;
  readonly bytes: number;
}

/**
 * Pulls a peer's state and merges it. Rejects when the transfer breaks off or the peer sends something else; then what was
 * merged stays (it is right, only not complete) and no mark is raised.
 */
export async function pullState(options: {
  readonly mesh: Mesh;
  readonly peer: PeerId;
  readonly store: Store;
  readonly maxValueBytes: number;
  readonly isAhead: (stamp: number) => boolean;
  readonly merge: (item: RemoteItem) => void;
  /** Where to count what was merged, for those who look on. */
  readonly counts?: PullCounts;
  readonly signal: AbortSignal;
}): Promise<TransferOutcome & { readonly marks: readonly AppliedMark[] }> {
  const { mesh, peer, store, signal } = options;
  const merged = (item: Omit<RemoteItem, 'done'>): Promise<void> =>
    new Promise((resolve, reject) => {
      options.merge({ ...item, done: (error) => (error === null ? resolve() : reject(error)) });
    });
  let marks: AppliedMark[] | null = null;
  let slots = 0;
  const counts = options.counts ?? { keys: 0, keysTotal: 0, bytes: 0 };
  const body = encodeDigests(await store.digests());
  const pieces = mesh.request(peer, PROTOCOLS.state, body, { signal, timeoutMs: 30_000 });
  for await (const chunk of fromPieces(pieces)) {
    counts.bytes += chunk.length;
    if (marks === null) {
      const head = asArray(unpack(chunk), 'head of a state transfer', 2);
      marks = marksFromWire(head[0]);
      slots = count(head[1]);
      continue;
    }
    const states = decodeKeyChunk(chunk, options.maxValueBytes);
    for (const [, state] of states) {
      if (options.isAhead(state.touched))
        throw new PeerError(`the state of ${peer} holds stamps from the future: check its clock`);
    }
    await merged({ frames: [], states, marks: [] });
    counts.keys += states.length;
  }
  if (marks === null) throw new PeerError(`${peer} sent an empty state transfer`);
  if (marks.some((mark) => options.isAhead(mark.stamp)))
    throw new PeerError(`${peer} has applied stamps from the future: check its clock`);
  await merged({ frames: [], states: [], marks });
  return { marks, slots, keys: counts.keys, bytes: counts.bytes };
}

function encodeDigests(digests: ReadonlyMap<number, number>): Uint8Array {
  const flat: number[] = [];
  for (const [slot, digest] of digests) if (digest !== 0) flat.push(slot, digest);
  return pack(flat);
}

function decodeDigests(bytes: Uint8Array): Map<number, number> {
  const flat = asArray(unpack(bytes), 'digests', 2 * SLOTS);
  const digests = new Map<number, number>();
  for (let i = 0; i < flat.length; i += 2) {
    const slot = count(flat[i]);
    if (slot >= SLOTS) throw new DecodeError('a digest names a slot that does not exist');
    digests.set(slot, count(flat[i + 1]));
  }
  return digests;
}
