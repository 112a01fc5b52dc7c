-- Note that the message of an Idempotency-Key is accepted and queued (shared/idempotency.py).
-- KEYS key: hash message_id, conversation_id, digest, created_at, accepted, waiting_for
-- ARGV message id | conversation id | the body's digest | life in ms | what it waits for (or empty)
-- Returns 1, or 0 where the key is another message's. May be repeated. A key that is gone is
-- written again: a twin of this request was refused for a full queue and took it away.
local holder = redis.call('HGET', KEYS[1], 'message_id')
if holder and holder ~= ARGV[1] then
  return 0
end
if not holder then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'message_id', ARGV[1], 'conversation_id', ARGV[2], 'digest', ARGV[3],
    'created_at', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if redis.call('HSETNX', KEYS[1], 'accepted', '1') == 1 then
  redis.call('HSET', KEYS[1], 'waiting_for', ARGV[5])
end
return 1
