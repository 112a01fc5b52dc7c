-- Note that a run was handed over, not lost with its worker (shared/record.py).
-- KEYS record: hash token, running, handed
-- ARGV claim's token | what its worker tells of it, as JSON (empty: nothing)
-- Returns 1, or 0 where another claim owns it by now. May be repeated.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'running', '0')
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'handed', ARGV[2])
end
return 1
