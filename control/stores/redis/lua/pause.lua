#!lua flags=allow-oom

-- The longest pause that was asked for counts. ARGV: key, length in us.

look_at_clock()
local length = tonumber(ARGV[2])
local key = root .. ':p:' .. ARGV[1]
local before = redis.call('GET', key)
if length > 0 then
  if before then
    local till, wanted = string.match(before, '^(%d+) (%d+)$')
    if math.min(tonumber(till) - now, tonumber(wanted)) >= length then
      return 0
    end
  end
  redis.call('SET', key, text(now + length) .. ' ' .. text(length), 'PX', text(math.ceil(length / 1000) + 1000))
end
return 1
