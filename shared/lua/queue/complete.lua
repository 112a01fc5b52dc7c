-- Take a job off the queue for good, and mark its message as to be saved (shared/queue.py).
-- KEYS queue: zset | owners: hash message id = token, "woken <id>" | job | arq's count of tries | unsaved messages: zset
-- ARGV message id | token (empty: only where nobody owns the job, or its owner lost it with the queue)
-- Returns 1, or 0 where the job is another's. May be repeated: one that is gone is completed, so
-- that a caller whose reply was lost goes on to what follows.
local owner = redis.call('HGET', KEYS[2], ARGV[1])
local queued = redis.call('ZSCORE', KEYS[1], ARGV[1])
if (owner or '') ~= ARGV[2] and (queued or (owner and ARGV[2] ~= '')) then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1], 'woken ' .. ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4])
-- With the job and not after it: a crash in between would leave an ended message unsaved.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return 1
