-- Keep what a worker used of a message that is another's by now (shared/late_usage.py).
-- KEYS record: hash "used <attempt>"
-- ARGV its field | a usage as JSON
-- Returns 1, or 0 where there is no record (any more). May be repeated.
if redis.call('HEXISTS', KEYS[1], 'created_at') == 0 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
