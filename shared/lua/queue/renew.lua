-- Renew the leases of one worker's jobs (shared/queue.py).
-- KEYS queue: zset | owners: hash
-- ARGV lease in ms | message id, token...
-- Returns the ids that are the caller's no more. May be repeated; an expired lease is renewed as
-- long as nobody else took the job.
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local lost = {}
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] and redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], till, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
