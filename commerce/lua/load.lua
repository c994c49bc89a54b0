-- Puts a staged image in place of everything. KEYS: the gate's own, then the staged ones (no
-- cfg). arg: [3] how many fields each staged key must have (an engine that restarted while it was
-- staged has lost some), [4] what the log says of the image.
-- Answer: {'ok' | 'stale' | 'incomplete', stored epoch}
local stored = tonumber(redis.call('HGET', CFG, 'epoch')) or 0
if stored >= epoch then return cmsgpack.pack({'stale', stored}) end
local sorted = {[7] = true, [10] = true, [11] = true, [12] = true, [14] = true}
for i = 2, 14 do
  local size = redis.call(sorted[i] and 'ZCARD' or 'HLEN', KEYS[i + 13])
  if size ~= arg[3][i - 1] then return cmsgpack.pack({'incomplete', stored}) end
end
redis.call('DEL', CFG)
for i = 2, 14 do
  redis.call('DEL', KEYS[i])
  if arg[3][i - 1] > 0 then
    redis.call('RENAME', KEYS[i + 13], KEYS[i])
    redis.call('PERSIST', KEYS[i])
  end
end
redis.call('HSET', CFG, 'n', 0, 'engine', engine(), 'epoch', string.format('%.0f', epoch))
redis.call('XADD', LOG, 'MAXLEN', '~', LOG_MAX, '*', 's', SCRIPT,
  'h', cmsgpack.pack({epoch, 0, 0, now}), 'x', cmsgpack.pack({}), 'a', ARGV[1], 'r', '')
return cmsgpack.pack({'ok', epoch})
