-- Name those in the line that may begin now, right after `refresh` (shared/quota.py).
-- KEYS as `admit`, the places as `place` has them
-- ARGV how many at most | for how long one that is woken is believed, in ms
-- Returns {p(arked) or s(lot), and the place...}, in their order. A parked one is not named again within that time.
if redis.call('HEXISTS', KEYS[1], 'parked_from') == 1 then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free = redis.call('HMGET', KEYS[2], 'requests_free', 'tokens_free', 'calls_free')
local requests, tokens, calls = tonumber(free[1] or 0), tonumber(free[2] or 0), tonumber(free[3] or 0)
local named = {}
local line = math.min(requests, calls) > 0 and redis.call('ZRANGE', KEYS[7], 0, ARGV[1] - 1) or {}
for i = 1, #line do
  local place = redis.call('HGET', KEYS[8], line[i])
  local till, need, kind, woken, since = string.match(place or '', '^(%d+) (%d+) (%a) (%d+) (%d+)$')
  if till and tonumber(till) >= now then
    tokens, requests, calls = tokens - tonumber(need), requests - 1, calls - 1
    if requests < 0 or calls < 0 or tokens < 0 then
      return named
    end
    if kind == 's' or tonumber(woken) + tonumber(ARGV[2]) < now then
      named[#named + 1] = kind .. line[i]
      if kind == 'p' then
        redis.call('HSET', KEYS[8], line[i], string.format('%.0f %s p %.0f %s',
          now + tonumber(ARGV[2]), need, now, since))
      end
    end
  end
end
return named
