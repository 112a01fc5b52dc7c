-- Let a job that is put off be claimed at once (shared/queue.py).
-- KEYS queue: zset | owners: hash message id = token, "woken <id>" | wake: list | waking: zset
-- ARGV message id | how many wake tokens may wait
-- Returns 1, or 0 where nobody is to be woken: somebody runs it, and finds the mark when he gives it
-- back; or there is no job. May be repeated.
redis.call('ZREM', KEYS[4], ARGV[1])
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then
  return 0
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[2], 'woken ' .. ARGV[1], '1')
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(score) > now then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('LPUSH', KEYS[3], '1')
redis.call('LTRIM', KEYS[3], 0, ARGV[2] - 1)
return 1
