-- Take a message that was never accepted out of its conversation (shared/dropped.py).
-- KEYS turns: zset | conversation: hash newest, "first <id>", "parent <id>", and of each that was dropped
--   "gone <id>", the parent that it had (or empty)
-- ARGV message id | life in ms
-- Returns the message whose turn it is then, or empty. May be repeated: the present first again.
local id = ARGV[1]
local parent = redis.call('HGET', KEYS[2], 'parent ' .. id)
if parent then
  -- Who was placed behind it follows what it followed, and so does who comes next.
  redis.call('HSET', KEYS[2], 'gone ' .. id, parent)
  if redis.call('HGET', KEYS[2], 'newest') == id then
    redis.call('HSET', KEYS[2], 'newest', parent)
  end
end
redis.call('ZREM', KEYS[1], id)
redis.call('HDEL', KEYS[2], 'first ' .. id, 'parent ' .. id)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
