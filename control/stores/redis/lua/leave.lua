#!lua flags=allow-oom

-- Calls wait no longer. ARGV: a key and a member for each queue that one may be in; `/` and the reservation in place of a
-- member that nobody was told of, because the answer was lost. Answers 1.

local of = {}
for at = 1, #ARGV, 2 do
  of[ARGV[at]] = of[ARGV[at]] or {}
  of[ARGV[at]][ARGV[at + 1]] = true
end
for key, gone in pairs(of) do
  leave(key, gone)
end
return 1
