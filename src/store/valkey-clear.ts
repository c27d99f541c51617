/**
 * Clearing a region's Valkey: the node was forgotten, or its data is too old to be merged, and it begins again with nothing.
 *
 * Beginning it takes effect at once and for good: the data set's name goes, so every commit from then on finds its data lost, and a mark
 * stays until all is done. Whoever opens the store next finds the mark and goes on, also after a crash. What no node of ours
 * wrote is left alone: a native key without a header.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { META, META_KEY, RESERVED_PREFIX, slotHashKeys } from './layout.js';
import type { ValkeyConnection } from './valkey-connection.js';
import { argument, bytesOf, listOf } from './valkey-link.js';

/** Marks that clearing has begun. */
export const BEGIN_CLEAR_SCRIPT = `#!lua flags=allow-oom
redis.call('HDEL', '${META_KEY}', '${META.dataset}', '${META.clean}')
redis.call('HSET', '${META_KEY}', '${META.clearing}', '1')
return 'DONE'
`;

/** Removes the keys of some slots. ARGV: names of their hashes, each of ARGV[2] bytes, in one string; prefix of entry hashes after the tag. */
const CLEAR_SLOTS_SCRIPT = `#!lua flags=allow-oom
local names, length = ARGV[1], tonumber(ARGV[2])
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

/** Slot hashes that one call clears. */
const SLOTS_PER_CALL = 64;

/** Goes on with a clearing that has begun, until nothing of ours is left. */
export async function finishClearing(connection: ValkeyConnection): Promise<void> {
  const names = slotHashKeys();
  for (let first = 0; first < names.length; first += SLOTS_PER_CALL) {
    const some = names.slice(first, first + SLOTS_PER_CALL).join('');
    await connection.call('EVAL', [CLEAR_SLOTS_SCRIPT, '0', some, String(names[0]!.length)]);
  }
  let cursor = '0';
  do {
    const reply = listOf(
      (await connection.call('SCAN', [cursor, 'MATCH', `${RESERVED_PREFIX}*`, 'COUNT', '1000'])) as never,
    );
    cursor = bytesOf(reply[0]) ?? '0';
    const rest = listOf(reply[1])
      .map((key) => bytesOf(key) as ByteString)
      .filter((key) => key !== META_KEY);
    if (rest.length > 0) await connection.call('UNLINK', rest.map(argument));
  } while (cursor !== '0');
  await connection.call('DEL', [META_KEY]);
}
