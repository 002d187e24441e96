#!lua flags=allow-oom

-- The owner of these reservations lives. ARGV: time to live in us, then for each: reservation, number of slots, and a
-- key and a member for each slot. A slot is taken again if it was lost: its call is in flight whatever was forgotten.

enter(redis.call('GET', root))
look_at_clock()
local live = tonumber(ARGV[1])
local till = text(now + live)
local at = 2
while at <= #ARGV do
  local id, slots = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  if epoch and redis.call('ZSCORE', epoch .. 'x', id) then
    redis.call('ZADD', epoch .. 'x', till, id)
    redis.call('PEXPIRE', epoch .. 'h:' .. id, 2 * DAY)
  end
  for _ = 1, slots do
    redis.call('ZADD', root .. ':l:' .. ARGV[at], till, ARGV[at + 1])
    redis.call('PEXPIRE', root .. ':l:' .. ARGV[at], 3600000)
    at = at + 2
  end
end
if epoch then
  redis.call('PEXPIRE', epoch .. 'x', 40 * DAY)
  reap()
end
return 1
