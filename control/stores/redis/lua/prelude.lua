-- Before every script. KEYS[1] is `exeat:{tenant}`: it holds the generation of the tenant's counters, and every other
-- key begins with it, so that all of a tenant lies in one slot.
--
--   exeat:{t}                 "<generation>\n<run id of the server that it was loaded into>"
--   exeat:{t}:<generation>:   b:<budget> {w window, s spent, r reserved, e ends at, unix seconds}   i  names of budgets
--                             h:<reservation> what it holds   x  reservations by the time they expire
--                             c {reservation: what it counted at its maximum}   o:<key> {d digest, a attempt, f, p}
--   exeat:{t}:                r:<key> theoretical arrival time   l:<key> slots by the time they expire
--                             p:<key> "<until> <length>"   v:<reservation> must not be taken any more
--                             q:<key> calls that wait for a slot, by rank   e:<key> the same by the time they expire
--                             k:<key> {v rank of the last let in, a:<account> its highest rank}
--                             n {n calls that have begun to wait}
--
-- What outlives a loss of data is outside the generation: rates, slots and pauses heal by themselves in time; budgets
-- do not. Times are microseconds of the server's clock. Numbers are doubles, exact to 2^53; `tostring` would keep
-- fourteen digits only, so numbers are written by `text`.

local root = KEYS[1]
local DAY = 86400000
local MAX = 9007199254740991

local function text(number)
  return string.format('%.0f', number)
end

-- Each command costs the server more than all the arithmetic around it, so scripts look at what they need and no more.
local clock, now
local function look_at_clock()
  clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end

local epoch, run
local function enter(generation)
  if generation then
    local cut = string.find(generation, '\n', 1, true)
    epoch = root .. ':' .. string.sub(generation, 1, cut - 1) .. ':'
    run = string.sub(generation, cut + 1)
  end
end

-- Takes out of what is set aside in a window, and adds to what is spent, if that is still the newest; a sum beyond exact
-- numbers stays there.
local function spend(budget, window, reserved, spent, withdrawn)
  local key = epoch .. 'b:' .. budget
  local found = redis.call('HMGET', key, 'w', 's', 'r')
  if found[1] == window then
    local sum = math.min(tonumber(found[2]) - tonumber(withdrawn) + tonumber(spent), MAX)
    redis.call('HSET', key, 's', text(math.max(sum, 0)), 'r', text(tonumber(found[3]) - tonumber(reserved)))
  end
end

-- What one entry of a reservation comes to. `told` is by meter; what nobody tells counts at its maximum.
local function due(entry, how, told)
  if how == 'release' or how == 'void' then
    return '0'
  end
  return told[entry[4]] or entry[3]
end

-- Ends a reservation; false when there is none. `how`: settle, release, void, lost.
local function finish(id, how, told)
  local record = redis.call('GETDEL', epoch .. 'h:' .. id)
  if not record then
    return false
  end
  redis.call('ZREM', epoch .. 'x', id)
  local hold = cjson.decode(record)
  if how == 'lost' or how == 'void' then -- else its process names its slots
    for _, lease in ipairs(hold.leases) do
      redis.call('ZREM', root .. ':l:' .. lease[1], lease[2])
    end
  end
  local whole = how ~= 'refuse' -- the service did not do it: nothing under its key is paid by it
  for _, entry in ipairs(hold.spends) do
    local spent = due(entry, how, told)
    whole = whole and tonumber(spent) >= tonumber(entry[3])
    spend(entry[1], entry[2], entry[3], spent, '0')
  end
  for _, once in ipairs(hold.onces) do
    local key = epoch .. 'o:' .. once[1]
    if redis.call('HGET', key, 'a') == id then
      if how ~= 'release' and how ~= 'void' then
        redis.call('HSET', key, 'f', '0')
        if whole then
          redis.call('HSET', key, 'p', '1')
        end
      elseif once[2] == '' then
        redis.call('DEL', key)
      else
        redis.call('HSET', key, 'f', '0', 'a', once[2])
      end
    end
  end
  if how == 'lost' and #hold.spends > 0 then
    redis.call('HSET', epoch .. 'c', id, record)
    redis.call('PEXPIRE', epoch .. 'c', 40 * DAY)
  end
  return true
end

-- Corrects what was counted at its maximum, once; false when there is nothing to correct.
local function correct(id, how, told)
  local record = redis.call('HGET', epoch .. 'c', id)
  if not record then
    return false
  end
  redis.call('HDEL', epoch .. 'c', id)
  local hold = cjson.decode(record)
  local whole = how ~= 'refuse'
  for _, entry in ipairs(hold.spends) do
    local spent = due(entry, how, told)
    whole = whole and tonumber(spent) >= tonumber(entry[3])
    spend(entry[1], entry[2], '0', spent, entry[3])
  end
  for _, once in ipairs(hold.onces) do
    local key = epoch .. 'o:' .. once[1]
    if not whole and redis.call('HGET', key, 'a') == id and redis.call('HGET', key, 'f') == '0' then
      redis.call('HSET', key, 'p', '0')
    end
  end
  return true
end

