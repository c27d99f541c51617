/**
 * The Lua scripts that run inside Valkey. They know nothing of CRDTs: they compare, store and count.
 *
 * The commit script looks at everything that it depends on before its first write, and past that point calls nothing
 * that can fail: memory and read-only state are checked by Valkey before a script with a `#!lua` line starts, types were
 * looked at or are handled, numbers were checked by the sender. So a commit is all or nothing.
 *
 * **Exactly once.** A writer (one store object) keeps a record in the hash of facts, `session:seq:previous:previousSeq:time`.
 * A session is one connection; seq counts the commits that took effect in it. A commit must carry the running session and the
 * next seq. When a connection breaks, the next one begins a new session, which fences off whatever the old connection may
 * still deliver, and learns how many commits of the previous session took effect: the others are sent again.
 * The same record shows lost data: it is absent, or behind what was acknowledged.
 */
import { COMMIT_ENTRIES_LUA } from './entry-scripts.js';
import { META, META_KEY } from './layout.js';

/** Most arguments for one command out of a Lua table: Lua's stack holds about 8,000. */
const CHUNK = 4000;

/** What differs between the places where the commit script runs. Each part is Lua; Cluster's are in cluster-scripts.ts. */
export interface CommitForm {
  /** Expression that names the hash of facts. */
  readonly meta: string;
  /** Expression of the frame. */
  readonly frame: string;
  /** What comes before anything is looked at, with the frame's parts as variables; may return. */
  readonly begin: string;
  /** A look at more than the single server's script looks at; may return. */
  readonly look: string;
  /** Says, in terms of \`number\` (the last one stored) and \`frame\`, that a frame doesn't follow. */
  readonly misfit: string;
  /** Says, in terms of \`marks[i]\` (what is stored) and \`applied[i + 3]\` (what is expected), that a mark isn't the expected one. */
  readonly otherMark: string;
  /** What happens between looking and writing; may return. */
  readonly prepare: string;
  /** Adds to \`store\`, the facts to be stored, as field, value. */
  readonly record: string;
  /** Statements that store \`strings\` (key, value, flat), and that remove the keys \`deletes\`. */
  readonly writeStrings: string;
  readonly writeDeletes: string;
}

const SINGLE: CommitForm = {
  meta: `'${META_KEY}'`,
  frame: 'ARGV[1]',
  begin: '',
  look: '',
  misfit: 'number + 1 ~= tonumber(frame[3])',
  otherMark: 'applied[i + 3] ~= marks[i]',
  prepare: '',
  record: '',
  writeStrings: `for i = 1, #strings, ${CHUNK} do call('MSET', unpack(strings, i, math.min(i + ${CHUNK - 1}, #strings))) end`,
  writeDeletes: `for i = 1, #deletes, ${CHUNK} do call('UNLINK', unpack(deletes, i, math.min(i + ${CHUNK - 1}, #deletes))) end`,
};

