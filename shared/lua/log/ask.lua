-- Note what calls of a message wait for (shared/waiting.py).
-- KEYS answers: hash "ask <call>", "answer <call>" | record: hash token, ended
-- ARGV claim's token | life in ms | call, round, what it waits for as JSON...
-- Returns ok | missing | ended | fenced. May be repeated: what is asked already stays, its deadline
-- too; a later round takes its place and the answer of the one before away.
local r = redis.call('HMGET', KEYS[2], 'created_at', 'ended', 'token')
if not r[1] then
  return 'missing'
end
if r[2] then
  return 'ended'
end
if r[3] ~= ARGV[1] then
  return 'fenced'
end
for i = 3, #ARGV, 3 do
  local asked = redis.call('HGET', KEYS[1], 'ask ' .. ARGV[i])
  local round = asked and tonumber(string.match(asked, '"round":(%d+)')) or 0
  if tonumber(ARGV[i + 1]) > round then
    redis.call('HDEL', KEYS[1], 'answer ' .. ARGV[i])
    redis.call('HSET', KEYS[1], 'ask ' .. ARGV[i], ARGV[i + 2])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'ok'
