-- Take due jobs: their score becomes the lease's end, so no other poll sees them (shared/queue.py).
-- KEYS queue: zset | owners: hash message id = token, "woken <id>" | wake: list
-- ARGV token | lease in ms | how many at most | whether expired leases may be taken over (1, 0)
--   | what the names of the jobs' keys begin with: they are on the queue's own server
-- Returns {message id, its job (or empty)...}, the longest due first. A repeat takes others: the
-- lease of those that a lost reply named ends by itself.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = tonumber(ARGV[3])
-- Expired leases come first in the order of scores: where they are passed over, look further.
local look = ARGV[4] == '1' and most or 10000
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, look + 1)
local taken, reply = 0, {}
for i = 1, #due do
  if taken == most then
    return reply
  end
  if ARGV[4] == '1' or redis.call('HEXISTS', KEYS[2], due[i]) == 0 then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), due[i])
    redis.call('HSET', KEYS[2], due[i], ARGV[1])
    -- Whoever claims it now sees what it was woken for.
    redis.call('HDEL', KEYS[2], 'woken ' .. due[i])
    taken = taken + 1
    reply[2 * taken - 1] = due[i]
    local job = redis.pcall('GET', ARGV[5] .. due[i])
    reply[2 * taken] = type(job) == 'string' and job or ''
  end
end
if #due <= look then
  -- Nothing due is left: a token would wake somebody for nothing.
  redis.call('DEL', KEYS[3])
end
return reply
