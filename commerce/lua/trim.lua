-- arg: [3] ended before (ms), [4] limit. rest: {how many}
if fenced() then return FENCED end
local old = redis.call('ZRANGEBYSCORE', ENDED, '-inf', string.format('(%.0f', arg[3]),
  'LIMIT', 0, arg[4])
for _, rid in ipairs(old) do
  redis.call('HDEL', RSV, rid)
  redis.call('ZREM', ENDED, rid)
end
return answer({}, {#old})
