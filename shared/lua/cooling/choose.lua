-- Choose the first model that is not left alone; one whose time is over is tried by one message
-- alone, for a bounded time (shared/cooling.py).
-- KEYS cooling: hash model = "until wait trial_until trial_of reason", times in ms
-- ARGV message id | a trial's life in ms | when a model is forgotten, in ms after `until` | model...
-- Returns {place from 1 (0: all are left alone), is a trial, until and reason of each model ("0" and
-- "": not known to fail)...}. May be repeated: a message's trial stays its own.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local values = redis.call('HMGET', KEYS[1], unpack(ARGV, 4))
local reply = {0, 0}
for place, value in ipairs(values) do
  local ends, wait, trial, of, reason = '0', '0', '0', '-', ''
  if value then
    local told = {string.match(value, '^(%d+) (%d+) (%d+) (%S+) (%S+)$')}
    if told[1] and now < told[1] + ARGV[3] then
      ends, wait, trial, of, reason = unpack(told)
    end
  end
  if reply[1] == 0 then
    if reason == '' then
      reply[1] = place
    elseif now >= tonumber(ends) and (now >= tonumber(trial) or of == ARGV[1]) then
      reply[1], reply[2] = place, 1
      if of ~= ARGV[1] or now >= tonumber(trial) then
        local trial_ends = string.format('%.0f', now + ARGV[2])
        redis.call('HSET', KEYS[1], ARGV[place + 3],
          table.concat({ends, wait, trial_ends, ARGV[1], reason}, ' '))
      end
    end
  end
  reply[#reply + 1] = ends
  reply[#reply + 1] = reason
end
return reply
