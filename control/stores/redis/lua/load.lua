#!lua

-- A part of a generation is loaded; the last part puts it in force. ARGV: generation, then
--   B budget window ends-at spent | R key ahead-us | C call record | G run id
-- Answers 1; 0 when a generation is in force for this server already, and nothing was done.

local last = #ARGV
look_at_clock()
enter(redis.call('GET', root))
if epoch and ARGV[last - 1] == 'G' and run == ARGV[last] then
  return 0
end
local loading = root .. ':' .. ARGV[1] .. ':'
local at = 2
while at <= last do
  local kind = ARGV[at]
  if kind == 'B' then
    local name = loading .. 'b:' .. ARGV[at + 1]
    redis.call('HSET', name, 'w', ARGV[at + 2], 'e', ARGV[at + 3], 's', ARGV[at + 4], 'r', '0')
    redis.call('PEXPIRE', name, 40 * DAY)
    redis.call('SADD', loading .. 'i', ARGV[at + 1])
    redis.call('PEXPIRE', loading .. 'i', 60 * DAY)
    at = at + 5
  elseif kind == 'R' then
    local name = root .. ':r:' .. ARGV[at + 1]
    local tat = math.max(tonumber(redis.call('GET', name) or 0), now + tonumber(ARGV[at + 2]))
    redis.call('SET', name, text(tat), 'PX', text(math.ceil((tat - now) / 1000) + 1000))
    at = at + 3
  elseif kind == 'C' then
    redis.call('HSET', loading .. 'c', 'call:' .. ARGV[at + 1], ARGV[at + 2])
    redis.call('PEXPIRE', loading .. 'c', 40 * DAY)
    at = at + 3
  elseif kind == 'G' then
    redis.call('SET', root, ARGV[1] .. '\n' .. ARGV[at + 1])
    at = at + 2
  end
end
return 1
