-- Ask for a message's end and tell the workers (shared/record.py).
-- KEYS record: hash ended, cancel (now, after_step)
-- ARGV channel of the cancels | message id | now, or after_step: the present step may end first
-- Returns {missing | ended | asked, how it ended or empty}. May be repeated; now wins, whichever
-- came first. Workers hear of after_step when they append: nothing of a step is to be stopped.
local r = redis.call('HMGET', KEYS[1], 'created_at', 'ended', 'cancel')
if not r[1] then
  return {'missing', ''}
end
if r[2] then
  return {'ended', r[2]}
end
if not r[3] or ARGV[3] == 'now' then
  redis.call('HSET', KEYS[1], 'cancel', ARGV[3])
end
if ARGV[3] == 'now' then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
return {'asked', ''}
