-- arg: [3] drop ids
if fenced() then return FENCED end
local touched = {}
for _, id in ipairs(arg[3]) do
  local drop = drop_of(id)
  if drop and not drop[3] then
    count({'closed_drop', '', '', id, {}, 0})
    drop[3] = true
    redis.call('HSET', DROPS, id, cmsgpack.pack(drop))
    for _, sku in ipairs(drop[6]) do
      touched[sku] = true
    end
  end
end
return answer(touched, {})
