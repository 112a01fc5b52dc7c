-- Give a job back, to be claimed from a time on (shared/queue.py).
-- KEYS queue: zset | owners: hash message id = token, "woken <id>" | wake: list
-- ARGV message id | token | in how many ms | or not before this time in ms (0: any) | how many wake
--   tokens may wait
-- Returns 1, or 0 where the job is not the caller's. A repeat gives 0 and changes nothing. One that
-- was woken meanwhile is due at once, and so is one that was due already.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
local woken = redis.call('HEXISTS', KEYS[2], 'woken ' .. ARGV[1]) == 1
redis.call('HDEL', KEYS[2], ARGV[1], 'woken ' .. ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = math.max(now + tonumber(ARGV[3]), tonumber(ARGV[4]))
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if woken or (score and tonumber(score) <= now) then
  due = now
end
redis.call('ZADD', KEYS[1], 'XX', due, ARGV[1])
if due == now then
  redis.call('LPUSH', KEYS[3], '1')
  redis.call('LTRIM', KEYS[3], 0, ARGV[5] - 1)
end
return 1
