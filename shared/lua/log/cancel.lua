-- Ask for a message's end and tell the workers (shared/record.py).
-- KEYS record: hash attempt, ended, cancel
-- ARGV channel of the cancels | message id
-- Returns {missing | ended | asked, how it ended or empty}. May be repeated.
local r = redis.call('HMGET', KEYS[1], 'created_at', 'ended')
if not r[1] then
  return {'missing', ''}
end
if r[2] then
  return {'ended', r[2]}
end
redis.call('HSET', KEYS[1], 'cancel', '1')
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {'asked', ''}
