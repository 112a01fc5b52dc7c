-- Let a message wait for answers, without a worker (shared/waiting.py).
-- KEYS record: hash token, ended, cancel, parked_at, running, line | answers: hash "ask <call>",
--   "answer <call>"
-- ARGV claim's token | every call that waits...
-- Returns parked | answered (all of them) | cancelled | missing | ended | fenced. May be repeated,
-- also after an answer or a cancel: it waits no more then.
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
local waits, open = {}, false
for i = 2, #ARGV do
  waits[ARGV[i]] = true
  open = open or redis.call('HEXISTS', KEYS[2], 'answer ' .. ARGV[i]) == 0
end
if r[4] or not open then
  -- Where it was parked before, only the reply was lost: it has not waited.
  if r[5] then
    redis.call('HDEL', KEYS[1], 'parked_at')
    redis.call('HSET', KEYS[1], 'running', '1')
  end
  return r[4] and 'cancelled' or 'answered'
end
-- What a lost attempt asked, whose step was taken back, nobody will answer.
local names = redis.call('HKEYS', KEYS[2])
for i = 1, #names do
  local call = string.match(names[i], '^ask (.*)$')
  if call and not waits[call] and redis.call('HEXISTS', KEYS[2], 'answer ' .. call) == 0 then
    redis.call('HDEL', KEYS[2], names[i])
  end
end
redis.call('HDEL', KEYS[1], 'line') -- where it waited before for a provider's key
if not r[5] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'running', '0',
    'parked_at', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
return 'parked'
