-- Reserve an Idempotency-Key for a message, or tell what it was used for (shared/idempotency.py).
-- KEYS key: hash message_id, conversation_id, digest, created_at, accepted, waiting_for
-- ARGV message id (empty: only look) | conversation id | the body's digest | life in ms
--   | id of the message whose place it takes, if that was never accepted (empty: none)
-- Returns {message id, conversation id, digest, age in ms, accepted, what it was told that it waits
--   for}, empty where there is none.
-- May be repeated: the message's own reservation is told again.
local r = redis.call('HMGET', KEYS[1], 'message_id', 'conversation_id', 'digest', 'created_at',
  'accepted', 'waiting_for')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and (not r[1] or (r[1] == ARGV[5] and not r[5])) then
  redis.call('HSET', KEYS[1], 'message_id', ARGV[1], 'conversation_id', ARGV[2],
    'digest', ARGV[3], 'created_at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {ARGV[1], ARGV[2], ARGV[3], 0, 0, ''}
end
if not r[1] then
  return {}
end
return {r[1], r[2], r[3], now - tonumber(r[4]), r[5] and 1 or 0, r[6] or ''}
