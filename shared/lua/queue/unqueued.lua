-- Find open messages that nobody will run (shared/queue.py).
-- KEYS open messages: zset | queue: zset
-- ARGV first rank | how many to look at
-- Returns {how many were looked at, id, index entry's time in ms, id, time...}.
local open = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
local found = {#open / 2}
if #open == 0 then
  return found
end
local ids = {}
for i = 1, #open, 2 do
  ids[#ids + 1] = open[i]
end
local scores = redis.call('ZMSCORE', KEYS[2], unpack(ids))  -- a page of them, not thousands
for i = 1, #ids do
  if not scores[i] then
    found[#found + 1] = ids[i]
    found[#found + 1] = open[2 * i]
  end
end
return found
