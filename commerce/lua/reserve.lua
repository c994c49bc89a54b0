-- arg: [3] open holds allowed, [4] ms until an unmarked win is an orphan,
-- [5] presses {rid, fingerprint, viewer, drop, {sku, quantity, ...}, price_ok, pressed_at},
-- [6] rule for lapses, [7] node (for the log)
-- rest: per press {verdict, n, sku, number, until_ms, at}
if fenced() then return FENCED end
local open_max, orphan_after, presses, rule = arg[3], arg[4], arg[5], arg[6]
local rids, touched, fresh = {}, {}, {}
for i, press in ipairs(presses) do
  rids[i] = press[1]
end
local known = redis.call('HMGET', RSV, unpack(rids))

local function refusal(press, drop)
  local viewer, id, what = press[3], press[4], press[5]
  if not drop then return 'unknown_drop' end
  if over(drop) then return 'closed' end
  if now < drop[1] then return 'not_open', false, drop[1] end
  for i = 1, #what, 2 do
    if left_of(id, what[i]) == false then return 'unknown_sku', what[i] end
  end
  if not press[6] then return 'price' end
  for i = 1, #what, 2 do
    local units = available(id, what[i])
    if units < what[i + 1] then
      touched[what[i]] = true
      return 'sold_out', what[i], math.max(units, 0)
    end
  end
  local open = tonumber(redis.call('HGET', OPEN, viewer)) or 0
  if open >= open_max then return 'limit', false, open_max end
  local holds, _, _, until_ms = allowance(viewer, rule)
  if holds and open >= holds then return 'lapsed', false, holds, until_ms end
  if drop[5] > 0 then
    for i = 1, #what, 2 do
      local used = tonumber(redis.call('HGET', USED, id .. SEP .. viewer .. SEP .. what[i])) or 0
      if used + what[i + 1] > drop[5] then return 'limit', what[i], drop[5] end
    end
  end
  return nil
end

local function win(press, n)
  local rid, what = press[1], press[5]
  local entry = reserve_for(rid, press[2], press[3], press[4], what, rule, n)
  for i = 1, #what, 2 do
    touched[what[i]] = true
  end
  fresh[rid] = entry
  redis.call('ZADD', ORPHAN, string.format('%.0f', now + orphan_after), rid)
  return {'won', n, false, entry[LAPSES], entry[UNTIL], now}
end

local out = {}
for i, press in ipairs(presses) do
  local entry = fresh[press[1]] or (known[i] and cmsgpack.unpack(known[i]))
  if entry and entry[FP] ~= press[2] then
    out[i] = {'conflict', 0, false, 0, 0, 0}
  elseif entry and entry[STATE] == 'H' then
    out[i] = {'won', entry[N], false, entry[LAPSES] or 0, entry[UNTIL], entry[AT]}
  elseif entry then
    out[i] = {'known', 0, false, 0, 0, 0}
  else
    local n = count()
    local drop = drop_of(press[4])
    local verdict, sku, number, until_ms = refusal(press, drop)
    out[i] = verdict and {verdict, n, sku or false, number or 0, until_ms or 0, now}
      or win(press, n)
  end
end
return answer(touched, out)
