-- Let a call begin that has its place in the line, right after `refresh` and `place` (shared/quota.py).
-- KEYS key | state | window, tokens, running, unheard, as `refresh` | line, places, turns, as `place`
-- ARGV place | call | life of its slot in ms | window in ms | model that the key's parking does not hold
--   up, unless it was refused too (empty: it waits for the key) | for how long its first call goes ahead
--   | life in ms
-- Returns 1: admitted, also once more; 0: it waits; 2: it does, and not for the parking.
local time = redis.call('TIME')
local now, wide = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[4])
local function text(number) return string.format('%.0f', number) end
if redis.call('ZSCORE', KEYS[3], ARGV[2]) then
  return 1
end
local s = redis.call('HMGET', KEYS[2], 'requests_free', 'tokens_free', 'calls_free', 'calls_bound', 'turn')
local requests, tokens, calls = tonumber(s[1] or '0'), tonumber(s[2] or '0'), tonumber(s[3] or '0')
local place = string.match(redis.call('HGET', KEYS[8], ARGV[1]) or '', '^%d+ (%d+)')
local rank = place and redis.call('ZRANK', KEYS[7], ARGV[1])
-- `refresh` leaves none that is over.
local parked = redis.call('HEXISTS', KEYS[1], 'parked_from') == 1
local seen = parked and ARGV[5] ~= '' and (redis.call('HGET', KEYS[1], 'model ' .. ARGV[5]) or '')
local passes = seen and seen ~= 'refused'
local free = not parked or passes and now >= (tonumber(seen) or 0)
if not rank or not free or rank > 1000 and not passes or math.min(requests, calls) < 1 then
  return passes and 2 or 0
end
-- Who waits for the key is not to hold up one that does not.
local ahead = rank > 0 and not passes and redis.call('ZRANGE', KEYS[7], 0, rank - 1) or {}
for i = 1, #ahead do
  local till, its = string.match(redis.call('HGET', KEYS[8], ahead[i]) or '0 0', '^(%d+) (%d+)')
  if tonumber(till) >= now then -- it is to come yet, and its part is kept for it
    requests, calls, tokens = requests - 1, calls - 1, tokens - tonumber(its)
    if requests < 1 or calls < 1 then return 0 end
  elseif tonumber(till) + 600000 < now then
    redis.call('ZREM', KEYS[7], ahead[i])
    redis.call('HDEL', KEYS[8], ahead[i])
  end
end
local need = tonumber(place)
if tokens < need then
  return passes and 2 or 0
end
if passes and seen == '' then
  redis.call('HSET', KEYS[1], 'model ' .. ARGV[5], text(now + tonumber(ARGV[6])))
elseif not passes then
  redis.call('HSET', KEYS[2], 'turn',
    text(math.max(tonumber(s[5] or '0'), tonumber(redis.call('ZSCORE', KEYS[7], ARGV[1])))))
end
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('HDEL', KEYS[8], ARGV[1])
if redis.call('EXISTS', KEYS[7]) == 0 then
  redis.call('DEL', KEYS[9])
  redis.call('HDEL', KEYS[2], 'turn')
end
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('ZADD', KEYS[6], now + wide, ARGV[2])
redis.call('HSET', KEYS[4], ARGV[2], text(need))
if tonumber(s[4] or '0') > 0 then
  redis.call('ZADD', KEYS[5], now + tonumber(ARGV[3]), ARGV[2])
end
for name, by in pairs({requests_free = 1, requests_left = 1, calls_free = 1, tokens_free = need,
  tokens_left = need, sum = -need}) do
  if name == 'sum' or redis.call('HEXISTS', KEYS[2], name) == 1 then
    redis.call('HINCRBY', KEYS[2], name, text(0 - by))
  end
end
for i = 1, #KEYS do
  redis.call('PEXPIRE', KEYS[i], ARGV[7])
end
return 1
