#!lua flags=allow-oom

-- A call waits no longer. ARGV: a key and a member for each queue that it may be in; `/` and the reservation in place of
-- a member that nobody was told of, because the answer was lost. Answers 1.

for at = 1, #ARGV, 2 do
  local key, member = ARGV[at], ARGV[at + 1]
  if string.sub(member, 1, 1) ~= '/' then
    leave(key, member)
  else
    for _, found in ipairs(redis.call('ZRANGE', root .. ':q:' .. key, 0, -1)) do
      if string.sub(found, -#member) == member then
        leave(key, found)
      end
    end
  end
end
return 1
