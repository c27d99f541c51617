/** Lua that reads and writes the entries of sets, be they in one hash or in pages; entry-pages.ts says what pages are. */
import { ENTRIES_PER_PAGE, HASH, HASH_BYTES, MOST_IN_ONE_HASH, MOST_MOVED } from './entry-pages.js';
import { RESERVED_PREFIX } from './layout.js';
import { TAG_LENGTH } from './slots.js';

/** Fields of a listpack, by default. */
const MOST_PACKED = 512;

/** Beyond, pages grow. */
const MOST_PAGES = 2 ** 20;

/** Pages that a commit may add beyond those that its own entries need, to catch up. */
const MORE_PAGES = 8;

/** Most arguments for one command out of a Lua table: Lua's stack holds about 8,000. */
const CHUNK = 4000;

/** Pages that one step of a scan looks at: they may be empty. */
const PAGES_PER_STEP = 1000;

/** Length of what comes before the letter in the name of a hash of entries (layout.ts). */
const NAME_START = RESERVED_PREFIX.length + 2 + TAG_LENGTH;

/** Lua: what all scripts know of pages. \`hash\` is everywhere the name of a set's hash of entries, or of its directory. */
const PAGES_LUA = `
local byte, sub = string.byte, string.sub

-- How many pages a set has, how many entries are in them, and how many pages are missing because they have none; no pages = its entries are in one
-- hash, if there are any. And the type of what is there.
local function pagesAt(hash)
  local kind = redis.call('TYPE', hash).ok
  if kind ~= 'string' then return 0, 0, 0, kind end
  local pages, count, missing = string.match(redis.call('GET', hash), '^(%d+) (%d+) (%d+)$')
  if not pages then error('WRONGTYPE the directory of a set was overwritten') end
  return tonumber(pages), tonumber(count), tonumber(missing), kind
end

-- What comes before and after the number in the name of a page.
local function pageNames(hash)
  return sub(hash, 1, ${NAME_START}) .. 'p', sub(hash, ${NAME_START + 2})
end

-- The greatest power of two that isn't above a number.
local function levelOf(number)
  local _, exponent = math.frexp(number)
  return math.ldexp(1, exponent - 1)
end

-- The page, of so many, that an entry belongs to whose hash stands in a string from a byte on.
local function pageOf(bytes, at, pages, level)
  local a, b, c = byte(bytes, at, at + ${HASH_BYTES - 1})
  local page = (a * 65536 + b * 256 + c) % (2 * level)
  if page < pages then return page end
  return page - level
end
`;

/** Lua: the hash of an element, as \`entryHash\` computes it, in bytes. */
const HASH_LUA = `
local function hashBytes(element)
  local length, hash = #element, #element % ${HASH.prime}
  local first = length > ${2 * HASH.end} and ${HASH.end} or length - 1
  for i = 1, first do hash = (hash * ${HASH.factor} + byte(element, i)) % ${HASH.prime} end
  for i = math.max(first, length - ${HASH.end}) + 1, length - 1 do
    hash = (hash * ${HASH.factor} + byte(element, i)) % ${HASH.prime}
  end
  if length > 0 then hash = (hash * ${HASH.factor} + math.floor(byte(element, length) / 16)) % ${HASH.prime} end
  hash = hash * ${HASH.spread} % ${HASH.prime}
  return string.char(math.floor(hash / 65536), math.floor(hash / 256) % 256, hash % 256)
end
`;

/**
 * Lua: the parts of the commit script that are about entries. Needs its variables, \`chunked\` and \`reserved\`.
 *
 * Before the first write, \`lookAt\` and \`planPages\` read all that is to be moved, and see to it that what will be written to is what it should be. Then
 * \`writeEntries\` writes it.
 */