/** The commit script in one of its forms, without its first line. */
export const commitBody = (form: CommitForm): string => `
local meta, unpack, call, pcall = ${form.meta}, unpack, redis.call, redis.pcall
local tonumber, format = tonumber, string.format
local dataset, writer, session, seq, turn, frame, applied, headers, entries, strings, deletes, sets, rebuilds, expiries, assured,
  hashes =
  unpack(cmsgpack.unpack(${form.frame}))
-- What an earlier release has prepared in a cluster has none.
assured = assured or {}
${form.begin}

-- Gives the sum of the replies.
local function chunked(command, key, items)
  local sum = 0
  for i = 1, #items, ${CHUNK} do
    sum = sum + call(command, key, unpack(items, i, math.min(i + ${CHUNK - 1}, #items)))
  end
  return sum
end

local reserved

-- Stores and removes the headers of a slot that has several in this commit, or that loses one.
local function storeSlot(slot, count, first, old, digest)
  local store, remove = {slot, digest}, {}
  for i = first, first + 3 * (count - 1), 3 do
    if headers[i + 2] then
      store[#store + 1] = headers[i]
      store[#store + 1] = headers[i + 2]
    else
      remove[#remove + 1] = headers[i]
    end
  end
  if #store == 2 and not old then return end
  chunked('HSET', slot, store)
  if not old then reserved = reserved + 1 end
  if #remove == 0 then return end
  chunked('HDEL', slot, remove)
  if call('HLEN', slot) == 1 then
    call('DEL', slot)
    reserved = reserved - 1
  end
end

${COMMIT_ENTRIES_LUA}
-- 1. Look.
local wanted = {'${META.dataset}', writer, '${META.reserved}', frame and frame[2] or '${META.dataset}', '${META.turn}'}
for i = 1, #applied, 4 do wanted[#wanted + 1] = applied[i] end
local facts = {}
for i = 1, #wanted, ${CHUNK} do
  local part = call('HMGET', meta, unpack(wanted, i, math.min(i + ${CHUNK - 1}, #wanted)))
  for j = 1, #part do facts[i + j - 1] = part[j] end
end
if facts[1] ~= dataset or not facts[2] then return 'LOST' end
local atSession, atSeq, previous = string.match(facts[2], '^(%d+):(%d+):(%d+:%d+):')
if tonumber(atSession) ~= session then return 'FENCED' end
if tonumber(atSeq) + 1 ~= seq then return 'GAP' end
reserved = tonumber(facts[3])
${form.look}
local marks = {}
if frame then
  local number = facts[4] and tonumber(string.match(facts[4], '^%d+')) or 0
  if ${form.misfit} then return 'STALE frame ' .. frame[3] .. ' does not follow ' .. string.format('%.0f', number) end
  marks[frame[2]] = tonumber(frame[3])
  if call('EXISTS', frame[1]) == 0 then reserved = reserved + 1 end
end
for i = 1, #applied, 4 do
  local stored = facts[6 + (i - 1) / 4]
  marks[i] = stored and tonumber(string.match(stored, '^%d+')) or 0
  if applied[i + 3] and ${form.otherMark} then return 'STALE mark' end
end

-- The digests that came along hold if it is still the turn that they rest on (slot-digests.ts).
local number, owner = string.match(facts[5] or '0:', '^(%d+):(.*)$')
if owner ~= writer then facts[5] = format('%.0f', number + 1) .. ':' .. writer end
local sole = turn == facts[5]
-- Leaves word for the other writer that it was faster, and may let this one go first.
local function stale()
  if owner ~= '!' .. writer then call('HSET', meta, '${META.turn}', format('%.0f', number + 1) .. ':!' .. writer) end
  return 'STALE header'
end

-- Headers that nobody else can have changed if it is still that turn.
if #assured > 0 and not sole then return stale() end

local digests, after = {}, {}
local at = 1
while at <= #headers do
  local slot, count = headers[at], headers[at + 3]
  local first = at + 4
  if sole and headers[at + 2] then after[at] = headers[at + 2] end
  if count == 1 and after[at] then
    if call('HGET', slot, headers[first]) ~= headers[first + 1] then return stale() end
  elseif count == 1 then
    local stored = call('HMGET', slot, slot, headers[first])
    digests[at] = stored[1]
    if stored[2] ~= headers[first + 1] then return stale() end
  else
    if not after[at] then digests[at] = call('HGET', slot, slot) end
    for i = 0, count - 1, ${CHUNK} do
      local keys = {}
      for j = i, math.min(i + ${CHUNK - 1}, count - 1) do keys[#keys + 1] = headers[first + 3 * j] end
      local stored = call('HMGET', slot, unpack(keys))
      for j = 1, #stored do
        if stored[j] ~= headers[first + 3 * (i + j - 1) + 1] then return stale() end
      end
    end
  end
  at = first + 3 * count
end

for i = 1, #entries, 4 do planPages(i) end
for i = 1, #sets, 4 do lookAt(sets[i + 1]) end
for i = 1, #rebuilds, 2 do lookAt(rebuilds[i + 1]) end
${form.prepare}
-- 2. Write. The log first: it is the one call that damage from outside could still make fail.
if frame then call('XADD', frame[1], frame[3] .. '-0', 's', frame[4], 'b', frame[5]) end

local told = {'DONE', facts[5]}
if string.sub(owner, 1, 1) == '!' and owner ~= '!' .. writer then told[1] = 'DONE*' end
at = 1
while at <= #headers do
  local slot, count = headers[at], headers[at + 3]
  local first = at + 4
  local digest = after[at]
  -- Where the digest is known, there is one.
  local old = digest or digests[at]
  if not digest then
    digest = format('%.0f', ((old and tonumber(old) or 0) + headers[at + 1]) % 281474976710656)
    if sole then told[#told + 1] = digest end
  end
  if count == 1 and headers[first + 2] then
    -- Most slots: a table less to fill.
    call('HSET', slot, slot, digest, headers[first], headers[first + 2])
    if not old then reserved = reserved + 1 end
  else
    storeSlot(slot, count, first, old, digest)
  end
  at = first + 3 * count
end

for i = 1, #assured, 4 do
  local slot = assured[i]
  -- The slot's digest is known, so the hash is there.
  call('HSET', slot, slot, assured[i + 1], assured[i + 2], assured[i + 3])
end

for i = 1, #entries, 4 do writeEntries(i) end
${form.writeStrings}
${form.writeDeletes}
for i = 1, #sets, 4 do
  local key = sets[i]
  -- Someone may have written another type past us: then what the entries say replaces it.
  local isSet = true
  for c, items in ipairs({sets[i + 2], sets[i + 3]}) do
    for j = 1, #items, ${CHUNK} do
      if isSet then
        local result = pcall(c == 1 and 'SADD' or 'SREM', key, unpack(items, j, math.min(j + ${CHUNK - 1}, #items)))
        isSet = type(result) ~= 'table' or not result.err
      end
    end
  end
  if not isSet then
    rebuild(key, sets[i + 1])
    chunked('SADD', key, sets[i + 2])
    chunked('SREM', key, sets[i + 3])
  end
end
for i = 1, #rebuilds, 2 do rebuild(rebuilds[i], rebuilds[i + 1]) end
for i = 1, #expiries, 2 do
  if expiries[i + 1] then call('PEXPIREAT', expiries[i], expiries[i + 1]) else call('PERSIST', expiries[i]) end
end

local now = call('TIME')[1]
local store = {
  writer, atSession .. ':' .. string.format('%.0f', seq) .. ':' .. previous .. ':' .. now,
  '${META.reserved}', string.format('%.0f', reserved),
}
if frame then
  store[#store + 1] = frame[2]
  store[#store + 1] = frame[3] .. ' ' .. frame[4]
end
for i = 1, #applied, 4 do
  local field, number = applied[i], tonumber(applied[i + 1])
  local known = marks[field] or marks[i]
  if number > known then
    marks[field] = number
    store[#store + 1] = field
    store[#store + 1] = applied[i + 1] .. ' ' .. applied[i + 2]
  end
end
if turn ~= facts[5] and owner ~= writer then
  store[#store + 1] = '${META.turn}'
  store[#store + 1] = facts[5]
end
${form.record}
chunked('HSET', meta, store)
if sole and #told == 2 then return told[1] end
return table.concat(told, ' ')
`;

