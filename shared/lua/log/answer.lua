-- Answer a call that waits; the first answer stands (shared/waiting.py).
-- KEYS answers: hash "ask <call>", "answer <call>" | record: hash ended, cancel | log | request
-- ARGV call | what it is to wait for (empty: the answer is that nobody gave one) | answer as JSON |
--   life in ms (0: as it is)
-- Returns {answered | missing | unknown | ended | cancelled | late | early | other_kind | another,
--   whether no call waits any more}. May be repeated: an answer that stands is answered.
local r = redis.call('HMGET', KEYS[2], 'created_at', 'ended', 'cancel')
if not r[1] then
  return {'missing', 0}
end
local asked = redis.call('HGET', KEYS[1], 'ask ' .. ARGV[1])
if not asked then
  return {'unknown', 0}
end
if r[2] then
  return {'ended', 0}
end
if r[3] then
  return {'cancelled', 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local passed = now >= tonumber(string.match(asked, '"deadline_ms":(%d+)'))
if ARGV[2] == '' then
  if not passed then
    return {'early', 0}
  end
elseif passed then
  return {'late', 0}
elseif string.match(asked, '"needs":"(%a+)"') ~= ARGV[2] then
  return {'other_kind', 0}
end
local stands = redis.call('HGET', KEYS[1], 'answer ' .. ARGV[1])
if stands and stands ~= ARGV[3] then
  return {'another', 0}
end
redis.call('HSET', KEYS[1], 'answer ' .. ARGV[1], ARGV[3])
if ARGV[4] ~= '0' then
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
local names = redis.call('HKEYS', KEYS[1])
for i = 1, #names do
  local call = string.match(names[i], '^ask (.*)$')
  if call and redis.call('HEXISTS', KEYS[1], 'answer ' .. call) == 0 then
    return {'answered', 0}
  end
end
return {'answered', 1}
