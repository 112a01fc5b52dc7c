-- End leases on messages to be saved, where no newer mark came since (shared/unsaved.py).
-- KEYS unsaved messages: zset
-- ARGV in how many ms they are due again (empty: they are saved) | message id, lease...
-- Returns how many leases were the caller's still. May be repeated.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settled = 0
for i = 2, #ARGV, 2 do
  local mark = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if mark and tonumber(mark) == tonumber(ARGV[i + 1]) then
    settled = settled + 1
    if ARGV[1] == '' then
      redis.call('ZREM', KEYS[1], ARGV[i])
    else
      redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
    end
  end
end
return settled
