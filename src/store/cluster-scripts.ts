/**
 * The Lua scripts of a cluster: those of a single server, changed where several slots or servers matter, and those that make
 * a commit of several servers one step (cluster-commit.ts says how).
 *
 * Every script declares one key, the part's hash of facts, so that a server that doesn't have the part's anchor slot says so before
 * anything runs. The keys of commits aren't declared: they may be of any slot that the server has.
 *
 * A slot that is being moved has its keys in two places, and a script that touches one that isn't here ends with an error, in the
 * middle of its writes. So all slots are probed before the first write, by a key that never exists: only a server that has all
 * of a slot doesn't mind.
 */
import { type CommitForm, commitBody } from './commit-script.js';
import { META, META_KEY } from './layout.js';

/** Fields of a part's hash of facts, besides META. */
export const PART = {
  /** A commit that was prepared here and waits for its outcome: `writer|number|vector`. */
  lock: 'lock',
  /** '1': the part's server has another anchor, and this one isn't used any more. */
  retired: 'retired',
  /** + a writer's field: `number|vector:time` of its last commit that took effect here. */
  vectorSuffix: ':v',
} as const;

/** + a part's hash of facts: what was prepared there. */
export const PENDING_SUFFIX = ':p';

/** Changes a script of a single server for a cluster. */
export function inCluster(script: string): string {
  const [first = '', ...rest] = script.split('\n');
  const flags = first.includes('flags=')
    ? `${first},allow-cross-slot-keys`
    : `${first} flags=allow-cross-slot-keys`;
  return [flags, ...rest].join('\n').replaceAll(`'${META_KEY}'`, 'KEYS[1]');
}

/** Arguments of a commit: its frame, then its vector ('' = it leaves none), then the lock that it may be made under ('' = none). */
const LOOK = `
local function away(key)
  local found = pcall('EXISTS', key .. '?')
  return type(found) == 'table'
end
if away(meta) then return 'MOVED' end
local slotAt = 1
while slotAt <= #headers do
  if away(headers[slotAt]) then return 'MOVED' end
  slotAt = slotAt + 4 + 3 * headers[slotAt + 3]
end
`;

const FREE = `
local lock = call('HGET', meta, '${PART.lock}')
if lock and lock ~= ARGV[3] then return 'LOCKED ' .. lock end
`;

const COMMIT: CommitForm = {
  meta: 'KEYS[1]',
  frame: 'ARGV[1]',
  begin: '',
  look: FREE + LOOK,
  // Not every frame comes to every part, so there are holes. The sender knows which number is next.
  misfit: 'number >= tonumber(frame[3])',
  // A part may lag; the sender has looked at all of them (cluster-commit.ts).
  otherMark: 'marks[i] > applied[i + 3]',
  prepare: '',
  record: `if ARGV[2] ~= '' then
  store[#store + 1] = writer .. '${PART.vectorSuffix}'
  store[#store + 1] = ARGV[2] .. ':' .. now
end`,
  writeStrings: "for i = 1, #strings, 2 do call('SET', strings[i], strings[i + 1]) end",
  writeDeletes: "for i = 1, #deletes do call('UNLINK', deletes[i]) end",
};

/** Looks as a commit does, and keeps what it was given for later in place of writing it. ARGV as for a commit. */
const PREPARE: CommitForm = {
  ...COMMIT,
  prepare: `
call('SET', meta .. '${PENDING_SUFFIX}', ARGV[1])
call('HSET', meta, '${PART.lock}', writer .. '|' .. ARGV[2],
  writer, atSession .. ':' .. format('%.0f', seq) .. ':' .. previous .. ':' .. call('TIME')[1])
if true then return 'DONE' end
`,
};

/**
 * Writes what was prepared. ARGV: the lock, then session and seq ('' for both: whoever settles what a writer left), then a frame to
 * write in place of the one that was kept ('' = that one).
 */
