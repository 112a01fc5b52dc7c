-- Give a message its place among its conversation's turns, and its parent (shared/turns.py).
-- KEYS turns: zset | conversation: hash owner, newest, deleted (shared/deleted.py), and of each placed
--   message "first <id>", the one that was first when it came (or empty), and "parent <id>" (or empty)
-- ARGV message id | owner | what if others are there: enqueue, interrupt, reject, again (it was
--   placed before, and Redis may have lost that) | life in ms | parent (empty: the newest)
--   | make a conversation that is not here (1, 0) | the newest message of one that is made, or empty
-- Returns {placed | busy | unknown, the first of the turns, the first when it came, its parent}.
-- May be repeated: a message already placed gets its first answer again.
local id = ARGV[1]
local known = redis.call('HMGET', KEYS[2], 'owner', 'deleted')
local owner = known[1]
if known[2] or owner and owner ~= ARGV[2] or not owner and ARGV[6] ~= '1' then
  return {'unknown', '', '', ''}
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
if redis.call('ZSCORE', KEYS[1], id) then
  local told = redis.call('HMGET', KEYS[2], 'first ' .. id, 'parent ' .. id)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  return {'placed', first, told[1] or '', told[2] or ''}
end
if first and ARGV[3] == 'reject' then
  return {'busy', first, '', ''}
end
local newest = redis.call('HGET', KEYS[2], 'newest') or ARGV[7]
local parent = ARGV[5] ~= '' and ARGV[5] or newest
local at = 1
if first and ARGV[3] == 'interrupt' then
  -- The first moves one place to the front, and leaves its own, which is before all others'.
  at = tonumber(redis.call('ZSCORE', KEYS[1], first))
  redis.call('ZADD', KEYS[1], at - 1, first)
elseif first then
  local last = redis.call('ZRANGE', KEYS[1], -1, -1)[1]
  at = tonumber(redis.call('ZSCORE', KEYS[1], last)) + 1
end
redis.call('ZADD', KEYS[1], at, id)
redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'first ' .. id, first or '', 'parent ' .. id, parent)
if ARGV[3] ~= 'again' or newest < id then
  redis.call('HSET', KEYS[2], 'newest', id)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {'placed', first or id, first or '', parent}
