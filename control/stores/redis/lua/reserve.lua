#!lua

-- All claims of a call are taken, or nothing is written.
-- ARGV: run id of this connection's server, reservation, call, worker, time to live in us, then each claim by kind:
--   R key interval burst | L key max | S budget window max amount ends-at meter | P key | O key digest
--   W key max queue account member rank    an L that may be waited for; the account is empty for a call that does not
--                                          wait, member and rank are those that an earlier answer gave, or empty; the
--                                          member is the same in every queue
-- Answers: {ok, paid, window of each S} | {no, position, ...} | {wait, position, member, rank, calls ahead} |
--   {unready, why} | {void}

-- Windows order as bytes; Lua's own comparison follows the server's locale.
local function newer(a, b)
  for i = 1, math.max(#a, #b) do
    local x, y = string.byte(a, i) or -1, string.byte(b, i) or -1
    if x ~= y then
      return x > y
    end
  end
  return false
end

-- What is read whatever the generation is, in one command.
local id, live, last = ARGV[2], tonumber(ARGV[5]), #ARGV
local SIZE = { R = 4, L = 3, S = 7, P = 2, O = 3, W = 7 }
local names, place, first_once = { root, root .. ':v:' .. id }, {}, nil
local at = 6
while at <= last do
  local kind = ARGV[at]
  if kind == 'R' or kind == 'P' then
    names[#names + 1] = root .. (kind == 'R' and ':r:' or ':p:') .. ARGV[at + 1]
    place[at] = #names
  elseif kind == 'O' then
    first_once = first_once or at
  end
  at = at + SIZE[kind]
end
local read = redis.call('MGET', unpack(names))

enter(read[1])
if not epoch or run ~= ARGV[1] then
  return { 'unready', epoch and 'the server was restarted' or 'the server holds no counters' }
end
if read[2] then
  return { 'void' }
end
look_at_clock()
reap()

-- Whether this is an attempt of a call that is charged already.
local paid = first_once ~= nil
at = first_once
while paid and at <= last do
  if ARGV[at] == 'O' then
    paid = redis.call('HGET', epoch .. 'o:' .. ARGV[at + 1], 'p') == '1'
  end
  at = at + SIZE[ARGV[at]]
end

local tats, slots, budgets, onces = {}, {}, {}, {}
local hold = { call = ARGV[3], worker = ARGV[4], since = text(now), leases = {}, spends = {}, onces = {} }
local answer = { 'ok', paid and '1' or '0' }
local seats, missing = {}, nil
local position = 0
at = 6
while at <= last do
  local kind, key = ARGV[at], ARGV[at + 1]
  if kind == 'R' then
    -- GCRA, as rules/limits/gcra.py. A bucket is at most empty: a server's clock set back must not lock it.
    local interval, burst = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local tat, full = tats[key] or tonumber(read[place[at]] or 0), now + burst * interval
    if tat > full then
      tat = full -- for good, also when the call is refused: else it would stay full for ever
      redis.call('SET', root .. ':r:' .. key, text(tat), 'PX', text(math.ceil((tat - now) / 1000) + 1000))
    end
    local earliest = tat - (burst - 1) * interval
    if now < earliest then
      return { 'no', position, text(earliest - now) }
    end
    tats[key] = math.max(now, tat) + interval
  elseif kind == 'L' or kind == 'W' then
    local zset, max = root .. ':l:' .. key, tonumber(ARGV[at + 2])
    local mine = slots[key]
    if not mine then
      mine = { taken = 0, before = redis.call('ZCARD', zset) }
      slots[key] = mine
    end
    local seat = nil
    if kind == 'W' then
      seat = seat_of(key, ARGV[at + 5], ARGV[at + 6], tonumber(ARGV[at + 3]))
      seat.at, seat.position = at, position
      max = max - seat.ahead -- they are let in before it
      seats[#seats + 1] = seat
    end
    if mine.before + mine.taken >= max and not mine.tidy then
      mine.tidy = true
      mine.before = mine.before - redis.call('ZREMRANGEBYSCORE', zset, '-inf', text(now))
    end
    if mine.before + mine.taken >= max then
      -- Nobody is promised a slot for longer than a time to live: these were taken before the clock was set back.
      for _, far in ipairs(redis.call('ZRANGEBYSCORE', zset, text(now + live + 1000000), '+inf', 'LIMIT', 0, 64)) do
        redis.call('ZADD', zset, text(now + live), far)
      end
      if not seat or ARGV[at + 4] == '' then
        return { 'no', position }
      end
      if not missing or seat.taken then -- where it stands it stays, as long as it is not its turn there
        missing = seat
      end
    else
      mine.taken = mine.taken + 1
      hold.leases[#hold.leases + 1] = { key, id .. '/' .. position }
    end
  elseif kind == 'S' then
    if not paid then
      local window, max, amount = ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
      local budget = budgets[key]
      if not budget then
        local found = redis.call('HMGET', epoch .. 'b:' .. key, 'w', 's', 'r', 'e')
        budget = { w = found[1], s = tonumber(found[2] or 0), r = tonumber(found[3] or 0), e = found[4] or '0' }
      end
      if not budget.w or (budget.w ~= window and newer(window, budget.w)) then
        budget = { w = window, s = 0, r = 0, e = '0', fresh = true }
      end
      if budget.w == window then
        budget.e = ARGV[at + 5]
      end
      if budget.s + budget.r + amount > max then
        return { 'no', position, budget.w, budget.e, text(budget.s), text(budget.r), clock[1] }
      end
      budget.r = budget.r + amount
      budgets[key] = budget
      hold.spends[#hold.spends + 1] = { key, budget.w, ARGV[at + 4], ARGV[at + 6] }
      answer[#answer + 1] = budget.w
    end
  elseif kind == 'P' then
    local pause = read[place[at]]
    if pause then
      local till, length = string.match(pause, '^(%d+) (%d+)$')
      local wait = tonumber(till) - now
      if wait > tonumber(length) then -- it was asked for before the clock was set back
        wait = tonumber(length)
        redis.call('SET', root .. ':p:' .. key, text(now + wait) .. ' ' .. length, 'KEEPTTL')
      end
      if wait > 0 then
        return { 'no', position, text(wait) }
      end
    end
  elseif kind == 'O' then
    local found = redis.call('HMGET', epoch .. 'o:' .. key, 'd', 'a', 'f')
    if (onces[key] or found[1] or ARGV[at + 2]) ~= ARGV[at + 2] then
      return { 'no', position, 'conflict' }
    end
    if onces[key] or found[3] == '1' then
      return { 'no', position, 'flying' }
    end
    onces[key] = ARGV[at + 2]
    hold.onces[#hold.onces + 1] = { key, found[2] or '' }
  end
  position = position + 1
  at = at + SIZE[kind]
end

-- It waits for one slot at a time, and for none any more once it is let in.
for _, seat in ipairs(seats) do
  if seat.taken and not (missing and seat.key == missing.key) then
    let_in(seat.key, seat.member)
  end
end
if missing then
  if not missing.taken and missing.waiting >= missing.most then
    return { 'no', missing.position, 'full' }
  end
  local rank = sit(missing, ARGV[missing.at + 4], ARGV[missing.at + 6], id)
  return { 'wait', missing.position, missing.member, rank, missing.ahead }
end

for key, tat in pairs(tats) do
  redis.call('SET', root .. ':r:' .. key, text(tat), 'PX', text(math.ceil((tat - now) / 1000) + 1000))
end
-- Names' own times to live are long, and set now and then: what is in them goes by its own time.
local now_and_then = now % 16 == 0
for _, lease in ipairs(hold.leases) do
  local zset = root .. ':l:' .. lease[1]
  redis.call('ZADD', zset, text(now + live), lease[2])
  if now_and_then or slots[lease[1]].before == 0 then
    redis.call('PEXPIRE', zset, 3600000)
  end
end
for key, budget in pairs(budgets) do
  local name = epoch .. 'b:' .. key
  redis.call('HSET', name, 'w', budget.w, 's', text(budget.s), 'r', text(budget.r), 'e', budget.e)
  local ends = tonumber(budget.e) * 1000
  if ends == 0 then
    redis.call('PEXPIRE', name, 40 * DAY)
  elseif budget.fresh then
    redis.call('PEXPIRE', name, text(math.max(0, ends - now / 1000) + 8 * DAY))
  end
  if budget.fresh then
    now_and_then = true
    redis.call('SADD', epoch .. 'i', key)
    redis.call('PEXPIRE', epoch .. 'i', 60 * DAY)
  end
end
for key, digest in pairs(onces) do
  redis.call('HSET', epoch .. 'o:' .. key, 'd', digest, 'a', id, 'f', '1', 'p', paid and '1' or '0')
  redis.call('PEXPIRE', epoch .. 'o:' .. key, DAY)
end
if #hold.leases + #hold.spends + #hold.onces > 0 then
  redis.call('SET', epoch .. 'h:' .. id, cjson.encode(hold), 'PX', 2 * DAY)
  redis.call('ZADD', epoch .. 'x', text(now + live), id)
  if now_and_then then
    redis.call('PEXPIRE', epoch .. 'x', 40 * DAY)
  end
end
return answer
