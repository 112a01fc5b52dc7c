-- Find open messages that nobody will run (shared/queue.py).
-- KEYS open messages: zset | queue: zset
-- ARGV first rank | how many to look at
-- Returns {how many were looked at, id, index entry's time in ms, id, time...}.
local open = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
local found = {#open / 2}
for i = 1, #open, 2 do
  if not redis.call('ZSCORE', KEYS[2], open[i]) then
    found[#found + 1] = open[i]
    found[#found + 1] = open[i + 1]
  end
end
return found