export const COMMIT_ENTRIES_LUA = `
${PAGES_LUA}${HASH_LUA}
local lengths, paged, plans = {}, {}, {}

-- How many pages a set has, how many entries, and how many pages are missing.
local function lookAt(hash)
  local length, of = lengths[hash], paged[hash]
  if of then return of[1], length, of[2] end
  if length then return 0, length, 0 end
  local pages, count, missing, kind = pagesAt(hash)
  if pages > 0 then
    paged[hash] = {pages, missing}
  elseif kind ~= 'none' then
    count = call('HLEN', hash)
  end
  lengths[hash] = count
  return pages, count, missing
end

-- Reads the pages to be split so that there are \`to\`, with their lengths. Gives them, and how many pages there can be: a page that is too large
-- is in the way.
local function readSplits(hash, pages, to)
  local before, after = pageNames(hash)
  local split, sizes = {}, {}
  for page = pages, to - 1 do
    local from = page
    repeat from = from - levelOf(from) until from < pages
    if not split[from] then
      sizes[from] = call('HLEN', before .. from .. after)
      if sizes[from] > ${MOST_MOVED} then
        to = page
        break
      end
      split[from] = call('HGETALL', before .. from .. after)
    end
  end
  return split, sizes, to
end

-- Plans a change of entries that are in pages, or will be. \`i\`: its place in \`entries\`.
local function planPages(i)
  local hash, stored, removed = entries[i], entries[i + 2], entries[i + 3]
  local pages, length = lookAt(hash)
  if entries[i + 1] then pages, length = 0, 0 end
  local most = length + #stored / 2
  if pages == 0 and (most <= ${MOST_IN_ONE_HASH} or length > ${MOST_MOVED}) then return end

  local to, split, sizes = math.ceil(most / ${ENTRIES_PER_PAGE}), {}, {}
  if pages > 0 then to = math.min(to, pages + math.ceil(#stored / ${2 * ENTRIES_PER_PAGE}) + ${MORE_PAGES}) end
  to = math.max(pages, math.min(to, ${MOST_PAGES}))
  if pages > 0 and to > pages then split, sizes, to = readSplits(hash, pages, to) end

  local level, put, drop = levelOf(to), {}, {}
  local function into(lists, page, element, value)
    local list = lists[page]
    if not list then
      list = {}
      lists[page] = list
    end
    list[#list + 1] = element
    list[#list + 1] = value
  end
  if pages == 0 and length > 0 then
    local flat = call('HGETALL', hash)
    for j = 1, #flat, 2 do
      local value = hashBytes(flat[j]) .. flat[j + 1]
      into(put, pageOf(value, 1, to, level), flat[j], value)
    end
  end
  local anew = {}
  for from, flat in pairs(split) do
    -- Only what was packed stays so when it becomes less.
    if sizes[from] > ${MOST_PACKED} then anew[from] = sizes[from] end
    for j = 1, #flat, 2 do
      local page = pageOf(flat[j + 1], 1, to, level)
      if page ~= from or anew[from] then into(put, page, flat[j], flat[j + 1]) end
      if page ~= from and not anew[from] then into(drop, from, flat[j]) end
    end
  end
  -- Where there are more pages than changes, lists cost more than they gain: most pages have one change, or some that follow one another.
  local alone = #stored / 2 + #removed < pages
  -- What an earlier release prepared in a cluster comes without hashes.
  local known, at, where = hashes and hashes[(i + 3) / 4], 1, {}
  for j = 1, #stored, 2 do
    local value = (known and sub(known, at, at + ${HASH_BYTES - 1}) or hashBytes(stored[j])) .. stored[j + 1]
    local page = pageOf(value, 1, to, level)
    at = at + ${HASH_BYTES}
    if alone and page < pages and not anew[page] then
      where[j] = page
      stored[j + 1] = value
    else
      into(put, page, stored[j], value)
    end
  end
  for j = 1, #removed do
    local page = known and pageOf(known, at, to, level) or pageOf(hashBytes(removed[j]), 1, to, level)
    at = at + ${HASH_BYTES}
    into(drop, page, removed[j])
  end
  plans[i] = {to, anew, put, drop, where, stored}
end

-- Gives how many entries there are then, and how many pages are missing.
local function writePages(hash, pages, length, missing, to, anew, put, drop, where, stored)
  local before, after = pageNames(hash)
  for page, size in pairs(anew) do
    local there = call('UNLINK', before .. page .. after)
    reserved = reserved - there
    -- From here on it is one of those that are missing, as the new ones are.
    missing = missing + there
    length = length - size
  end
  for page = pages, to - 1 do
    -- There is nothing, unless it was damaged from outside.
    reserved = reserved - call('UNLINK', before .. page .. after)
  end
  missing = missing + to - pages
  local function store(name, ...)
    if missing > 0 and call('EXISTS', name) == 0 then
      missing = missing - 1
      reserved = reserved + 1
    end
    local added = pcall('HSET', name, ...)
    if type(added) == 'table' then
      -- Someone has overwritten it.
      call('UNLINK', name)
      added = call('HSET', name, ...)
    end
    length = length + added
  end
  for page, list in pairs(put) do
    local name = before .. page .. after
    for j = 1, #list, ${CHUNK} do store(name, unpack(list, j, math.min(j + ${CHUNK - 1}, #list))) end
  end
  local first = 1
  for j = 1, #stored, 2 do
    local page = where[j]
    if page ~= where[j + 2] or j - first > ${CHUNK - 4} then
      if page then store(before .. page .. after, unpack(stored, first, j + 1)) end
      first = j + 2
    end
  end
  for page, list in pairs(drop) do
    local name, gone = before .. page .. after, 0
    for j = 1, #list, ${CHUNK} do
      local reply = pcall('HDEL', name, unpack(list, j, math.min(j + ${CHUNK - 1}, #list)))
      if type(reply) == 'number' then gone = gone + reply end
    end
    if gone > 0 and call('EXISTS', name) == 0 then
      missing = missing + 1
      reserved = reserved - 1
    end
    length = length - gone
  end
  return length, missing
end

-- Gives how many keys there were.
local function removePages(hash, pages)
  local before, after = pageNames(hash)
  local names = {}
  for page = 0, pages - 1 do names[page + 1] = before .. page .. after end
  return chunked('UNLINK', hash, names)
end

local function writeEntries(i)
  local hash, stored, removed, plan = entries[i], entries[i + 2], entries[i + 3], plans[i]
  local pages, length, missing = lookAt(hash)
  if length > 0 and (entries[i + 1] or plan and pages == 0) then
    reserved = reserved - (pages > 0 and removePages(hash, pages) or call('UNLINK', hash))
    pages, length, missing = 0, 0, 0
  end
  local before = length
  if plan then
    local to, missed = plan[1], missing
    length, missing = writePages(hash, pages, length, missing, unpack(plan))
    if length == 0 then
      reserved = reserved - call('UNLINK', hash)
      pages = 0
    elseif length ~= before or pages ~= to or missing ~= missed then
      if pages == 0 then reserved = reserved + 1 end
      pages = to
      call('SET', hash, pages .. ' ' .. length .. ' ' .. missing)
    end
  else
    length = length + chunked('HSET', hash, stored) - chunked('HDEL', hash, removed)
    if length > 0 and before == 0 then reserved = reserved + 1 end
    if length == 0 and before > 0 then reserved = reserved - 1 end
  end
  lengths[hash], paged[hash] = length, pages > 0 and {pages, missing} or nil
end

-- Makes a native set of the elements that have entries.
local function rebuild(key, hash)
  call('UNLINK', key)
  local pages = lookAt(hash)
  local before, after = pageNames(hash)
  if pages == 0 then chunked('SADD', key, call('HKEYS', hash)) end
  for page = 0, pages - 1 do
    -- Should it be damaged from outside, what is there of the others is better than to stop here.
    local elements = pcall('HKEYS', before .. page .. after)
    if not elements.err then chunked('SADD', key, elements) end
  end
end
`;

