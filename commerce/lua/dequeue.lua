-- arg: [3] rids, [4] limits. They wait no more, whatever became of them: who is next
-- may have what was kept for them. Reservations are not touched; one that is not durable yet stays
-- in OFFERED until the record has judged it. Who was offered or passed over has its number from
-- then; only who still stood in the list leaves it here. An enqueue of the same rid that was on its
-- way for long finds its mark in ENDED and brings nobody back.
if fenced() then return FENCED end
local touched = {}
for _, rid in ipairs(arg[3]) do
  redis.call('ZADD', ENDED, string.format('%.0f', now), SEP .. rid)
  local packed = redis.call('HGET', WAIT, rid)
  local offer = redis.call('HGET', RSV, rid)
  if packed then
    local fp, viewer, quantity, id, sku, member = unpack(cmsgpack.unpack(packed))
    if redis.call('ZREM', QUEUE, member) == 1 then
      count({'left', rid, viewer, id, {sku, quantity}, 0})
    end
    heads[id .. SEP .. sku] = nil
    touched[sku] = true
    -- A reservation of another fingerprint is no offer: the rid was pressed for something else.
    local entry = offer and cmsgpack.unpack(offer) or {}
    if not (entry[STATE] == 'H' and entry[FP] == fp) then
      redis.call('HDEL', WAIT, rid)
      redis.call('ZREM', OFFERED, rid)
    end
  end
end
for sku in pairs(touched) do
  serve(sku, arg[4])
end
return answer(touched, {})
