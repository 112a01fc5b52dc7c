-- Note which model call the message's worker makes (shared/call_notes.py).
-- KEYS record: hash token, called_attempt, called_step
-- ARGV claim's token | attempt | step
-- Returns 1, or 0 where another claim owns it by now. May be repeated.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'called_attempt', ARGV[2], 'called_step', ARGV[3])
return 1
