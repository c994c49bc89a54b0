-- KEYS: 1 nodes (hash: node -> "count:milliseconds:step:tick"), 2 peak, 3 unique (HyperLogLog).
-- ARGV: 1 node, 2 viewers, 3 stale ms, 4 ttl s, 5 step, 6 tick ms, then ids of newcomers.
-- Returns viewers now, peak, unique, and the highest step and longest tick of all nodes.
-- The engine's clock is the one clock that all nodes share.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then
  local report = { ARGV[2], string.format('%.0f', now), ARGV[5], ARGV[6] }
  redis.call('HSET', KEYS[1], ARGV[1], table.concat(report, ':'))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local sum, step, tick = 0, tonumber(ARGV[5]), tonumber(ARGV[6])
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
  local count, at, its_step, its_tick = string.match(nodes[i + 1], '^(%d+):(%d+):?(%d*):?(%d*)$')
  if not at or now - tonumber(at) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], nodes[i])
  else
    sum = sum + tonumber(count)
    step = math.max(step, tonumber(its_step) or 0)
    tick = math.max(tick, tonumber(its_tick) or 0)
  end
end
if #ARGV > 6 then
  redis.call('PFADD', KEYS[3], unpack(ARGV, 7))
end
local peak = tonumber(redis.call('GET', KEYS[2]) or '0')
if sum > peak then
  peak = sum
end
redis.call('SET', KEYS[2], peak, 'EX', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return { sum, peak, redis.call('PFCOUNT', KEYS[3]), step, tick }
