-- A reservation is ended, once. ARGV: reservation, call, how (settle, release, void; correct: only
-- what was counted at its maximum), then pairs of meter and amount.
-- Answers 1 ended, 2 corrected what was counted at its maximum, 0 not known (any more).

local id, how = ARGV[1], ARGV[3]
if how == 'void' then
  -- Its reserve may still be on its way, behind this: it must not be taken when it comes.
  redis.call('SET', root .. ':v:' .. id, '1', 'PX', 600000)
end
if not epoch then
  return 0
end
local told = {}
for at = 4, #ARGV, 2 do
  told[ARGV[at]] = ARGV[at + 1]
end
if how ~= 'correct' and finish(id, how, told) then
  return 1
end
if correct(id, how, told) or (how ~= 'correct' and correct('call:' .. ARGV[2], how, told)) then
  return 2
end
return 0