const APPLY: CommitForm = {
  ...COMMIT,
  frame: 'pending',
  begin: `
if ARGV[2] == '' then
  local record = redis.call('HGET', meta, writer)
  if not record then
    record = '1:0:0:0:0'
    redis.call('HSET', meta, writer, record)
  end
  local atSession, atSeq = string.match(record, '^(%d+):(%d+):')
  session, seq = tonumber(atSession), atSeq + 1
else
  session, seq = tonumber(ARGV[2]), tonumber(ARGV[3])
end
dataset = redis.call('HGET', meta, 'dataset')
`,
  look: LOOK,
  record: `store[#store + 1] = writer .. '${PART.vectorSuffix}'
store[#store + 1] = string.match(ARGV[1], '^[^|]*|(.*)$') .. ':' .. now
call('HDEL', meta, '${PART.lock}')
call('UNLINK', meta .. '${PENDING_SUFFIX}')`,
};

const PENDING = `
local pending = redis.call('GET', KEYS[1] .. '${PENDING_SUFFIX}')
if redis.call('HGET', KEYS[1], '${PART.lock}') ~= ARGV[1] or not pending then return 'GONE' end
if ARGV[4] ~= '' then pending = ARGV[4] end
`;

/** Drops what was prepared, if it is there. ARGV: the lock, then session and seq ('' for both: as above), then the writer. */
const ABORT_SCRIPT = `#!lua flags=allow-oom,allow-cross-slot-keys
local meta = KEYS[1]
if ARGV[2] ~= '' then
  local record = redis.call('HGET', meta, ARGV[4])
  if not record then return 'LOST' end
  local atSession, atSeq, previous = string.match(record, '^(%d+):(%d+):(%d+:%d+):')
  if atSession ~= ARGV[2] then return 'FENCED' end
  if atSeq + 1 ~= tonumber(ARGV[3]) then return 'GAP' end
  redis.call('HSET', meta, ARGV[4], atSession .. ':' .. ARGV[3] .. ':' .. previous .. ':' .. redis.call('TIME')[1])
end
if redis.call('HGET', meta, '${PART.lock}') == ARGV[1] then
  redis.call('HDEL', meta, '${PART.lock}')
  redis.call('UNLINK', meta .. '${PENDING_SUFFIX}')
end
return 'DONE'
`;

/**
 * Ends the session of a writer that left something behind, so that nothing of it can arrive any more. ARGV: the writer. Gives the
 * lock and the writer's vector, '' for none.
 */
const FENCE_SCRIPT = `#!lua flags=allow-oom,allow-cross-slot-keys
local meta, writer = KEYS[1], ARGV[1]
local facts = redis.call('HMGET', meta, writer, '${PART.lock}', writer .. '${PART.vectorSuffix}')
if facts[1] then
  local session, seq = string.match(facts[1], '^(%d+):(%d+):')
  redis.call('HSET', meta, writer,
    string.format('%.0f', session + 1) .. ':0:' .. session .. ':' .. seq .. ':' .. redis.call('TIME')[1])
end
return {facts[2] or '', facts[3] or ''}
`;

/**
 * Raises a writer's count of commits, though nothing is changed: a copy of the server that lacks what came before lacks this too. Looks at no
 * lock. ARGV: session, seq, writer. Gives `DONE process seconds promoted ranges`: the process that the server is, how long it has
 * run, whether it was ever made a primary ('1') and the slots that it says it has, as `from-to,…`.
 */
const ARRIVED_SCRIPT = `#!lua flags=allow-oom,allow-cross-slot-keys
local meta, writer = KEYS[1], ARGV[3]
local record = redis.call('HGET', meta, writer)
if not record then return 'LOST' end
local atSession, atSeq, previous = string.match(record, '^(%d+):(%d+):(%d+:%d+):')
if atSession ~= ARGV[1] then return 'FENCED' end
if atSeq + 1 ~= tonumber(ARGV[2]) then return 'GAP' end
local server, replication, self = redis.call('INFO', 'server'), redis.call('INFO', 'replication'), redis.call('CLUSTER', 'MYID')
local ranges = {}
for _, range in ipairs(redis.call('CLUSTER', 'SLOTS')) do
  if range[3][3] == self then ranges[#ranges + 1] = string.format('%d-%d', range[1], range[2]) end
end
local before = string.match(replication, 'master_replid2:(%x+)') or ''
redis.call('HSET', meta, writer, atSession .. ':' .. ARGV[2] .. ':' .. previous .. ':' .. redis.call('TIME')[1])
return table.concat({'DONE', (string.match(server, 'run_id:(%x+)') or '') .. '/' .. before,
  string.match(server, 'uptime_in_seconds:(%d+)') or '0', string.find(before, '[^0]') and '1' or '0',
  table.concat(ranges, ',')}, ' ')
`;

