-- arg: [3] SKUs. Only reads. rest: {reservations that are not durable yet, sku, units, ...}: the
-- units as they are counted, not what anybody may buy. SKUs that the gate does not have are left out.
if fenced() then return FENCED end
local out = {redis.call('ZCARD', ORPHAN) + redis.call('ZCARD', OFFERED)}
for _, sku in ipairs(arg[3]) do
  if stock_of(sku) then
    out[#out + 1] = sku
    out[#out + 1] = stock_of(sku)
  end
end
return answer({}, out)