/** First word of what is a command to {@link READ_SCRIPT} only: then the name of a set's hash of entries, and for some of them their hashes and elements. */
export const ENTRIES = 'ENTRIES';

/**
 * Runs reads in one step. ARGV[1]: a msgpack array of commands, each an array of strings. Gives their replies. All entries of a big set come page by
 * page, each as a list, and with their hashes.
 */
export const READ_SCRIPT = `#!lua flags=no-writes,allow-oom
${PAGES_LUA}
local function entriesOf(command)
  local hash, all = command[2], #command == 2
  local pages = pagesAt(hash)
  if pages == 0 then
    if all then return redis.call('HGETALL', hash) end
    return redis.call('HMGET', hash, unpack(command, 4))
  end
  local before, after = pageNames(hash)
  local out = {}
  if all then
    for page = 0, pages - 1 do out[page + 1] = redis.call('HGETALL', before .. page .. after) end
    return out
  end
  local level, elements, places = levelOf(pages), {}, {}
  local function pageAt(i) return pageOf(command[3], ${HASH_BYTES} * (i - 4) + 1, pages, level) end
  if #command - 3 < pages then
    -- Most pages have one of them, or some that follow one another.
    local first, page = 4, pageAt(4)
    for i = 4, #command do
      local following = i < #command and pageAt(i + 1)
      if following ~= page then
        local found = redis.call('HMGET', before .. page .. after, unpack(command, first, i))
        for j = 1, #found do out[first + j - 4] = found[j] and sub(found[j], ${HASH_BYTES + 1}) end
        first, page = i + 1, following
      end
    end
    return out
  end
  for i = 4, #command do
    local page = pageAt(i)
    if not places[page] then elements[page], places[page] = {}, {} end
    table.insert(elements[page], command[i])
    table.insert(places[page], i - 3)
  end
  for page, some in pairs(elements) do
    local found = redis.call('HMGET', before .. page .. after, unpack(some))
    for i, place in ipairs(places[page]) do out[place] = found[i] and sub(found[i], ${HASH_BYTES + 1}) end
  end
  return out
end

local out = {}
for i, command in ipairs(cmsgpack.unpack(ARGV[1])) do
  if command[1] == '${ENTRIES}' then out[i] = entriesOf(command) else out[i] = redis.call(unpack(command)) end
end
return out
`;

