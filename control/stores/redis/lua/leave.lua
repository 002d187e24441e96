#!lua flags=allow-oom

-- A call waits no longer. ARGV: a key and a member for each queue that it may be in. Answers 1.

for at = 1, #ARGV, 2 do
  leave(ARGV[at], ARGV[at + 1])
end
return 1
