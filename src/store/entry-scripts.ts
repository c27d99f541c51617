/** Lua that reads and writes the entries of sets, be they in one hash or in pages; entry-pages.ts says what pages are. */
import { ENTRIES_PER_PAGE, HASH, HASH_BYTES, MOST_IN_ONE_HASH, MOST_MOVED } from './entry-pages.js';
import { RESERVED_PREFIX } from './layout.js';
import { TAG_LENGTH } from './slots.js';

/** Beyond, pages grow. */
const MOST_PAGES = 2 ** 20;

/** Pages that a commit may add beyond those that its own entries need, to catch up. */
const MORE_PAGES = 8;

/** Pages that one step of a scan looks at: they may be empty. */
const PAGES_PER_STEP = 1000;

/** Length of what comes before the letter in the name of a hash of entries (layout.ts). */
const NAME_START = RESERVED_PREFIX.length + 2 + TAG_LENGTH;

/** Lua: what all scripts know of pages. \`hash\` is everywhere the name of a set's hash of entries, or of its directory. */
const PAGES_LUA = `
-- How many pages a set has, and how many entries are in them; 0 = its entries are in one hash, if there are any; and the type of what is there.
local function pagesAt(hash)
  local kind = redis.call('TYPE', hash).ok
  if kind ~= 'string' then return 0, 0, kind end
  local pages, count = string.match(redis.call('GET', hash), '^(%d+) (%d+)$')
  if not pages then error('WRONGTYPE the directory of a set was overwritten') end
  return tonumber(pages), tonumber(count), kind
end

local function pageName(hash, page)
  return string.sub(hash, 1, ${NAME_START}) .. 'p' .. page .. string.sub(hash, ${NAME_START + 2})
end

-- The greatest power of two that isn't above a number.
local function levelOf(number)
  local _, exponent = math.frexp(number)
  return math.ldexp(1, exponent - 1)
end

-- The page, of so many, that an entry belongs to whose hash stands in a string from a byte on.
local function pageOf(bytes, at, pages, level)
  local a, b, c = string.byte(bytes, at, at + ${HASH_BYTES - 1})
  local page = (a * 65536 + b * 256 + c) % (2 * level)
  if page < pages then return page end
  return page - level
end
`;

