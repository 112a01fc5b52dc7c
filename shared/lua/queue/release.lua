-- Give a job back, to be claimed from a time on (shared/queue.py).
-- KEYS queue: zset | owners: hash | wake: list
-- ARGV message id | token | in how many ms | how many wake tokens may wait
-- Returns 1, or 0 where the job is not the caller's. A repeat gives 0 and changes nothing.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX',
  time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]), ARGV[1])
if ARGV[3] == '0' then
  redis.call('LPUSH', KEYS[3], '1')
  redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)
end
return 1
