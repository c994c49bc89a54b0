-- What every script of the gate begins with: the keys, the fence, a level.
--
-- ARGV[1] is one MessagePack array: epoch, now (ms), then what the script needs.
-- The answer is one MessagePack array: false when fenced, else {n, {sku, level, ...}, ...}.
-- All checks of a press stand before its first write: Lua takes nothing back.
local CFG, STOCK, DROPS, LINES, IN, RSV, ORPHAN, USED, OPEN, ENDED, OPS, QUEUE, WAIT, OFFERED =
  unpack(KEYS)
local LOG = KEYS[#KEYS] -- always the last one: a stream, what was numbered and not yet stored
local arg = cmsgpack.unpack(ARGV[1])
local epoch, now = arg[1], arg[2]
local SEP = '\31'

-- The very process that was loaded: a restarted engine, a promoted replica and an emptied one
-- all differ here, however little time it took and whatever they still remember.
local function engine()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local function fenced()
  local cfg = redis.call('HMGET', CFG, 'epoch', 'engine')
  return tonumber(cfg[1]) ~= epoch or cfg[2] ~= engine()
end

local counted, first = nil, nil
local noted = {}
-- Takes the next number; `note` {kind, rid, viewer, drop, what, number} says in the log what for.
local function count(note)
  counted = (counted or tonumber(redis.call('HGET', CFG, 'n'))) + 1
  first = first or counted
  if note then
    note[7] = counted
    noted[#noted + 1] = note
  end
  return counted
end

-- Numbers are read once per script, changed in `have` and `left`, and written once, by flush().
local have, have_changed = {}, {}
local function stock_of(sku)
  if have[sku] == nil then
    have[sku] = tonumber(redis.call('HGET', STOCK, sku)) or false
  end
  return have[sku]
end

local left, left_changed = {}, {}
-- false: the SKU is not in this drop; '': it is, without a cap; else the units left of the cap
local function left_of(drop, sku)
  local key = drop .. SEP .. sku
  if left[key] == nil then
    local value = redis.call('HGET', LINES, key)
    left[key] = value and (tonumber(value) or '')
  end
  return left[key]
end

local drops = {}
-- {opens_at, closes_at or 0, closed, hold_ms, per_viewer or 0, {sku, ...}} or false
local function drop_of(id)
  if drops[id] == nil then
    local packed = redis.call('HGET', DROPS, id)
    drops[id] = packed and cmsgpack.unpack(packed)
  end
  return drops[id]
end

local function over(drop)
  return drop[3] or (drop[2] > 0 and now >= drop[2])
end

-- Units of a SKU that a drop has; may be below zero after stock was lowered.
local function free(drop, sku)
  local units = stock_of(sku) or 0
  local cap = left_of(drop, sku)
  if cap and cap ~= '' and cap < units then
    units = cap
  end
  return units
end

-- The first who waits for a SKU of a drop (a member of QUEUE, ordered as text), or false.
local heads = {}
local function head_of(drop, sku)
  local key = drop .. SEP .. sku
  if heads[key] == nil then
    heads[key] = redis.call('ZRANGEBYLEX', QUEUE, '[' .. key .. SEP, '(' .. key .. '\32',
      'LIMIT', 0, 1)[1] or false
  end
  return heads[key]
end

-- What anybody may take: nothing while somebody waits, whatever is free.
local function available(drop, sku)
  local units = free(drop, sku)
  if units > 0 and head_of(drop, sku) then return 0 end
  return units
end

local function take(drop, sku, quantity)
  if stock_of(sku) then
    have[sku] = have[sku] - quantity
    have_changed[sku] = true
  end
  local cap = left_of(drop, sku)
  if cap and cap ~= '' then
    local key = drop .. SEP .. sku
    left[key] = cap - quantity
    left_changed[key] = true
  end
end

-- Adds to a counter in a hash; a counter that has come to zero is removed.
local function bump(key, name, by)
  if redis.call('HINCRBY', key, name, by) <= 0 then
    redis.call('HDEL', key, name)
  end
end

-- Holds that lapsed, in OPEN beside the viewer's open holds: {ms, ...}, oldest first.
local LAPSES_KEPT = 16
local lapsed = {}
local function lapses_of(viewer)
  if not lapsed[viewer] then
    local packed = redis.call('HGET', OPEN, SEP .. viewer)
    lapsed[viewer] = packed and cmsgpack.unpack(packed) or {}
  end
  return lapsed[viewer]
end

local function lapse(viewer)
  local times = lapses_of(viewer)
  times[#times + 1] = now
  if #times > LAPSES_KEPT then table.remove(times, 1) end
  redis.call('HSET', OPEN, SEP .. viewer, cmsgpack.pack(times))
end

-- hold_rule.py's allowance. rule: {window, least hold, {lapses, percent, holds}, ...}
-- open holds allowed or nil for the usual, percent of the hold, lapses (if they matter), until when
local function allowance(viewer, rule)
  local times, recent = lapses_of(viewer), {}
  for _, at in ipairs(times) do
    if at > now - rule[1] then recent[#recent + 1] = at end
  end
  for i = #rule, 3, -1 do
    local step = rule[i]
    if #recent >= step[1] then
      return step[3], step[2], #recent, recent[#recent - step[1] + 1] + rule[1]
    end
  end
  return nil, 100, 0, 0
end

-- Makes a reservation that is not durable yet; `what` is {sku, quantity, ...}. Who let holds lapse
-- has a shorter one.
local function reserve_for(rid, fp, viewer, id, what, rule, n)
  local usual = drop_of(id)[4]
  local _, percent, lapses = allowance(viewer, rule)
  local hold_ms = math.max(math.floor(usual * percent / 100), math.min(rule[2], usual))
  for i = 1, #what, 2 do
    take(id, what[i], what[i + 1])
    redis.call('HINCRBY', USED, id .. SEP .. viewer .. SEP .. what[i], what[i + 1])
  end
  redis.call('HINCRBY', OPEN, viewer, 1)
  local entry = {fp, 'H', viewer, id, what, now + hold_ms, n, now, lapses}
  redis.call('HSET', RSV, rid, cmsgpack.pack(entry))
  return entry
end

-- Gives what is free of a SKU to those who wait for it, first come first served: the unit is never
-- anybody's in between. Who may not have it (limits) is passed over; the record hears of both
-- from OFFERED. The first in the list keeps what is free until there is as much as they asked for.
-- limits: {open holds allowed, rule for lapses}
local SERVED_MAX = 200 -- in one go of one list; the rest at the next look, and nobody overtakes
local function serve(sku, limits)
  local id = redis.call('HGET', IN, sku)
  local drop = id and drop_of(id)
  if not drop or over(drop) or now < drop[1] then return end
  for _ = 1, SERVED_MAX do
    local head = head_of(id, sku)
    if not head then return end
    local rid = string.match(head, '[^\31]*$')
    local fp, viewer, quantity = unpack(cmsgpack.unpack(redis.call('HGET', WAIT, rid)))
    if free(id, sku) < quantity then return end
    local used = tonumber(redis.call('HGET', USED, id .. SEP .. viewer .. SEP .. sku)) or 0
    local open = tonumber(redis.call('HGET', OPEN, viewer)) or 0
    local allowed = math.min(limits[1], allowance(viewer, limits[2]) or limits[1])
    local may = open < allowed and (drop[5] == 0 or used + quantity <= drop[5])
    if may and redis.call('HEXISTS', RSV, rid) == 0 then
      local n = count({'offered', rid, viewer, id, {sku, quantity}, 0})
      reserve_for(rid, fp, viewer, id, {sku, quantity}, limits[2], n)
    else
      count({'passed', rid, viewer, id, {sku, quantity}, 0})
    end
    redis.call('ZREM', QUEUE, head)
    redis.call('ZADD', OFFERED, string.format('%.0f', now), rid)
    heads[id .. SEP .. sku] = nil
  end
end

local function level(sku)
  local drop = redis.call('HGET', IN, sku)
  local units = stock_of(sku)
  if drop then
    local known = drop_of(drop)
    if known and not over(known) then
      units = available(drop, sku)
    end
  end
  return math.max(units or 0, 0)
end

local function flush()
  for sku in pairs(have_changed) do
    redis.call('HSET', STOCK, sku, string.format('%.0f', have[sku]))
  end
  for key in pairs(left_changed) do
    redis.call('HSET', LINES, key, string.format('%.0f', left[key]))
  end
  if counted then
    redis.call('HSET', CFG, 'n', string.format('%.0f', counted))
  end
end

-- {sku, level, ...} of a set of SKUs; those the gate does not have are left out.
local function levels(skus)
  local out = {}
  for sku in pairs(skus) do
    if stock_of(sku) then
      out[#out + 1] = sku
      out[#out + 1] = level(sku)
    end
  end
  return out
end

-- Whatever took a number stands in the log, in the same step. Presses are logged as the bytes that
-- came and the bytes that go, so that the log costs no packing: one XADD for a batch of 64.
local LOG_MAX = 4096
local function log(packed)
  local asked, said = '', ''
  if SCRIPT == 'reserve' then asked, said = ARGV[1], packed end
  redis.call('XADD', LOG, 'MAXLEN', '~', LOG_MAX, '*', 's', SCRIPT,
    'h', cmsgpack.pack({epoch, first, counted, now}), 'x', cmsgpack.pack(noted), 'a', asked, 'r', said)
end

local function answer(skus, rest)
  flush()
  local n = counted or tonumber(redis.call('HGET', CFG, 'n'))
  local packed = cmsgpack.pack({n, levels(skus), rest})
  if counted then log(packed) end
  return packed
end

local FENCED = cmsgpack.pack(false)

-- A reservation: fingerprint, state, viewer, drop, {sku, quantity, ...}, until_ms, n, at, lapses
-- States: 'H' won, not durable · 'M' durable · 'P' sold · 'X' over
local FP, STATE, VIEWER, DROP, WHAT, UNTIL, N, AT, LAPSES = 1, 2, 3, 4, 5, 6, 7, 8, 9