/** Lua: the hash of an element, as \`entryHash\` computes it, in bytes. */
const HASH_LUA = `
local function hashBytes(element)
  local length, hash = #element, #element % ${HASH.prime}
  local first = length > ${2 * HASH.end} and ${HASH.end} or length
  for i = 1, first do hash = (hash * ${HASH.factor} + string.byte(element, i)) % ${HASH.prime} end
  if first < length then
    for i = length - ${HASH.end - 1}, length do hash = (hash * ${HASH.factor} + string.byte(element, i)) % ${HASH.prime} end
  end
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
local pagesIn, lengths, plans = {}, {}, {}

-- How many pages a set has, and how many entries.
local function lookAt(hash)
  local length = lengths[hash]
  if length then return pagesIn[hash], length end
  local pages, count, kind = pagesAt(hash)
  if pages == 0 and kind ~= 'none' then count = call('HLEN', hash) end
  pagesIn[hash], lengths[hash] = pages, count
  return pages, count
end

-- Plans a change of entries that are in pages, or will be. \`i\`: its place in \`entries\`.
local function planPages(i)
  local hash, stored, removed = entries[i], entries[i + 2], entries[i + 3]
  local pages, length = lookAt(hash)
  if entries[i + 1] then pages, length = 0, 0 end
  local most = length + #stored / 2
  if pages == 0 and (most <= ${MOST_IN_ONE_HASH} or length > ${MOST_MOVED}) then return end

  local to, sizes, split = math.ceil(most / ${ENTRIES_PER_PAGE}), {}, {}
  if pages > 0 then
    to = math.min(to, pages + math.ceil(#stored / ${2 * ENTRIES_PER_PAGE}) + ${MORE_PAGES})
  end
  to = math.max(pages, math.min(to, ${MOST_PAGES}))
  for page = pages, pages > 0 and to - 1 or -1 do
    local from = page
    repeat from = from - levelOf(from) until from < pages
    if not split[from] then
      sizes[from] = call('HLEN', pageName(hash, from))
      if sizes[from] > ${MOST_MOVED} then
        to = page
        break
      end
      split[from] = true
    end
  end

  local level, put, drop = levelOf(to), {}, {}
  local function into(lists, bytes, at, element, value)
    local page = pageOf(bytes, at, to, level)
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
      into(put, value, 1, flat[j], value)
    end
  end
  for page in pairs(split) do
    local flat = call('HGETALL', pageName(hash, page))
    for j = 1, #flat, 2 do into(put, flat[j + 1], 1, flat[j], flat[j + 1]) end
  end
  -- What an earlier release prepared in a cluster comes without hashes.
  local known, at = hashes and hashes[(i + 3) / 4], 1
  for j = 1, #stored, 2 do
    local value = (known and string.sub(known, at, at + ${HASH_BYTES - 1}) or hashBytes(stored[j])) .. stored[j + 1]
    into(put, value, 1, stored[j], value)
    at = at + ${HASH_BYTES}
  end
  for j = 1, #removed do
    if known then into(drop, known, at, removed[j]) else into(drop, hashBytes(removed[j]), 1, removed[j]) end
    at = at + ${HASH_BYTES}
  end
  for _, lists in ipairs({put, drop}) do
    for page in pairs(lists) do
      if page < pages and not sizes[page] then sizes[page] = call('HLEN', pageName(hash, page)) end
    end
  end
  plans[i] = {to, sizes, split, put, drop}
end

-- Gives how many entries there are then. What isn't in \`sizes\` is a new page.
local function writePages(hash, pages, length, to, sizes, split, put, drop)
  for page in pairs(split) do
    reserved = reserved - call('UNLINK', pageName(hash, page))
    length = length - sizes[page]
    sizes[page] = 0
  end
  for page, list in pairs(put) do
    local name, size = pageName(hash, page), sizes[page]
    if not size then
      size = 0
      -- There is nothing, unless it was damaged from outside.
      reserved = reserved - call('UNLINK', name)
    end
    local added = chunked('HSET', name, list)
    if size == 0 then reserved = reserved + 1 end
    sizes[page] = size + added
    length = length + added
  end
  for page, list in pairs(drop) do
    local size = sizes[page] or 0
    local gone = size > 0 and chunked('HDEL', pageName(hash, page), list) or 0
    if gone > 0 and gone == size then reserved = reserved - 1 end
    length = length - gone
  end
  return length
end

local function removePages(hash, pages)
  local names = {}
  for page = 0, pages - 1 do names[page + 1] = pageName(hash, page) end
  return chunked('UNLINK', hash, names)
end

local function writeEntries(i)
  local hash, stored, removed, plan = entries[i], entries[i + 2], entries[i + 3], plans[i]
  local pages, length = lookAt(hash)
  if length > 0 and (entries[i + 1] or plan and pages == 0) then
    reserved = reserved - (pages > 0 and removePages(hash, pages) or call('UNLINK', hash))
    pages, length = 0, 0
  end
  local before = length
  if plan then
    length = writePages(hash, pages, length, unpack(plan))
    if length == 0 then
      reserved = reserved - call('UNLINK', hash)
      pages = 0
    elseif length ~= before or pages ~= plan[1] then
      if pages == 0 then reserved = reserved + 1 end
      pages = plan[1]
      call('SET', hash, pages .. ' ' .. length)
    end
  else
    length = length + chunked('HSET', hash, stored) - chunked('HDEL', hash, removed)
    if length > 0 and before == 0 then reserved = reserved + 1 end
    if length == 0 and before > 0 then reserved = reserved - 1 end
  end
  pagesIn[hash], lengths[hash] = pages, length
end

-- Makes a native set of the elements that have entries.
local function rebuild(key, hash)
  call('UNLINK', key)
  local pages = lookAt(hash)
  if pages == 0 then chunked('SADD', key, call('HKEYS', hash)) end
  for page = 0, pages - 1 do
    -- Should it be damaged from outside, what is there of the others is better than to stop here.
    local elements = pcall('HKEYS', pageName(hash, page))
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
  local out = {}
  if all then
    for page = 0, pages - 1 do out[page + 1] = redis.call('HGETALL', pageName(hash, page)) end
    return out
  end
  local level, elements, places = levelOf(pages), {}, {}
  for i = 4, #command do
    local page = pageOf(command[3], ${HASH_BYTES} * (i - 4) + 1, pages, level)
    if not places[page] then elements[page], places[page] = {}, {} end
    table.insert(elements[page], command[i])
    table.insert(places[page], i - 3)
  end
  for page, some in pairs(elements) do
    local found = redis.call('HMGET', pageName(hash, page), unpack(some))
    for i, place in ipairs(places[page]) do out[place] = found[i] and string.sub(found[i], ${HASH_BYTES + 1}) end
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
local page, before, inner = string.match(cursor, '^(%d+):(%d+):(%d+)$')
local pages = pagesAt(hash)
if pages == 0 then return redis.call('HSCAN', hash, page and '0' or cursor, 'COUNT', count) end
page = tonumber(page)
if not page or pages < tonumber(before) then page, inner = 0, '0' end
local out, size, last = {}, 0, math.min(pages, page + ${PAGES_PER_STEP})
while page < last and size < 2 * count do
  local reply = redis.call('HSCAN', pageName(hash, page), inner, 'COUNT', count)
  inner = reply[1]
  out[#out + 1] = reply[2]
  size = size + #reply[2]
  if inner == '0' then page = page + 1 end
end
if page == pages then return {'0', out} end
return {page .. ':' .. pages .. ':' .. inner, out}
`;
