-- arg: [3] limit, [4] limits. Serves every list (a gate that was loaded has not yet, a
-- drop may have opened), then names what the record has not heard, oldest first.
-- rest: {rid, fingerprint, viewer, drop, sku, quantity, n, at, until_ms, lapses} each; n 0: passed over
if fenced() then return FENCED end
local touched = {}
if redis.call('ZCARD', QUEUE) > 0 then
  for _, sku in ipairs(redis.call('HKEYS', IN)) do
    local before = counted
    serve(sku, arg[4])
    if counted ~= before then touched[sku] = true end
  end
end
local out = {}
for i, rid in ipairs(redis.call('ZRANGE', OFFERED, 0, arg[3] - 1)) do
  local fp, viewer, quantity, id, sku = unpack(cmsgpack.unpack(redis.call('HGET', WAIT, rid)))
  local packed = redis.call('HGET', RSV, rid)
  local entry = packed and cmsgpack.unpack(packed) or {}
  if entry[FP] ~= fp then entry = {} end -- the rid was pressed for something else
  out[i] = {rid, fp, viewer, id, sku, quantity,
    entry[N] or 0, entry[AT] or 0, entry[UNTIL] or 0, entry[LAPSES] or 0}
end
return answer(touched, out)
