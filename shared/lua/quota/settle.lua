-- Note that a call is over, and what it used (shared/quota.py).
-- KEYS key | state | window | tokens | running | unheard, as `refresh`
-- ARGV call | tokens it used (-1: as many as were kept for it; -2: it was never made) | ms it took
-- Returns 1. May be repeated.
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
local used = tonumber(ARGV[2])
if redis.call('ZSCORE', KEYS[3], ARGV[1]) and used ~= -1 then
  local kept = tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or '0')
  redis.call('HINCRBY', KEYS[2], 'sum', string.format('%.0f', math.max(0, used) - kept))
  if used == -2 then
    redis.call('ZREM', KEYS[3], ARGV[1])
    redis.call('HDEL', KEYS[4], ARGV[1])
    return 1
  end
  redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', used))
end
local mean = redis.call('HGET', KEYS[2], 'mean')
local took = tonumber(ARGV[3])
redis.call('HSET', KEYS[2], 'mean',
  string.format('%.0f', mean and tonumber(mean) * 0.8 + took * 0.2 or took))
return 1
