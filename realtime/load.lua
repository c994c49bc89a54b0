-- A room at one instant. After room_epoch.lua.
local numbers = redis.call('HMGET', META, 'control', 'chat')
return {
  epoch,
  tonumber(numbers[1] or '0'),
  tonumber(numbers[2] or '0'),
  redis.call('HGETALL', FACTS),
  redis.call('HGETALL', STATES),
  redis.call('ZRANGE', CONTROL, 0, -1),
  redis.call('ZRANGE', CHAT, 0, -1),
}