/** Commits. ARGV[1]: the frame of commit-frame.ts. Gives DONE (with what slot-digests.ts learns; DONE* when another writer's commit failed because of this one's), STALE …, GAP, FENCED or LOST; only DONE wrote anything but the turn. */
export const COMMIT_SCRIPT = `#!lua\n${commitBody(SINGLE)}`;

/** The same for commits that only remove: allowed when the server is out of memory. */
export const REMOVE_SCRIPT = `#!lua flags=allow-oom\n${commitBody(SINGLE)}`;

/** A record of a writer that was not used for so long is forgotten: its process is gone. */
const WRITER_LIFETIME_S = 90 * 86_400;

/**
 * Begins a session. ARGV: writer, session, previous session ('0' at first), dataset ('' at first), name for a new
 * dataset, then field and value of an identity to store again ('' for none).
 * Gives LOST, FENCED, or { commits of the previous session that took effect, the hash of facts as it was }.
 */
export const BEGIN_SCRIPT = `#!lua flags=allow-oom
local meta = '${META_KEY}'
local writer, session, before, dataset = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for _, command in ipairs({'MSET', 'UNLINK', 'SADD', 'SREM', 'PEXPIREAT', 'PERSIST', 'HSET', 'HDEL', 'HMGET', 'HGET',
  'HEXISTS', 'HLEN', 'HKEYS', 'HGETALL', 'HSCAN', 'GET', 'SET', 'DEL', 'EXISTS', 'XADD', 'XRANGE', 'XTRIM', 'XLEN', 'MGET', 'TYPE', 'TIME',
  'DBSIZE'}) do
  local arguments = {command, 'any', '1', '1', '1'}
  if command == 'TIME' or command == 'DBSIZE' then arguments = {command} end
  if command == 'MGET' or command == 'GET' or command == 'UNLINK' or command == 'DEL' or command == 'EXISTS' then
    arguments = {command, 'any'}
  end
  if command == 'MSET' or command == 'SET' then arguments = {command, 'any', '1'} end
  if command == 'XADD' then arguments = {command, 'any', '1-0', 's', '1'} end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(arguments))
  if known and not allowed then return 'NOPERM ' .. command end
end
local facts = redis.call('HGETALL', meta)
local known = {}
for i = 1, #facts, 2 do known[facts[i]] = facts[i + 1] end
local done, carried = 0, '0:0'
if dataset == '' then
  if not known['${META.dataset}'] then
    redis.call('HSET', meta, '${META.dataset}', ARGV[5], '${META.reserved}', '1')
    facts[#facts + 1] = '${META.dataset}'
    facts[#facts + 1] = ARGV[5]
  end
else
  local record = known[writer]
  if known['${META.dataset}'] ~= dataset or not record then return 'LOST' end
  local atSession, atSeq, previous, previousSeq = string.match(record, '^(%d+):(%d+):(%d+):(%d+):')
  if tonumber(session) <= tonumber(atSession) then return 'FENCED' end
  if atSession == before then
    done = atSeq
  elseif previous == before then
    -- The answer to an earlier beginning was lost; nothing was committed under it.
    done = previousSeq
  else
    return 'LOST'
  end
  carried = before .. ':' .. done
end
local now = redis.call('TIME')[1]
redis.call('HSET', meta, writer, session .. ':0:' .. carried .. ':' .. now)
if ARGV[6] ~= '' then redis.call('HSET', meta, ARGV[6], ARGV[7]) end
for field, value in pairs(known) do
  if field ~= writer and string.sub(field, 1, 2) == '${META.writerPrefix}' then
    local used = tonumber(string.match(value, ':(%d+)$') or now)
    if used < tonumber(now) - ${WRITER_LIFETIME_S} then redis.call('HDEL', meta, field) end
  end
end
return {tonumber(done), facts}
`;

