-- Take a job off the queue for good (shared/queue.py).
-- KEYS queue: zset | owners: hash | job | arq's count of tries
-- ARGV message id | token (empty: only where nobody owns the job, or its owner lost it with the queue)
-- Returns 1, or 0 where the job is another's. May be repeated: one that is gone is completed, so
-- that a caller whose reply was lost goes on to what follows.
local owner = redis.call('HGET', KEYS[2], ARGV[1])
local queued = redis.call('ZSCORE', KEYS[1], ARGV[1])
if (owner or '') ~= ARGV[2] and (queued or (owner and ARGV[2] ~= '')) then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4])
return 1
