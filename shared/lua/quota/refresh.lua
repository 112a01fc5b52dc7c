-- Forget what left a quota's window, and note what is free of it now (shared/quota.py).
-- KEYS key: hash as `park`, and "scope <name>" = when used | state: hash | window: zset
--   call = when admitted | tokens: hash call = how many | running: zset call = till when | unheard
-- ARGV scope | window in ms | requests, tokens in a window, requests at once (0: any) | life in ms
-- Returns {whether anything is bounded or parked, parked for how many ms, whether calls come back one
-- by one}. May be repeated. `admit` and `next` go by what it notes in the state, and take their part.
local time = redis.call('TIME')
local now, wide = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
local function forget(from, till)
  local gone, sum = redis.call('ZRANGEBYSCORE', KEYS[3], from, till), 0
  for i = 1, #gone do
    sum = sum + tonumber(redis.call('HGET', KEYS[4], gone[i]) or '0')
    redis.call('HDEL', KEYS[4], gone[i])
    redis.call('ZREM', KEYS[3], gone[i])
  end
  if #gone > 0 then
    redis.call('HINCRBY', KEYS[2], 'sum', string.format('%.0f', 0 - sum))
  end
end
forget('-inf', now - wide)
forget('(' .. string.format('%.0f', now + 1000), '+inf') -- of a clock that went back since
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now)
local used = redis.call('ZCARD', KEYS[3])
if used == 0 then
  redis.call('HDEL', KEYS[2], 'sum')
end
local k = redis.call('HMGET', KEYS[1], 'parked_from', 'parked_ms')
local parked = k[1] and math.min(tonumber(k[2]), tonumber(k[1]) + tonumber(k[2]) - now) or 0
if k[1] and parked <= 0 then
  redis.call('HDEL', KEYS[1], 'parked_from', 'parked_ms')
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 6) == 'model ' then redis.call('HDEL', KEYS[1], name) end
  end
end
local s = redis.call('HMGET', KEYS[2], 'learned_at', 'ramp', 'sum')
local fresh = s[1] and math.abs(now - tonumber(s[1])) <= 10 * wide
local bounded = parked > 0 or tonumber(ARGV[5]) > 0
local function note(kind, file, spent, most_free)
  local v = redis.call('HMGET', KEYS[2], kind .. '_most', kind .. '_left', kind .. '_till')
  local most, free = fresh and v[1] and tonumber(v[1]) or nil, 1e9
  if file > 0 then
    most = math.min(most or file, file)
  end
  free = most and most - spent or free
  local till = v[3] and tonumber(v[3]) or 0
  if fresh and v[2] and till > now and till <= now + wide then
    free, bounded = math.min(free, tonumber(v[2])), true
  else
    redis.call('HDEL', KEYS[2], kind .. '_left', kind .. '_till')
  end
  bounded = bounded or most ~= nil
  redis.call('HSET', KEYS[2], kind .. '_bound', string.format('%.0f', most or 0),
    kind .. '_free', string.format('%.0f', math.min(free, most_free)))
end
local ramp = fresh and s[2] and tonumber(s[2]) or nil
bounded = bounded or ramp ~= nil
note('requests', tonumber(ARGV[3]), used,
  ramp and ramp - redis.call('ZCARD', KEYS[6]) or 1e9)
note('tokens', tonumber(ARGV[4]), tonumber(s[3] or '0'), 1e9)
local at_once = tonumber(ARGV[5])
redis.call('HSET', KEYS[2], 'calls_bound', at_once, 'calls_free',
  string.format('%.0f', at_once > 0 and at_once - redis.call('ZCARD', KEYS[5]) or 1e9))
if bounded then
  redis.call('HSET', KEYS[1], 'scope ' .. ARGV[1], string.format('%.0f', now))
else
  redis.call('HDEL', KEYS[1], 'scope ' .. ARGV[1])
end
for i = 1, #KEYS do
  redis.call('PEXPIRE', KEYS[i], ARGV[6])
end
return {bounded and 1 or 0, math.max(0, math.ceil(parked)), ramp and 1 or 0}
