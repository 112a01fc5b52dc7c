-- Tell whose turn it is in a conversation (shared/turns.py).
-- KEYS turns: zset | conversation: hash
-- ARGV life in ms
-- Returns the message id, or empty. May be repeated.
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
