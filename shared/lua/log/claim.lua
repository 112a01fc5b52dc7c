-- Make the caller the message's owner: raise the attempt (shared/record.py).
-- KEYS record: hash created_at, conversation_id, attempt, token, worker, run_id, ended, cancel, running,
--   lost, started_at, parked_at, waited_ms | log | request | answers
-- ARGV claim's token | worker | highest attempt the caller has seen | life in ms | token of the claim
--   that the caller holds (empty: it has just won the job's lease)
-- Returns {claimed | ended | missing | fenced, attempt, cancel asked for (0, 1 now, 2 after the step),
--   runs lost with their worker, conversation}.
-- May be repeated: the same token is the same claim.
local r = redis.call('HMGET', KEYS[1], 'created_at', 'attempt', 'token', 'ended', 'cancel',
  'run_id', 'running', 'lost', 'started_at', 'conversation_id', 'parked_at')
if not r[1] then
  return {'missing', '0', 0, 0, ''}
end
local cancel = r[5] and (r[5] == 'after_step' and 2 or 1) or 0
local lost = tonumber(r[8] or '0')
if r[4] then
  return {'ended', r[2] or '0', cancel, lost, r[10] or ''}
end
if r[3] == ARGV[1] then
  return {'claimed', r[2], cancel, lost, r[10] or ''}
end
if ARGV[5] ~= '' and (tonumber(r[2] or '0') > tonumber(ARGV[3]) or r[3] ~= ARGV[5]) then
  return {'fenced', r[2] or '0', cancel, lost, r[10] or ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local attempt = math.max(tonumber(r[2] or '0'), tonumber(ARGV[3])) + 1
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown'
if r[6] and r[6] ~= run_id then
  -- Redis was restarted and may have lost a claim: no id may be used twice for other text.
  attempt = math.max(attempt, now - tonumber(r[1]))
end
if r[7] == '1' and ARGV[5] == '' then
  lost = lost + 1
end
local text = string.format('%.0f', attempt)
redis.call('HSET', KEYS[1], 'attempt', text, 'token', ARGV[1], 'worker', ARGV[2],
  'run_id', run_id, 'running', '1', 'lost', lost)
if not r[9] then
  redis.call('HSET', KEYS[1], 'started_at', string.format('%.0f', now))
end
if r[11] then
  redis.call('HINCRBY', KEYS[1], 'waited_ms', string.format('%.0f', math.max(0, now - tonumber(r[11]))))
  redis.call('HDEL', KEYS[1], 'parked_at')
end
for i = 1, #KEYS do
  redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return {'claimed', text, cancel, lost, r[10] or ''}
