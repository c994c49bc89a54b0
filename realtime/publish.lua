-- One publish, one step. After room_epoch.lua.
-- KEYS from 6: one idempotency key per comment, in order.
-- ARGV: 3 channel, 4 PUBLISH or SPUBLISH, 5 log entries, 6 idempotency seconds, then the items:
--   C key value keep(1|0) retracts(offset or '')      H value keep(1|0)
--   S key value version    T key by    G key value    D item
-- Values are MessagePack and are never opened here. Returns epoch and a number per item.
local channel, verb, log_max, rid_ttl = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local pack = cmsgpack.pack
local NULL, TRUE, FALSE = '\192', '\195', '\194'

local out, feed = { epoch }, {}
local next_rid, at = 6, 7

local function log(name, offset, item)
  redis.call('ZADD', name, offset, item)
  redis.call('ZREMRANGEBYSCORE', name, '-inf', int(offset - log_max))
  feed[#feed + 1] = item
end

local function state(key, kind, version, value)
  redis.call('HSET', STATES, key, kind .. int(version) .. ':' .. value)
  feed[#feed + 1] = '\145\148\3' .. pack(key) .. pack(version) .. value
end

local function stored(key)
  local old = redis.call('HGET', STATES, key)
  return old and tonumber(string.match(old, '^%a(%d+):'))
end

while at <= #ARGV do
  local kind = ARGV[at]
  local number = 0
  if kind == 'C' then
    local key, value, keep, retracts = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    at = at + 5
    number = redis.call('HINCRBY', META, 'control', 1)
    local tail = (keep == '1' and TRUE or FALSE) .. (retracts == '' and NULL or pack(tonumber(retracts)))
    log(CONTROL, number, '\147\148\2' .. pack(number) .. pack(key) .. value .. tail)
    if keep == '1' then
      if value == NULL then
        redis.call('HDEL', FACTS, key)
      else
        redis.call('HSET', FACTS, key, value)
      end
    end
    if retracts ~= '' then
      redis.call('ZREMRANGEBYSCORE', CHAT, retracts, retracts)
    end
  elseif kind == 'H' then
    local value, keep, rid = ARGV[at + 1], ARGV[at + 2], KEYS[next_rid]
    at, next_rid = at + 3, next_rid + 1
    local before = redis.call('GET', rid)
    if before then
      number = tonumber(before)
    else
      number = redis.call('HINCRBY', META, 'chat', 1)
      redis.call('SET', rid, int(number), 'EX', rid_ttl)
      local head, tail = '\145', ''
      if keep == '1' then
        head, tail = '\146', TRUE
      end
      log(CHAT, number, head .. '\147\4' .. pack(number) .. value .. tail)
    end
  elseif kind == 'S' then
    local key, value, version = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
    at = at + 4
    local old = stored(key)
    if old and version <= old and not (old == 0) then
      number = -1
    else
      number = version
      state(key, 'S', version, value)
    end
  elseif kind == 'T' then
    local key, by = ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    number = (stored(key) or 0) + by
    state(key, 'T', number, pack(number))
  elseif kind == 'G' then
    local key, value = ARGV[at + 1], ARGV[at + 2]
    at = at + 3
    number = (stored(key) or 0) + 1
    state(key, 'G', number, value)
  elseif kind == 'D' then
    feed[#feed + 1] = ARGV[at + 1]
    at = at + 2
  else
    return redis.error_reply('unknown kind of item')
  end
  out[#out + 1] = number
end

if #feed > 0 then
  -- [epoch, [item…]], the array header written by hand: at most 65,535 items.
  local head = '\146' .. pack(epoch) .. '\220' .. struct.pack('>H', #feed)
  redis.call(verb, channel, head .. table.concat(feed))
  touch()
end
return out
