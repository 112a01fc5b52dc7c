-- Take what a provider's answer says of its key's limits (shared/quota.py).
-- KEYS key | state | window | tokens | running | unheard, as `refresh`
-- ARGV call | window in ms | whether it was refused for its rate (1, 0) | for how many ms the key is
--   parked for that (0: it is not) | requests: most, left, in how many ms all are there again | tokens: same (empty: not said)
-- Returns 1. A repeat changes nothing, but for the ramp, which may double once more.
local time = redis.call('TIME')
local now, wide = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
local function text(number) return string.format('%.0f', number) end
redis.call('ZREM', KEYS[6], ARGV[1])
-- Of a call from before anything was known.
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  redis.call('ZADD', KEYS[3], now, ARGV[1])
end
-- What is on its way the provider had not counted when it answered.
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now)
local unheard = redis.call('ZRANGE', KEYS[6], 0, 999)
local on_way = {requests = #unheard, tokens = 0}
for i = 1, #unheard do
  on_way.tokens = on_way.tokens + tonumber(redis.call('HGET', KEYS[4], unheard[i]) or '0')
end
local function learn(kind, most, left, reset)
  if most ~= '' then
    redis.call('HSET', KEYS[2], kind .. '_most', most, 'learned_at', text(now))
  end
  if left ~= '' and reset ~= '' then
    local till = now + math.min(tonumber(reset), wide)
    local free = math.max(0, tonumber(left) - on_way[kind])
    local had = redis.call('HMGET', KEYS[2], kind .. '_left', kind .. '_till')
    -- Answers may be overtaken: one of the same window, or an older one, tells of less alone.
    if had[1] and tonumber(had[2]) > now and till <= tonumber(had[2]) + wide / 100 then
      free, till = math.min(free, tonumber(had[1])), math.max(till, tonumber(had[2]))
    end
    redis.call('HSET', KEYS[2], kind .. '_left', text(free), kind .. '_till', text(till),
      'learned_at', text(now))
  end
end
learn('requests', ARGV[5], ARGV[6], ARGV[7])
learn('tokens', ARGV[8], ARGV[9], ARGV[10])
local ramp = redis.call('HGET', KEYS[2], 'ramp')
if redis.call('HEXISTS', KEYS[2], 'requests_most') == 1 then
  redis.call('HDEL', KEYS[2], 'ramp')
elseif ARGV[3] == '1' and tonumber(ARGV[4]) > 0 then
  -- It says how long, not how many: those that waited must not come all at once.
  redis.call('HSET', KEYS[2], 'ramp', '1', 'learned_at', text(now))
elseif ramp and ARGV[3] == '0' and tonumber(ramp) >= 64 then
  redis.call('HDEL', KEYS[2], 'ramp')
elseif ramp and ARGV[3] == '0' then
  redis.call('HSET', KEYS[2], 'ramp', text(ramp * 2), 'learned_at', text(now))
end
return 1
