-- Let an open message's keys live so long from now (shared/unsaved.py).
-- KEYS record: hash ended | log | request | answers
-- ARGV life in ms
-- Returns 1, or 0 where it has ended: its log may be saved, and expires. May be repeated.
if redis.call('HEXISTS', KEYS[1], 'ended') == 1 then
  return 0
end
for i = 1, #KEYS do
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return 1
