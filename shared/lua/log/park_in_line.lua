-- Let a message wait for its turn at a provider's key, without a worker (shared/waiting.py).
-- KEYS record: hash token, ended, cancel, parked_at, running, line
-- ARGV claim's token | the line in which it waits
-- Returns parked | cancelled | missing | ended | fenced. May be repeated, also after a cancel: it
-- waits no more then. That of after_step counts too: no step is under way.
local r = redis.call('HMGET', KEYS[1], 'created_at', 'ended', 'token', 'cancel', 'parked_at')
if not r[1] then
  return 'missing'
end
if r[2] then
  return 'ended'
end
if r[3] ~= ARGV[1] then
  return 'fenced'
end
if r[4] then
  if r[5] then
    redis.call('HDEL', KEYS[1], 'parked_at')
    redis.call('HSET', KEYS[1], 'running', '1')
  end
  return 'cancelled'
end
redis.call('HSET', KEYS[1], 'line', ARGV[2])
if not r[5] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'running', '0',
    'parked_at', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
return 'parked'
