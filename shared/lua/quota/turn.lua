-- Tell when it is the turn of a call that waits, right after `admit` (shared/quota.py).
-- KEYS key | state | window | tokens | running | unheard, as `refresh` | line, places, as `place`
-- ARGV place | window in ms | the longest wait in ms within a slot | for how long a place is believed
--   after its wait, in ms | whether the key's parking does not hold it up (1, 0) | the longest wait, in
--   ms, of one that may be woken sooner
-- Returns {to wait in ms, until when by this clock}. May be repeated. One that has to wait for longer is
-- parked, and keeps its place.
local time = redis.call('TIME')
local now, wide = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
local function text(number) return string.format('%.0f', number) end
local names = {'requests_bound', 'tokens_bound', 'calls_bound', 'requests_left', 'requests_till',
  'tokens_left', 'tokens_till', 'calls_free', 'sum', 'mean'}
local found, s = redis.call('HMGET', KEYS[2], unpack(names)), {}
for i = 1, #names do
  s[names[i]] = tonumber(found[i] or '0') or 0
end
local pattern = '^%d+ (%d+) %a %d+ (%d+)$'
local need, since = string.match(redis.call('HGET', KEYS[8], ARGV[1]) or '', pattern)
local passes = ARGV[5] == '1'
local rank = not passes and redis.call('ZRANK', KEYS[7], ARGV[1]) or 0
local function leaves(index) -- the window's calls do so one by one
  local at = redis.call('ZRANGE', KEYS[3], index, index, 'WITHSCORES')[2]
  return at and tonumber(at) + wide - now or wide
end
local k = redis.call('HMGET', KEYS[1], 'parked_from', 'parked_ms')
local wait = k[1] and not passes and math.min(tonumber(k[2]), tonumber(k[1]) + tonumber(k[2]) - now) or 0
if s.calls_bound > 0 and s.calls_free <= rank then
  wait = math.max(wait, (s.mean > 0 and s.mean or 1000) * (math.floor(rank / s.calls_bound) + 1))
end
-- That may last for hours: who is parked is woken when there is room, and need not look each time.
local most = tonumber(ARGV[3])
local longer = math.min((now - tonumber(since or now)) / 2, tonumber(ARGV[6]))
if wait > most or most == 0 then
  wait = math.max(wait, longer)
end
if s.requests_bound > 0 then
  local index = redis.call('ZCARD', KEYS[3]) + rank % s.requests_bound - s.requests_bound
  wait = math.max(wait, (index >= 0 and leaves(index) or 0) + math.floor(rank / s.requests_bound) * wide)
end
local wanted = tonumber(need or '0') -- with what those before it want
local ahead = rank > 0 and s.tokens_bound > 0 and redis.call('ZRANGE', KEYS[7], 0, math.min(rank, 200) - 1) or {}
for i = 1, #ahead do
  wanted = wanted + tonumber(string.match(redis.call('HGET', KEYS[8], ahead[i]) or '0 0', '^%d+ (%d+)'))
    * rank / #ahead
end
local over = s.sum + wanted - s.tokens_bound
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
if s.tokens_till > now and s.tokens_left < wanted then
  wait = math.max(wait, s.tokens_till - now)
end
wait = math.max(50, math.ceil(wait))
if need then
  local kind = wait > most and 'p' or 's'
  redis.call('HSET', KEYS[8], ARGV[1], string.format('%.0f %s %s 0 %s',
    now + tonumber(ARGV[4]) + (kind == 'p' and wait or 0), need, kind, since))
end
return {wait, text(now + wait)}
