/** Reads everything that a store lets one read, in a form to compare. */
import type { ByteString } from '../../crdts/bytes.js';
import type { ReplicaId } from '../../crdts/dot.js';
import { type Store, WRONG_TYPE } from '../../src/store/store.js';

/** All keys that SCAN finds, sorted; throws when it doesn't come to an end. */
export async function scanAll(
  store: Store,
  options: Parameters<Store['scan']>[1] = {},
): Promise<ByteString[]> {
  const keys = new Set<ByteString>();
  let cursor = '0';
  for (let turn = 0; turn < 100_000; turn += 1) {
    const page = await store.scan(cursor, options);
    for (const key of page.keys) keys.add(key);
    cursor = page.cursor;
    if (cursor === '0') return [...keys].sort();
  }
  throw new Error('the scan does not end');
}

/** Everything readable of a store: headers, entries, natives, expiries, digests, count, frames of the named replicas. */
export async function contentOf(store: Store, replicas: readonly ReplicaId[]): Promise<unknown> {
  const digests = [...(await store.digests())].sort(([a], [b]) => a - b);
  const slots = digests.map(([slot]) => slot);
  const headed = (await store.headers(slots, Number.MAX_SAFE_INTEGER)).flat().map(([key]) => key);
  const native = await scanAll(store, { count: 1000 });
  const keys = [...new Set([...headed, ...native])].sort();
  const loaded = await store.load(keys.map((key) => ({ key, value: true, elements: 'all' as const })));
  const [types, deadlines, strings] = [
    await store.types(keys),
    await store.deadlines(keys),
    await store.strings(keys),
  ];
  const members = await Promise.all(keys.map((key) => store.members(key)));
  const frames = await Promise.all(replicas.map((replica) => store.readFrames(replica, 1, 1e9)));
  return {
    digests,
    native,
    count: await store.count(),
    frames: frames.map((log) => log.map((frame) => ({ ...frame, bytes: [...frame.bytes] }))),
    keys: keys.map((key, i) => {
      const held = members[i];
      const { header, value, entries } = loaded[i] ?? { header: null, value: null, entries: new Map() };
      const string = strings[i];
      return {
        key,
        header,
        value,
        entries: [...entries].sort(([a], [b]) => (a < b ? -1 : 1)),
        type: types[i],
        deadline: deadlines[i],
        string: string === WRONG_TYPE ? 'WRONG_TYPE' : string,
        members: held === WRONG_TYPE || held === undefined ? 'WRONG_TYPE' : [...held].sort(),
      };
    }),
  };
}