/**
 * Has a part know no more than all parts do, and takes from every other writer the right to commit: what it believes of the marks holds no
 * more. ARGV: the writer that stays, then fields and values of all marks.
 */
const AGREE_SCRIPT = `#!lua flags=allow-oom,allow-cross-slot-keys
local meta, agreed = KEYS[1], {}
for i = 2, #ARGV, 2 do agreed[ARGV[i]] = ARGV[i + 1] end
local facts = redis.call('HGETALL', meta)
for i = 1, #facts, 2 do
  local field = facts[i]
  local kind = string.sub(field, 1, 2)
  if kind == '${META.appliedPrefix}' then
    if agreed[field] then redis.call('HSET', meta, field, agreed[field]) else redis.call('HDEL', meta, field) end
  elseif kind == '${META.writerPrefix}' and field ~= ARGV[1] and string.sub(field, -2) ~= '${PART.vectorSuffix}' then
    redis.call('HDEL', meta, field)
  end
end
return 'DONE'
`;

/** Reads strings: as on a single server, key by key. */
const STRINGS_SCRIPT = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
local keys, out = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #keys do
  local value = redis.pcall('GET', keys[i])
  if type(value) == 'table' then
    if string.find(value.err, 'WRONGTYPE', 1, true) ~= 1 then return value end
    value = 1
  end
  out[i] = value
end
return out
`;

/** Reads digests: as on a single server, and -1 for slots that are elsewhere. */
const DIGESTS_SCRIPT = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
local names, length, out = ARGV[1], tonumber(ARGV[2]), {}
for i = 0, #names / length - 1 do
  local name = string.sub(names, i * length + 1, (i + 1) * length)
  local digest = redis.pcall('HGET', name, name)
  if type(digest) == 'table' then digest = -1 end
  if digest then
    out[#out + 1] = i
    out[#out + 1] = digest
  end
end
return out
`;

/** Reads headers: as on a single server, and ends before a slot that is elsewhere. */
const HEADERS_SCRIPT = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
local names, length, left, out = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for i = 0, #names / length - 1 do
  local flat = redis.pcall('HGETALL', string.sub(names, i * length + 1, (i + 1) * length))
  if flat.err then
    if i == 0 then return flat end
    break
  end
  out[i + 1] = flat
  for j = 1, #flat do left = left - #flat[j] end
  if left <= 0 then break end
end
return out
`;

const script = (flags: string, body: string): string => `#!lua flags=${flags}allow-cross-slot-keys\n${body}`;

/** Those that differ from a single server's by more than {@link inCluster}. */
export const CLUSTER_SCRIPTS = {
  commit: script('', commitBody(COMMIT)),
  remove: script('allow-oom,', commitBody(COMMIT)),
  strings: STRINGS_SCRIPT,
  digests: DIGESTS_SCRIPT,
  headers: HEADERS_SCRIPT,
} as const;

/** Those that only a cluster needs. */
export const CLUSTER_ONLY_SCRIPTS = {
  prepare: script('', commitBody(PREPARE)),
  prepareRemove: script('allow-oom,', commitBody(PREPARE)),
  // What was prepared has been let in: it must not fail any more.
  apply: script('allow-oom,', PENDING + commitBody(APPLY)),
  abort: ABORT_SCRIPT,
  fence: FENCE_SCRIPT,
  agree: AGREE_SCRIPT,
  arrived: ARRIVED_SCRIPT,
} as const;