-- Ends reservations whose owner was not heard of for their time to live; a bounded number at a time.
local function reap()
  local lost = redis.call('ZRANGEBYSCORE', epoch .. 'x', '-inf', text(now), 'LIMIT', 0, 16)
  for _, id in ipairs(lost) do
    if not finish(id, 'lost', {}) then
      redis.call('ZREM', epoch .. 'x', id)
    end
  end
end

-- Queues of slots: who waits says so every few hundred milliseconds. Ranks as in control/stores/queues.py.
local WAITS = 3000000

local function remove(key, member)
  redis.call('ZREM', root .. ':q:' .. key, member)
  redis.call('ZREM', root .. ':e:' .. key, member)
end

-- They leave before their turn: of their accounts each that came after takes the rank of the one before. `gone` has true
-- for each member, or for `/` and the reservation of one. However many leave, the queue is walked once.
local function leave(key, gone)
  local queue, ends, free = root .. ':q:' .. key, root .. ':e:' .. key, {}
  local seats, stay = redis.call('ZRANGE', queue, 0, -1, 'WITHSCORES'), false
  for each = 1, #seats, 2 do
    local member, rank = seats[each], seats[each + 1]
    local account = string.match(member, '^%d+/(.*)/[^/]*$') or ''
    local ranks = free[account]
    if gone[member] or gone[string.match(member, '/[^/]*$')] then
      redis.call('ZREM', queue, member)
      redis.call('ZREM', ends, member)
      if rank ~= '0' then -- else it had its turn before
        ranks = ranks or { lowest = 1 }
        ranks[#ranks + 1] = rank
        free[account] = ranks
      end
    else
      stay = true
      if ranks then
        redis.call('ZADD', queue, ranks[ranks.lowest], member)
        ranks.lowest = ranks.lowest + 1
        ranks[#ranks + 1] = rank
      end
    end
  end
  for account, ranks in pairs(stay and free or {}) do -- else nobody waits, and the next to come begins anew
    redis.call('HSET', root .. ':k:' .. key, 'a:' .. account, text(tonumber(ranks[ranks.lowest]) - 1))
  end
end

-- Where a call stands in the queue of a slot; `ahead`: who is let in before it.
local function seat_of(key, member, rank, most)
  local queue = root .. ':q:' .. key
  local seat = { key = key, member = member, most = most, waiting = redis.call('ZCARD', queue) }
  if seat.waiting > 0 then
    local ends = root .. ':e:' .. key
    local over, gone = redis.call('ZRANGEBYSCORE', ends, '-inf', text(now), 'LIMIT', 0, 64), {}
    for _, each in ipairs(over) do
      gone[each] = true
      redis.call('ZREM', ends, each)
    end
    if #over > 0 then
      leave(key, gone)
    end
    -- Nobody waits unheard for longer than that: these came before the clock was set back.
    for _, far in ipairs(redis.call('ZRANGEBYSCORE', ends, text(now + WAITS + 1000000), '+inf', 'LIMIT', 0, 64)) do
      redis.call('ZADD', ends, text(now + WAITS), far)
    end
    seat.waiting = redis.call('ZCARD', queue)
  end
  local before = member ~= '' and seat.waiting > 0 and redis.call('ZRANK', queue, member)
  seat.taken = not not before
  if not before and rank ~= '' and seat.waiting > 0 then -- it stood there before: as if it did again
    redis.call('ZADD', queue, rank, member)
    before = redis.call('ZRANK', queue, member)
    redis.call('ZREM', queue, member)
  end
  seat.ahead = before or seat.waiting
  return seat
end

-- The call waits there for a little longer; the rank that it has been given.
local function sit(seat, account, rank, id)
  local queue, counts = root .. ':q:' .. seat.key, root .. ':k:' .. seat.key
  if seat.waiting == 0 then
    redis.call('DEL', counts)
    if rank ~= '' then -- who comes while it waits has come after it
      redis.call('HSET', counts, 'v', rank)
    end
  end
  if rank == '' then
    local found = redis.call('HMGET', counts, 'v', 'a:' .. account)
    rank = text(math.max(tonumber(found[1] or 0), tonumber(found[2] or 0)) + 1)
    redis.call('HSET', counts, 'a:' .. account, rank)
  end
  if seat.member == '' then -- of one rank, in every queue, who came first: members order as bytes
    seat.member = string.format('%016.0f/', redis.call('HINCRBY', root .. ':n', 'n', 1)) .. account .. '/' .. id
    redis.call('PEXPIRE', root .. ':n', 3600000)
  end
  if not seat.taken then -- else it may have moved up since it was told its rank
    redis.call('ZADD', queue, rank, seat.member)
    seat.ahead = redis.call('ZRANK', queue, seat.member)
  end
  redis.call('ZADD', root .. ':e:' .. seat.key, text(now + WAITS), seat.member)
  for _, name in ipairs({ ':q:', ':e:', ':k:' }) do
    redis.call('PEXPIRE', root .. name .. seat.key, 3600000)
  end
  return rank
end

local function let_in(key, member)
  local counts = root .. ':k:' .. key
  local rank = redis.call('ZSCORE', root .. ':q:' .. key, member)
  remove(key, member)
  if rank and tonumber(rank) > tonumber(redis.call('HGET', counts, 'v') or 0) then
    redis.call('HSET', counts, 'v', rank)
    redis.call('PEXPIRE', counts, 3600000)
  end
end
