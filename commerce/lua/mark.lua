-- arg: [3] rids. A win that is durable is no orphan any more.
if fenced() then return FENCED end
for _, rid in ipairs(arg[3]) do
  local packed = redis.call('HGET', RSV, rid)
  local entry = packed and cmsgpack.unpack(packed)
  if entry and entry[STATE] == 'H' then
    entry[STATE] = 'M'
    redis.call('HSET', RSV, rid, cmsgpack.pack(entry))
  end
  redis.call('ZREM', ORPHAN, rid)
end
return answer({}, {})
