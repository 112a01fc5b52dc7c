-- Note that a model failed: it is left alone, for longer each time (shared/cooling.py).
-- KEYS cooling: hash model = "until wait trial_until trial_of reason", times in ms
-- ARGV model | reason | Retry-After in ms, or 0 | first wait in ms | longest | when a model is
-- forgotten, in ms after `until` | most models
-- Returns until when, in ms. May be repeated: while it is left alone only a longer Retry-After
-- counts, for many calls may have been under way when it began to fail.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends, wait, trial, of, reason = 0, 0, '0', '-', ARGV[2]
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
  local told = {string.match(value, '^(%d+) (%d+) (%d+) (%S+) (%S+)$')}
  if told[1] and now < told[1] + ARGV[6] then
    ends, wait = tonumber(told[1]), tonumber(told[2])
    if now < ends then
      trial, of, reason = told[3], told[4], told[5]
    end
  end
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[7]) then
  local all, oldest, least = redis.call('HGETALL', KEYS[1]), nil, nil
  for at = 1, #all, 2 do
    local until_then = tonumber(string.match(all[at + 1], '^%d+')) or 0
    if not least or until_then < least then
      oldest, least = all[at], until_then
    end
  end
  redis.call('HDEL', KEYS[1], oldest)
end
if now >= ends then
  wait = wait == 0 and tonumber(ARGV[4]) or math.min(wait * 2, tonumber(ARGV[5]))
  ends = now + wait
end
ends = math.max(ends, now + ARGV[3])
local told = string.format('%.0f', ends)
redis.call('HSET', KEYS[1], ARGV[1],
  table.concat({told, string.format('%.0f', wait), trial, of, reason}, ' '))
local life = math.max(redis.call('PTTL', KEYS[1]), ends + ARGV[6] - now)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return told
