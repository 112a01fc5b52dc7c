-- Queue a message's job, unless it is queued or running already (shared/queue.py).
-- KEYS queue: zset | job | wake: list
-- ARGV message id | job | its life in ms | how many wake tokens may wait
-- Returns 1, or 0 where it was there. May be repeated.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('LPUSH', KEYS[3], '1')
redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)
return 1
