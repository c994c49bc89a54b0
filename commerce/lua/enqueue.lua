-- arg: [3] {rid, fingerprint, viewer, drop, sku, quantity, place} each, [4] limits.
-- They wait from now on, each at its place; who is first and finds something free has it at once.
-- One whose rid was a reservation already has been served, and who has left stays away.
if fenced() then return FENCED end
local touched = {}
for _, waiter in ipairs(arg[3]) do
  local rid, fp, viewer, id, sku, quantity, place = unpack(waiter)
  if redis.call('HEXISTS', WAIT, rid) == 0 and redis.call('HEXISTS', RSV, rid) == 0
    and not redis.call('ZSCORE', ENDED, SEP .. rid) and drop_of(id) and left_of(id, sku) ~= false then
    count({'waits', rid, viewer, id, {sku, quantity}, place})
    local member = table.concat({id, sku, string.format('%016.0f', place), rid}, SEP)
    redis.call('HSET', WAIT, rid, cmsgpack.pack({fp, viewer, quantity, id, sku, member}))
    redis.call('ZADD', QUEUE, 0, member)
    heads[id .. SEP .. sku] = nil
    touched[sku] = true
  end
end
for sku in pairs(touched) do
  serve(sku, arg[4])
end
return answer(touched, {})
