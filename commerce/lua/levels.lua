-- arg: [3] SKUs, or false for all that were in a drop when the gate was loaded. Only reads.
if fenced() then return FENCED end
local skus = {}
for _, sku in ipairs(arg[3] or redis.call('HKEYS', IN)) do
  skus[sku] = true
end
return answer(skus, {})
