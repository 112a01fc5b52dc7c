-- Lease messages whose saving is due: their mark becomes the lease's end (shared/unsaved.py).
-- KEYS unsaved messages: zset
-- ARGV lease in ms | how many at most
-- Returns {message id, lease, id, lease...}, the longest due first. A repeat takes others: the lease
-- of those that a lost reply named ends by itself.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Half a millisecond tells a lease from every mark, also from one set as it ends.
local lease = string.format('%.1f', now + tonumber(ARGV[1]) + 0.5)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local taken = {}
for i = 1, #due do
  redis.call('ZADD', KEYS[1], lease, due[i])
  taken[#taken + 1] = due[i]
  taken[#taken + 1] = lease
end
return taken
