-- What every script of the gate begins with: the keys, the fence, a level.
--
-- ARGV[1] is one MessagePack array: epoch, now (ms), then what the script needs.
-- The answer is one MessagePack array: false when fenced, else {n, {sku, level, ...}, ...}.
-- All checks of a press stand before its first write: Lua takes nothing back.
local CFG, STOCK, DROPS, LINES, IN, RSV, ORPHAN, USED, OPEN, ENDED, OPS = unpack(KEYS)
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

local counted = nil
local function count()
  counted = (counted or tonumber(redis.call('HGET', CFG, 'n'))) + 1
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

-- What can be taken of a SKU in a drop; may be below zero after stock was lowered.
local function available(drop, sku)
  local units = stock_of(sku) or 0
  local cap = left_of(drop, sku)
  if cap and cap ~= '' and cap < units then
    units = cap
  end
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

local function answer(skus, rest)
  flush()
  local n = counted or tonumber(redis.call('HGET', CFG, 'n'))
  return cmsgpack.pack({n, levels(skus), rest})
end

local FENCED = cmsgpack.pack(false)

-- A reservation: fingerprint, state, viewer, drop, {sku, quantity, ...}, until_ms, n, at
-- States: 'H' won, not durable · 'M' durable · 'P' sold · 'X' over
local FP, STATE, VIEWER, DROP, WHAT, UNTIL, N, AT = 1, 2, 3, 4, 5, 6, 7, 8
