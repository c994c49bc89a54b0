-- arg: [3] {ref, sku, delta} each, [4] ms for which a ref is remembered, [5] limits of those who wait.
-- Units that came go to those who wait, here and now.
if fenced() then return FENCED end
local touched = {}
for _, change in ipairs(arg[3]) do
  local ref, sku, delta = change[1], change[2], change[3]
  local seen = ref .. SEP .. sku
  if not redis.call('ZSCORE', OPS, seen) then
    redis.call('ZADD', OPS, string.format('%.0f', now), seen)
    -- also for a SKU the gate does not have: whoever reads its level needs a new version
    count({'adjusted', ref, '', '', {sku, 1}, delta})
    if stock_of(sku) then
      have[sku] = have[sku] + delta
      have_changed[sku] = true
    end
  end
  touched[sku] = true
end
redis.call('ZREMRANGEBYSCORE', OPS, '-inf', string.format('(%.0f', now - arg[4]))
for sku in pairs(touched) do
  serve(sku, arg[5])
end
return answer(touched, {})
