/**
 * Clearing a region's Valkey: its nodes were forgotten, or its data is too old to be merged, and they begin again with nothing.
 *
 * Beginning it takes effect at once and for good: the data set's name goes, so every commit from then on finds its data lost, and a mark
 * stays until all is done. Whoever opens the store next finds the mark and goes on, also after a crash, and also when others are at it:
 * each step looks first whether the mark still stands, so the last one to go on can't remove what the first has begun anew. What no node
 * of ours wrote is left alone: a native key without a header.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { inCluster } from './cluster-scripts.js';
import { META, META_KEY, RESERVED_PREFIX, slotHashKey, slotHashKeys } from './layout.js';
import type { ValkeyConnection } from './valkey-connection.js';
import { type Argument, argument, bytesOf, listOf, type Reply } from './valkey-link.js';

/** Marks that clearing has begun. ARGV: dataset, reason. Gives DONE, or LOST when other data are there. */
export const BEGIN_CLEAR_SCRIPT = `#!lua flags=allow-oom
if redis.call('HGET', '${META_KEY}', '${META.dataset}') ~= ARGV[1] then return 'LOST' end
redis.call('HDEL', '${META_KEY}', '${META.dataset}')
redis.call('HSET', '${META_KEY}', '${META.clearing}', ARGV[1], '${META.dropped}', ARGV[1] .. ' ' .. ARGV[2])
return 'DONE'
`;

/** Steps of what is under way. ARGV[1]: the mark that must stand; else GONE: another one has finished. */
const CHECK_MARK = `#!lua flags=allow-oom
if redis.call('HGET', '${META_KEY}', '${META.clearing}') ~= ARGV[1] then return 'GONE' end
`;

/** Removes the keys of some slots. ARGV: mark, names of their hashes, each of ARGV[3] bytes, in one string. */
const CLEAR_SLOTS_SCRIPT = `${CHECK_MARK}
local names, length = ARGV[2], tonumber(ARGV[3])
for i = 0, #names / length - 1 do
  local name = string.sub(names, i * length + 1, (i + 1) * length)
  local keys = redis.call('HKEYS', name)
  local entries = string.sub(name, 1, length - 1) .. 'e:'
  for _, key in ipairs(keys) do
    if key ~= name then redis.call('UNLINK', key, entries .. key) end
  end
  redis.call('UNLINK', name)
end
return 'DONE'
`;

/** Removes keys. ARGV: mark, keys. */
const UNLINK_SCRIPT = `${CHECK_MARK}
for i = 2, #ARGV do redis.call('UNLINK', ARGV[i]) end
return 'DONE'
`;

/** Ends it: only what was dropped is remembered. */
const END_CLEAR_SCRIPT = `${CHECK_MARK}
local dropped = redis.call('HGET', '${META_KEY}', '${META.dropped}')
redis.call('DEL', '${META_KEY}')
if dropped then redis.call('HSET', '${META_KEY}', '${META.dropped}', dropped) end
return 'DONE'
`;

/** Slot hashes that one call clears. */
const SLOTS_PER_CALL = 64;

/** Goes on with the clearing of one part of a cluster: of the slots that its server has. */
export async function finishClearingPart(
  connection: ValkeyConnection,
  meta: ByteString,
  mark: ByteString,
  slots: readonly number[],
): Promise<void> {
  const step = async (script: string, ...args: readonly Argument[]): Promise<boolean> => {
    const reply = await connection.call('EVAL', [inCluster(script), '1', meta, argument(mark), ...args]);
    return bytesOf(reply as Reply) === 'DONE';
  };
  for (let first = 0; first < slots.length; first += SLOTS_PER_CALL) {
    const names = slots.slice(first, first + SLOTS_PER_CALL).map(slotHashKey);
    if (!(await step(CLEAR_SLOTS_SCRIPT, names.join(''), String(names[0]!.length)))) return;
  }
  let cursor = '0';
  do {
    const [next, keys] = listOf(
      (await connection.call('SCAN', [cursor, 'MATCH', `${RESERVED_PREFIX}*`, 'COUNT', '1000'])) as Reply,
    );
    cursor = bytesOf(next) ?? '0';
    const rest = listOf(keys)
      .map((key) => bytesOf(key) as ByteString)
      .filter((key) => key !== meta);
    if (rest.length > 0 && !(await step(UNLINK_SCRIPT, ...rest.map(argument)))) return;
  } while (cursor !== '0');
  await step(END_CLEAR_SCRIPT);
}

/** Goes on with a clearing that has begun, until nothing of ours is left, or another one has finished. */
export async function finishClearing(connection: ValkeyConnection, mark: ByteString): Promise<void> {
  const step = async (script: string, ...args: readonly Argument[]): Promise<boolean> =>
    bytesOf((await connection.call('EVAL', [script, '0', argument(mark), ...args])) as Reply) === 'DONE';
  const names = slotHashKeys();
  for (let first = 0; first < names.length; first += SLOTS_PER_CALL) {
    const some = names.slice(first, first + SLOTS_PER_CALL).join('');
    if (!(await step(CLEAR_SLOTS_SCRIPT, some, String(names[0]!.length)))) return;
  }
  let cursor = '0';
  do {
    const reply = listOf(
      (await connection.call('SCAN', [cursor, 'MATCH', `${RESERVED_PREFIX}*`, 'COUNT', '1000'])) as Reply,
    );
    cursor = bytesOf(reply[0]) ?? '0';
    const rest = listOf(reply[1])
      .map((key) => bytesOf(key) as ByteString)
      .filter((key) => key !== META_KEY);
    if (rest.length > 0 && !(await step(UNLINK_SCRIPT, ...rest.map(argument)))) return;
  } while (cursor !== '0');
  await step(END_CLEAR_SCRIPT);
}
