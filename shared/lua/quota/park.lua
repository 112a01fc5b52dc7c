-- Park a provider's key, and note which of its models were refused meanwhile (shared/quota.py).
-- KEYS key: hash parked_from, parked_ms, "model <name>" = refused, or until when (ms; 0: it answered) its
--   first call goes ahead that the parking does not hold up
-- ARGV model that was answered | whether it was refused for its rate (1, 0) | for how many ms the key is
--   parked for that (0: not)
-- Returns 1. May be repeated. A shorter parking does not end a longer one.
local time = redis.call('TIME')
local now, ms = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
local had = redis.call('HMGET', KEYS[1], 'parked_from', 'parked_ms')
local till = had[1] and tonumber(had[1]) + tonumber(had[2]) or 0
if ms > 0 and till < now + ms then
  redis.call('HSET', KEYS[1], 'parked_from', string.format('%.0f', now), 'parked_ms', string.format('%.0f', ms))
  till = now + ms
end
local name = 'model ' .. ARGV[1]
if till > now and ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], name, 'refused')
elseif till > now and tonumber(redis.call('HGET', KEYS[1], name) or '') then
  redis.call('HSET', KEYS[1], name, '0')
end
return 1
