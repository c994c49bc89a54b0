-- arg: [3] {rid, 'freed' | 'lapsed' | 'sold' | 'forgotten'} each, [4] limits of those who wait. A
-- reservation ends once: whoever comes second finds it ended and changes nothing. What is free goes
-- to those who wait for it, here and now.
if fenced() then return FENCED end
local touched = {}

local function give_back(entry)
  local what = entry[WHAT]
  for i = 1, #what, 2 do
    take(entry[DROP], what[i], -what[i + 1])
    touched[what[i]] = true
    bump(USED, entry[DROP] .. SEP .. entry[VIEWER] .. SEP .. what[i], -what[i + 1])
  end
end

for _, pair in ipairs(arg[3]) do
  local rid, how = pair[1], pair[2]
  local packed = redis.call('HGET', RSV, rid)
  local entry = packed and cmsgpack.unpack(packed)
  if entry and (entry[STATE] == 'H' or entry[STATE] == 'M') then
    count({how, rid, entry[VIEWER], entry[DROP], entry[WHAT], 0})
    if how == 'lapsed' then lapse(entry[VIEWER]) end
    bump(OPEN, entry[VIEWER], -1)
    redis.call('ZREM', ORPHAN, rid)
    if how ~= 'sold' then give_back(entry) end
    if how == 'forgotten' then
      redis.call('HDEL', RSV, rid)
    else
      entry[STATE] = how == 'sold' and 'P' or 'X'
      redis.call('HSET', RSV, rid, cmsgpack.pack(entry))
      redis.call('ZADD', ENDED, string.format('%.0f', now), rid)
    end
  end
end
for sku in pairs(touched) do
  serve(sku, arg[4])
end
return answer(touched, {})
