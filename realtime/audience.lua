-- KEYS: 1 nodes (hash: node -> "count:milliseconds"), 2 peak. ARGV: node, viewers, stale ms, ttl s.
-- The engine's clock is the one clock that all nodes share.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. string.format('%.0f', now))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local sum = 0
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
  local count, at = string.match(nodes[i + 1], '(%d+):(%d+)')
  if now - tonumber(at) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], nodes[i])
  else
    sum = sum + tonumber(count)
  end
end
local peak = tonumber(redis.call('GET', KEYS[2]) or '0')
if sum > peak then
  peak = sum
end
redis.call('SET', KEYS[2], peak, 'EX', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return { sum, peak }
