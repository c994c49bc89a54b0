-- Only reads. Answer: {stored epoch or 0, whether this engine is the one that was loaded}
local cfg = redis.call('HMGET', CFG, 'epoch', 'engine')
return cmsgpack.pack({tonumber(cfg[1]) or 0, cfg[2] == engine()})
