-- Give a call a place in the line, which it keeps until it is admitted or leaves (shared/quota.py).
-- KEYS state | window | line: zset place = its caller's turn | places: hash place = "believed till,
--   tokens, p(arked) or s(lot), woken at, since when" | turns: hash caller = its next turn
-- ARGV place | call | caller | tokens | for how long the place is believed, in ms | life in ms | whether
--   its turn had come before (1, 0): then it is before all whose turn is yet to come
-- Returns 1. May be repeated. One caller's are in their order, the callers by turns.
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return 1 -- it is admitted already
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local s = redis.call('HMGET', KEYS[1], 'tokens_bound', 'turn')
local need, bound = tonumber(ARGV[4]), tonumber(s[1] or '0')
if bound > 0 then
  need = math.min(need, bound) -- else it would wait for ever
end
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  local turn = tonumber(s[2] or '0')
  if ARGV[7] == '1' then
    turn = turn - 1
  else
    turn = math.max(turn, tonumber(redis.call('HGET', KEYS[5], ARGV[3]) or '0'))
    redis.call('HSET', KEYS[5], ARGV[3], text(turn + 1))
  end
  redis.call('ZADD', KEYS[3], turn, ARGV[1])
end
local had = redis.call('HGET', KEYS[4], ARGV[1])
local till, rest = string.match(had or '', '^(%d+) %d+ (%a %d+ %d+)$')
redis.call('HSET', KEYS[4], ARGV[1], text(math.max(tonumber(till or '0'), now + tonumber(ARGV[5]))) .. ' '
  .. text(need) .. ' ' .. (rest or 's 0 ' .. text(now)))
for i = 3, 5 do
  redis.call('PEXPIRE', KEYS[i], ARGV[6])
end
return 1
