-- Let a call begin, or keep its place in the line, right after `refresh` (shared/quota.py).
-- KEYS key | state: hash | window, tokens, running, unheard, as `refresh` | line: zset place =
--   its caller's turn | places: hash place = "believed till, tokens, p(arked) or s(lot), woken at" |
--   turns: hash caller = its next turn
-- ARGV place | call | caller | tokens | window in ms | life of its slot in ms | the longest wait in ms
--   within a slot | for how long a place is believed after its wait, in ms
-- Returns {1, 0, 0} admitted; {0, to wait in ms, until when by this clock}. A call that is admitted
-- already is so again. One that is parked keeps its place; those that come later do not overtake.
local time = redis.call('TIME')
local now, wide = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[5])
local function text(number) return string.format('%.0f', number) end
if redis.call('ZSCORE', KEYS[3], ARGV[2]) then
  return {1, 0, 0}
end
local names = {'requests_free', 'tokens_free', 'calls_free', 'requests_bound', 'tokens_bound',
  'calls_bound', 'requests_left', 'requests_till', 'tokens_left', 'tokens_till', 'sum', 'mean', 'turn'}
local found, s = redis.call('HMGET', KEYS[2], unpack(names)), {}
for i = 1, #names do
  s[names[i]] = tonumber(found[i] or '0') or 0
end
local need = tonumber(ARGV[4])
if s.tokens_bound > 0 then
  need = math.min(need, s.tokens_bound) -- else it would wait for ever
end
if not redis.call('ZSCORE', KEYS[7], ARGV[1]) then
  local turn = math.max(s.turn, tonumber(redis.call('HGET', KEYS[9], ARGV[3]) or '0'))
  redis.call('ZADD', KEYS[7], turn, ARGV[1])
  redis.call('HSET', KEYS[9], ARGV[3], text(turn + 1))
end
local rank = redis.call('ZRANK', KEYS[7], ARGV[1])
local requests, tokens, calls = s.requests_free, s.tokens_free, s.calls_free
local ahead = requests > 0 and calls > 0 and rank > 0
  and redis.call('ZRANGE', KEYS[7], 0, math.min(rank - 1, 999)) or {}
local looked = rank <= 1000 and math.min(requests, calls) > 0
for i = 1, #ahead do
  local place = redis.call('HGET', KEYS[8], ahead[i])
  local till, its = string.match(place or '0 0', '^(%d+) (%d+)')
  if tonumber(till) >= now then -- it is to come yet, and its part is kept for it
    requests, calls, tokens = requests - 1, calls - 1, tokens - tonumber(its)
    if requests < 1 or calls < 1 then break end
  elseif tonumber(till) + 600000 < now then
    redis.call('ZREM', KEYS[7], ahead[i])
    redis.call('HDEL', KEYS[8], ahead[i])
  end
end
local k = redis.call('HMGET', KEYS[1], 'parked_from', 'parked_ms')
local parked = k[1] and math.max(0, math.min(tonumber(k[2]), tonumber(k[1]) + tonumber(k[2]) - now)) or 0
if parked == 0 and looked and requests > 0 and calls > 0 and tokens >= need then
  redis.call('HSET', KEYS[2], 'turn',
    text(math.max(s.turn, tonumber(redis.call('ZSCORE', KEYS[7], ARGV[1])))))
  redis.call('ZREM', KEYS[7], ARGV[1])
  redis.call('HDEL', KEYS[8], ARGV[1])
  if redis.call('EXISTS', KEYS[7]) == 0 then
    redis.call('DEL', KEYS[9])
    redis.call('HDEL', KEYS[2], 'turn')
  end
  redis.call('ZADD', KEYS[3], now, ARGV[2])
  redis.call('ZADD', KEYS[6], now + wide, ARGV[2])
  redis.call('HSET', KEYS[4], ARGV[2], text(need))
  if s.calls_bound > 0 then
    redis.call('ZADD', KEYS[5], now + tonumber(ARGV[6]), ARGV[2])
  end
  for name, by in pairs({requests_free = 1, requests_left = 1, calls_free = 1, tokens_free = need,
    tokens_left = need, sum = -need}) do
    if name == 'sum' or redis.call('HEXISTS', KEYS[2], name) == 1 then
      redis.call('HINCRBY', KEYS[2], name, text(0 - by))
    end
  end
  for i = 1, #KEYS do -- `refresh` renews it
    if redis.call('PTTL', KEYS[i]) == -1 then
      redis.call('PEXPIRE', KEYS[i], 7200000)
    end
  end
  return {1, 0, 0}
end
-- When its turn comes, as far as the window tells: the calls before it leave it one by one.
local wait = parked
local function leaves(index)
  local at = redis.call('ZRANGE', KEYS[3], index, index, 'WITHSCORES')[2]
  return at and tonumber(at) + wide - now or wide
end
if s.requests_bound > 0 then
  local index = redis.call('ZCARD', KEYS[3]) + rank % s.requests_bound - s.requests_bound
  wait = math.max(wait, (index >= 0 and leaves(index) or 0)
    + math.floor(rank / s.requests_bound) * wide)
end
local over = s.sum + (rank + 1) * need - s.tokens_bound
if s.tokens_bound > 0 and over > 0 then
  local oldest = over <= s.sum and redis.call('ZRANGE', KEYS[3], 0, 499) or {}
  local later = wide * math.ceil(over / s.tokens_bound)
  for i = 1, #oldest do
    over = over - tonumber(redis.call('HGET', KEYS[4], oldest[i]) or '0')
    if over <= 0 then
      later = leaves(i - 1)
      break
    end
  end
  wait = math.max(wait, later)
end
if s.requests_till > now and s.requests_left <= rank then
  wait = math.max(wait, s.requests_till - now)
end
if s.tokens_till > now and s.tokens_left < need * (rank + 1) then
  wait = math.max(wait, s.tokens_till - now)
end
if s.calls_bound > 0 and s.calls_free <= rank then
  wait = math.max(wait, (s.mean > 0 and s.mean or 1000) * (math.floor(rank / s.calls_bound) + 1))
end
wait = math.max(50, math.ceil(wait))
local is_parked = wait > tonumber(ARGV[7])
redis.call('HSET', KEYS[8], ARGV[1], text(now + tonumber(ARGV[8]) + (is_parked and wait or 0)) .. ' '
  .. text(need) .. (is_parked and ' p 0' or ' s 0'))
for i = 7, 9 do
  redis.call('PEXPIRE', KEYS[i], redis.call('PTTL', KEYS[1]))
end
return {0, wait, text(now + wait)}