/** What every script begins with that changes the hash of facts. ARGV: dataset, writer, session. */
const CHECK_SENDER = `#!lua flags=allow-oom
local meta = '${META_KEY}'
local facts = redis.call('HMGET', meta, '${META.dataset}', ARGV[2])
if facts[1] ~= ARGV[1] or not facts[2] then return 'LOST' end
if string.match(facts[2], '^%d+') ~= ARGV[3] then return 'FENCED' end
`;

/**
 * Stores an identity, and that its writer lives. ARGV: sender, then field and value. Gives DONE, FENCED or LOST. One that an earlier release
 * stored moves to its own field.
 */
export const IDENTITY_SCRIPT = `${CHECK_SENDER}
local now = redis.call('TIME')[1]
local life = string.gsub(facts[2], '%d+$', now)
redis.call('HSET', meta, ARGV[4], ARGV[5], ARGV[2], life)
local old = redis.call('HMGET', meta, '${META.oldPeerId}', '${META.oldReplica}', '${META.oldClean}')
if old[1] and old[2] then
  local field = '${META.nodePrefix}' .. old[1]
  if redis.call('HEXISTS', meta, field) == 0 then
    redis.call('HSET', meta, field, old[2] .. ' - ' .. (old[3] or '0') .. ' -')
  end
end
redis.call('HDEL', meta, '${META.oldPeerId}', '${META.oldReplica}', '${META.oldClean}')
return 'DONE'
`;

/** Stores notes. ARGV: sender, then notes, and '1' and the notes that must stand there, or '0' for none. Gives FENCED, LOST, or a list of the notes that stand there then. */
export const NOTES_SCRIPT = `${CHECK_SENDER}
local stored = redis.call('HGET', meta, '${META.notes}')
if stored ~= (ARGV[5] == '1' and ARGV[6]) then return {stored} end
redis.call('HSET', meta, '${META.notes}', ARGV[4])
return {ARGV[4]}
`;

