-- Store an accepted message, unless it is stored already (shared/record.py).
-- KEYS record: hash run_id, and the fields | request: string
-- ARGV index entry's time in ms | how old it may be in ms | life in ms | request | field, value...
-- Returns accepted | exists | late. May be repeated.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'exists'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(ARGV[1]) > tonumber(ARGV[2]) then
  return 'late'
end
-- The first claim may be lost too: the one after it must see that Redis was restarted since.
local info = redis.pcall('INFO', 'server')
redis.call('HSET', KEYS[1], 'run_id',
  type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown')
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'accepted'
