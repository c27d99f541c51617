/**
 * Set giver: sends a big set, or the buckets of it that differ, in pages, while it may be written to.
 *
 * Invariant: with its context, a set claims to have seen adds; so the context that travels is the one from *before* the first page was
 * read. Of a dot that this context covers, every page says truly whether it lives, whenever the page was read; an add that it doesn't cover
 * came later, its frame is not among the marks that the asker will raise, and it would be wrong to send it under this context. Such
 * a member means: begin again; and when that doesn't help either, read the set in one step.
 */
import type { ByteString } from '../../crdts/bytes.js';
import type { KeyState } from '../../crdts/key-state.js';
import type { Dots } from '../../crdts/or-set.js';
import { covers } from '../../crdts/version-vector.js';
import { decodeRecord } from '../replica/key-record.js';
import type { Store } from '../store/store.js';
import { readStates } from './key-digests.js';
import { coarseOf, FINE_PER_COARSE, fineBucket } from './member-buckets.js';
import { type BigSets, scanDigests, scanSet } from './set-scan.js';
import type { StateAnswer } from './state-answers.js';
import type { SetRequest } from './state-messages.js';

/** Attempts to send some buckets, and all of them, before the set is read in one step. */
const BUCKET_ATTEMPTS = 3;
const WHOLE_ATTEMPTS = 1;
/** Bytes of members in one message, about. */
const MESSAGE_BYTES = 256 * 1024;

/** Sends what a request asks for; a key that holds no big set (any more) as a whole state. */
export async function* giveSet(
  store: Store,
  request: SetRequest,
  big: BigSets,
  slotsDone: number,
): AsyncGenerator<StateAnswer> {
  const { key } = request;
  for (let attempt = 1; ; attempt += 1) {
    const [loaded] = await store.load([{ key, value: true }]);
    const { header, state } = decodeRecord(key, loaded!, { value: true, whole: false, members: [] });
    if (header === null) return;
    if (state.set === null || state.set.size < big.bigSetMembers) break;
    const { context, size } = state.set;
    const fine = await differing(store, request, big);
    if (attempt > (fine === null ? WHOLE_ATTEMPTS : BUCKET_ATTEMPTS)) break;
    yield begin(key, state, size, fine);
    const wanted = fine && new Set(fine);
    let calm = true;
    for await (const page of scanSet(store, key, big)) {
      const members = page.filter(([member]) => wanted === null || wanted.has(fineBucket(member)));
      calm = members.every(([, dots]) => dots.every((dot) => covers(context, dot.replica, dot.stamp)));
      if (!calm) break;
      yield* pages(state.touched, members);
    }
    if (!calm) continue;
    yield { kind: 'end' };
    return;
  }
  const [whole] = await readStates(store, [key]);
  if (whole === undefined) return;
  const { set } = whole[1];
  if (set === null || set.size < big.bigSetMembers) {
    yield { kind: 'keys', slotsDone, states: [whole] };
    return;
  }
  yield begin(key, whole[1], set.size, null);
  yield* pages(whole[1].touched, set.entries);
  yield { kind: 'end' };
}

/** The fine buckets that differ; null = all, when the others aren't any more what the asker compared. */
async function differing(store: Store, request: SetRequest, big: BigSets): Promise<number[] | null> {
  const { key, coarse, fine, rest } = request;
  if (coarse === null) return null;
  const ours = await scanDigests(store, key, big);
  if (ours.rest(new Set(coarse)) !== rest) return null;
  return coarse.flatMap((bucket, i) =>
    ours
      .finesOf(bucket)
      .flatMap((digest, j) =>
        digest === fine[i * FINE_PER_COARSE + j] ? [] : [bucket * FINE_PER_COARSE + j],
      ),
  );
}

function begin(key: ByteString, state: KeyState, size: number, fine: readonly number[] | null): StateAnswer {
  const set = { context: state.set!.context, entries: new Map(), whole: false, size: 0 };
  return { kind: 'begin', key, size, fine, state: { ...state, set } };
}

function* pages(touched: number, members: Iterable<readonly [ByteString, Dots]>): Generator<StateAnswer> {
  let entries = new Map<ByteString, Dots>();
  let bytes = 0;
  for (const [member, dots] of members) {
    if (bytes > MESSAGE_BYTES) {
      yield { kind: 'members', touched, entries };
      entries = new Map();
      bytes = 0;
    }
    entries.set(member, dots);
    bytes += member.length + 16;
  }
  if (entries.size > 0) yield { kind: 'members', touched, entries };
}

/** What the asker says of its own set when it knows the giver's coarse digests. All of it is asked for when most of it differs. */
export async function compareSet(
  store: Store,
  key: ByteString,
  theirs: readonly number[],
  big: BigSets,
): Promise<SetRequest> {
  const ours = await scanDigests(store, key, big);
  const differ: number[] = [];
  for (const [bucket, digest] of ours.coarse().entries()) if (digest !== theirs[bucket]) differ.push(bucket);
  if (differ.length > theirs.length / 2) return { key, rest: 0, coarse: null, fine: [] };
  const fine = differ.flatMap((bucket) => ours.finesOf(bucket));
  return { key, rest: ours.rest(new Set(differ)), coarse: differ, fine };
}

/** Says whether a fine bucket belongs to those that were asked for. */
export function wasAsked({ coarse }: SetRequest, fine: readonly number[] | null): boolean {
  return coarse === null
    ? fine === null
    : (fine?.every((bucket) => coarse.includes(coarseOf(bucket))) ?? true);
}