/** Retires a node. ARGV: sender, then its field, and for how many seconds it must have been silent. Gives DONE, ALIVE, FENCED or LOST. */
export const RETIRE_SCRIPT = `${CHECK_SENDER}
local record = redis.call('HGET', meta, ARGV[4])
if not record then return 'DONE' end
local writer = string.match(record, '%S+$')
local used = tonumber(string.match(redis.call('HGET', meta, writer) or '', ':(%d+)$') or '0')
if used + tonumber(ARGV[5]) > tonumber(redis.call('TIME')[1]) then return 'ALIVE' end
redis.call('HDEL', meta, ARGV[4], writer)
return 'DONE'
`;

/** Trims a log. ARGV: its key, the first number to keep. A log that is empty then is removed; a later frame begins it anew. */
export const TRIM_SCRIPT = `#!lua flags=allow-oom
if redis.call('EXISTS', ARGV[1]) == 0 then return 0 end
redis.call('XTRIM', ARGV[1], 'MINID', ARGV[2] .. '-0')
if redis.call('XLEN', ARGV[1]) == 0 then
  redis.call('DEL', ARGV[1])
  redis.call('HINCRBY', '${META_KEY}', '${META.reserved}', -1)
end
return 1
`;

/** Reads frames. ARGV: key of the log, first number, most bytes. Gives id, stamp, bytes for each, flat. */
export const FRAMES_SCRIPT = `#!lua flags=no-writes,allow-oom
local out, total, from, limit = {}, 0, ARGV[2], tonumber(ARGV[3])
while true do
  local batch = redis.call('XRANGE', ARGV[1], from, '+', 'COUNT', 16)
  for _, entry in ipairs(batch) do
    local bytes = entry[2][4]
    total = total + #bytes
    if total > limit and #out > 0 then return out end
    out[#out + 1] = entry[1]
    out[#out + 1] = entry[2][2]
    out[#out + 1] = bytes
    from = '(' .. entry[1]
  end
  if #batch < 16 then return out end
end
`;

/** Reads strings. ARGV[1]: a msgpack array of keys. Gives for each the string, nil when absent, 1 when of another type. */
export const STRINGS_SCRIPT = `#!lua flags=no-writes,allow-oom
local keys, out = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #keys, ${CHUNK} do
  local values = redis.call('MGET', unpack(keys, i, math.min(i + ${CHUNK - 1}, #keys)))
  for j = 1, #values do
    local value = values[j]
    if not value and redis.call('TYPE', keys[i + j - 1]).ok ~= 'none' then value = 1 end
    out[i + j - 1] = value
  end
end
return out
`;

/** Reads digests. ARGV: names of slot hashes, each of ARGV[2] bytes, in one string. Gives index, digest for those that exist, flat. */
export const DIGESTS_SCRIPT = `#!lua flags=no-writes,allow-oom
local names, length, out = ARGV[1], tonumber(ARGV[2]), {}
for i = 0, #names / length - 1 do
  local name = string.sub(names, i * length + 1, (i + 1) * length)
  local digest = redis.call('HGET', name, name)
  if digest then
    out[#out + 1] = i
    out[#out + 1] = digest
  end
end
return out
`;

/** Reads which keys have headers. ARGV: as for digests, then the most of a slot. Gives for each slot hash its fields, or 0 where they are more. */
export const NAMES_SCRIPT = `#!lua flags=no-writes,allow-oom
local names, length, most, out = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for i = 0, #names / length - 1 do
  local name = string.sub(names, i * length + 1, (i + 1) * length)
  out[i + 1] = redis.call('HLEN', name) > most and 0 or redis.call('HKEYS', name)
end
return out
`;

/** Reads headers. ARGV: as for digests, then the bytes after which it ends. Gives for each slot hash its fields and values, flat. */
export const HEADERS_SCRIPT = `#!lua flags=no-writes,allow-oom
local names, length, left, out = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for i = 0, #names / length - 1 do
  local flat = redis.call('HGETALL', string.sub(names, i * length + 1, (i + 1) * length))
  out[i + 1] = flat
  for j = 1, #flat do left = left - #flat[j] end
  if left <= 0 then break end
end
return out
`;
