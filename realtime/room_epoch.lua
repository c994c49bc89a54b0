-- The start of every script that numbers a room. KEYS: 1 meta 2 facts 3 states 4 control 5 chat.
-- Leaves `epoch`; a room that is missing, or that was numbered by another run of the engine, gets
-- the candidate. INFO is read inside the script because between two commands the engine may change.
local META, FACTS, STATES, CONTROL, CHAT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local candidate, ttl = ARGV[1], ARGV[2]

local function int(n)
  return string.format('%.0f', n)
end

local function touch()
  for i = 1, 5 do
    redis.call('EXPIRE', KEYS[i], ttl)
  end
end

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local known = redis.call('HMGET', META, 'epoch', 'run')
local epoch = known[1]
if not epoch or known[2] ~= run then
  if not epoch then
    -- Leftovers without their numbers are of no use to anybody.
    redis.call('DEL', FACTS, STATES, CONTROL, CHAT)
  else
    -- The owners of states may have begun to count anew: any version may replace these values.
    local states = redis.call('HGETALL', STATES)
    for i = 1, #states, 2 do
      if string.sub(states[i + 1], 1, 1) == 'S' then
        local colon = string.find(states[i + 1], ':', 1, true)
        redis.call('HSET', STATES, states[i], 'S0' .. string.sub(states[i + 1], colon))
      end
    end
  end
  epoch = candidate
  redis.call('HSET', META, 'epoch', epoch, 'run', run)
  touch()
end
