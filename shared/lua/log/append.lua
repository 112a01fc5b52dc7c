-- Append one attempt's events to a log and publish them (shared/log.py).
-- KEYS log: stream, f = frame, p = for workers | record: hash attempt, token, ended, cancel, wrote,
--   bytes, lost, running, finished_at | live: channel | request | answers
-- ARGV attempt | claim's token | first sequence | life in ms | how it ends (done, failed,
--   cancelled; step: it finishes a step and goes on; empty: it goes on) | of an attempt's first
--   batch the last event that its worker found (- for none; empty: any) | frame, p or empty...
-- Returns {ok | missing | ended | fenced | went_back | cancel_asked, cancel asked for (0, 1 now,
--   2 after the step), log's bytes}.
-- May be repeated: `wrote` names the batch that was written last.
local r = redis.call('HMGET', KEYS[2], 'attempt', 'token', 'ended', 'cancel', 'wrote', 'bytes')
local cancel = r[4] and (r[4] == 'after_step' and 2 or 1) or 0
local bytes = tonumber(r[6] or '0')
if not r[1] then
  return {redis.call('EXISTS', KEYS[2]) == 1 and 'went_back' or 'missing', cancel, bytes}
end
local attempt, first = tonumber(ARGV[1]), tonumber(ARGV[3])
local count = (#ARGV - 6) / 2
local wrote = ARGV[2] .. ' ' .. ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. count
if r[5] == wrote then
  return {'ok', cancel, bytes}
end
if r[3] then
  return {'ended', cancel, bytes}
end
local owned = tonumber(r[1])
if attempt < owned or (attempt == owned and r[2] ~= ARGV[2]) then
  return {'fenced', cancel, bytes}
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local follows = not last and first == 0
if not last then
  bytes = 0 -- what was there is lost
else
  local at, sequence = string.match(last[1], '(%d+)-(%d+)')
  follows = (first == 0 and tonumber(at) < attempt)
    or (tonumber(at) == attempt and tonumber(sequence) == first - 1)
end
if ARGV[6] ~= '' and ARGV[6] ~= (last and last[1] or '-') then
  follows = false -- what it lost since then, its new attempt does not know
end
if attempt > owned or not follows then
  return {'went_back', cancel, bytes}
end
local ends = ARGV[5] ~= '' and ARGV[5] ~= 'step'
if cancel ~= 0 and ends and ARGV[5] ~= 'cancelled' then
  return {'cancel_asked', cancel, bytes}
end
local frames = {}
for i = 7, #ARGV, 2 do
  local id = ARGV[1] .. '-' .. string.format('%.0f', first + #frames)
  if ARGV[i + 1] == '' then
    redis.call('XADD', KEYS[1], id, 'f', ARGV[i])
  else
    redis.call('XADD', KEYS[1], id, 'f', ARGV[i], 'p', ARGV[i + 1])
  end
  frames[#frames + 1] = ARGV[i]
  bytes = bytes + #ARGV[i]
end
local head = ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. string.format('%.0f', first + count - 1)
redis.call('PUBLISH', KEYS[3], head .. (ends and ' 1\n' or ' 0\n') .. table.concat(frames))
redis.call('HSET', KEYS[2], 'wrote', wrote, 'bytes', bytes)
if ARGV[5] == 'step' then
  redis.call('HSET', KEYS[2], 'lost', '0')
end
if ends then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'ended', ARGV[5], 'running', '0',
    'finished_at', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[4], ARGV[4])
if ARGV[5] ~= '' then
  redis.call('PEXPIRE', KEYS[5], ARGV[4])
end
return {'ok', cancel, bytes}
