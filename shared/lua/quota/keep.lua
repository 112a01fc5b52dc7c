-- Let the slots of a worker's calls live on (shared/quota.py).
-- KEYS running: zset call = till when
-- ARGV life of a slot in ms | call...
-- Returns 1. May be repeated. A slot that ended meanwhile is taken again: its call goes on.
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], till, ARGV[i])
end
return 1
