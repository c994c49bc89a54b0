-- arg: [3] limit. Only reads. rest: {rid, fingerprint, viewer, drop, n, until_ms, at} each
if fenced() then return FENCED end
local out = {}
local due = redis.call('ZRANGEBYSCORE', ORPHAN, '-inf', string.format('%.0f', now),
  'LIMIT', 0, arg[3])
for i, rid in ipairs(due) do
  local entry = cmsgpack.unpack(redis.call('HGET', RSV, rid))
  out[i] = {rid, entry[FP], entry[VIEWER], entry[DROP], entry[N], entry[UNTIL], entry[AT]}
end
return answer({}, out)
