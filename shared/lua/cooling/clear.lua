-- Forget that a model failed: a call of it that began later was answered (shared/cooling.py).
-- KEYS cooling: hash model = "until wait trial_until trial_of reason", times in ms
-- ARGV model | the `until` that the call's worker knew of when it began, in ms
-- Returns 1 where it stands for none of longer; 0: it failed again since. May be repeated.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then
  return 1
end
if (tonumber(string.match(value, '^%d+')) or 0) > tonumber(ARGV[2]) then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
