#!lua flags=allow-oom

-- A reservation is ended, once. ARGV: reservation, call, how (settle; refuse: as settle, of what the service did not do;
-- release, void; correct: only
-- what was counted at its maximum), number of slots, a key and a member for each, then pairs of meter and amount.
-- Answers 1 ended, 2 corrected what was counted at its maximum, 0 not known (any more).

local id, how = ARGV[1], ARGV[3]
if how == 'void' then
  -- Its reserve may still be on its way, behind this: it must not be taken when it comes.
  redis.call('SET', root .. ':v:' .. id, '1', 'PX', 600000)
end
local slots = tonumber(ARGV[4])
for at = 5, 3 + 2 * slots, 2 do
  -- Also those that were taken again after the server had lost the reservation.
  redis.call('ZREM', root .. ':l:' .. ARGV[at], ARGV[at + 1])
end
enter(redis.call('GET', root))
if not epoch then
  return 0
end
local told = {}
for at = 5 + 2 * slots, #ARGV, 2 do
  told[ARGV[at]] = ARGV[at + 1]
end
if how ~= 'correct' and finish(id, how, told) then
  return 1
end
if correct(id, how, told) or (how ~= 'correct' and correct('call:' .. ARGV[2], how, told)) then
  return 2
end
return 0
