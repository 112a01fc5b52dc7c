-- Take a message out of its conversation's turns (shared/turns.py).
-- KEYS turns: zset | conversation: hash "first <id>", "parent <id>"
-- ARGV message id | life in ms
-- Returns the message whose turn it is then, or empty. May be repeated: the present first again.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'first ' .. ARGV[1], 'parent ' .. ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