/**
 * A step of a scan over entries. ARGV: the name of their hash, cursor, count. Gives the next cursor, and either a flat list or one for each page, as
 * above.
 *
 * In pages a cursor is \`page:pages:cursor in the page\`. Entries move to pages with higher numbers only, so what moves meanwhile comes later, perhaps again.
 * With fewer pages than before, the set was stored anew, and the scan begins again.
 */
export const SCAN_ENTRIES_SCRIPT = `#!lua flags=no-writes,allow-oom
${PAGES_LUA}
local hash, cursor, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local page, known, inner = string.match(cursor, '^(%d+):(%d+):(%d+)$')
local pages = pagesAt(hash)
if pages == 0 then return redis.call('HSCAN', hash, page and '0' or cursor, 'COUNT', count) end
page = tonumber(page)
if not page or pages < tonumber(known) then page, inner = 0, '0' end
local before, after = pageNames(hash)
local out, size, last = {}, 0, math.min(pages, page + ${PAGES_PER_STEP})
while page < last and size < 2 * count do
  local reply = redis.call('HSCAN', before .. page .. after, inner, 'COUNT', count)
  inner = reply[1]
  out[#out + 1] = reply[2]
  size = size + #reply[2]
  if inner == '0' then page = page + 1 end
end
if page == pages then return {'0', out} end
return {page .. ':' .. pages .. ':' .. inner, out}
`;
