-- Note that a message is about to be answered or cancelled, and then to be woken (shared/waking.py).
-- KEYS waking: zset
-- ARGV message id
-- Returns 1. May be repeated; `wake` takes the note back.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return 1
