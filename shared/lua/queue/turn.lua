-- Take or keep the turn at something that only one process does at a time (shared/queue.py).
-- KEYS turn: string
-- ARGV who | for how many ms
-- Returns 1 where the turn is the caller's, else 0. A repeat keeps it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
