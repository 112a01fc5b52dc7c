-- Index a message as open and to be saved, if the queue has room for it (shared/queue.py).
-- KEYS queue: zset | open messages: zset | unsaved messages: zset
-- ARGV message id | how many due messages the queue may hold | in how many ms to save it
-- Returns the index entry's time in ms, or -1 where the queue is full. A repeat keeps the time.
local indexed = redis.call('ZSCORE', KEYS[2], ARGV[1])
if indexed then
  return tonumber(indexed)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZCOUNT', KEYS[1], '-inf', now) >= tonumber(ARGV[2]) then
  return -1
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], 'NX', now + tonumber(ARGV[3]), ARGV[1])
return now
