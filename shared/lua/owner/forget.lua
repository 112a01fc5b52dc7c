-- Let an Idempotency-Key go whose message was refused (shared/idempotency.py).
-- KEYS key: hash message_id, accepted
-- ARGV message id
-- Returns 1, or 0 where the key is another message's, or an accepted one's. May be repeated.
local r = redis.call('HMGET', KEYS[1], 'message_id', 'accepted')
if r[1] ~= ARGV[1] or r[2] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
