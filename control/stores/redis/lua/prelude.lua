-- Before every script. KEYS[1] is `exeat:{tenant}`: it holds the generation of the tenant's counters, and every other
-- key begins with it, so that all of a tenant lies in one slot.
--
--   exeat:{t}                 "<generation>\n<run id of the server that it was loaded into>"
--   exeat:{t}:<generation>:   b:<budget> {w window, s spent, r reserved, e ends at, unix seconds}   i  names of budgets
--                             h:<reservation> what it holds   x  reservations by the time they expire
--                             c {reservation: what it counted at its maximum}   o:<key> {d digest, a attempt, f, p}
--   exeat:{t}:                r:<key> theoretical arrival time   l:<key> slots by the time they expire
--                             p:<key> "<until> <length>"   v:<reservation> must not be taken any more
--
-- What outlives a loss of data is outside the generation: rates, slots and pauses heal by themselves in time; budgets
-- do not. Times are microseconds of the server's clock. Numbers are doubles, exact to 2^53; `tostring` would keep
-- fourteen digits only, so numbers are written by `text`, and sums are made by HINCRBY.

local root = KEYS[1]
local DAY = 86400000
local MAX = 9007199254740991

local function text(number)
  return string.format('%.0f', number)
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local epoch, run
local generation = redis.call('GET', root)
if generation then
  local cut = string.find(generation, '\n', 1, true)
  epoch = root .. ':' .. string.sub(generation, 1, cut - 1) .. ':'
  run = string.sub(generation, cut + 1)
end

-- Adds to what is spent in a window, if that is still the newest; a sum beyond exact numbers stays there.
local function spend(budget, window, reserved, spent)
  local key = epoch .. 'b:' .. budget
  local found = redis.call('HMGET', key, 'w', 's')
  if found[1] ~= window then
    return
  end
  if reserved ~= '0' then
    redis.call('HINCRBY', key, 'r', '-' .. reserved)
  end
  if tonumber(found[2]) + tonumber(spent) > MAX then
    redis.call('HSET', key, 's', text(MAX))
  elseif spent ~= '0' then
    redis.call('HINCRBY', key, 's', spent)
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
  local record = redis.call('GET', epoch .. 'h:' .. id)
  if not record then
    return false
  end
  redis.call('DEL', epoch .. 'h:' .. id)
  redis.call('ZREM', epoch .. 'x', id)
  local hold = cjson.decode(record)
  for _, lease in ipairs(hold.leases) do
    redis.call('ZREM', root .. ':l:' .. lease[1], lease[2])
  end
  local whole = true
  for _, entry in ipairs(hold.spends) do
    local spent = due(entry, how, told)
    whole = whole and tonumber(spent) >= tonumber(entry[3])
    spend(entry[1], entry[2], entry[3], spent)
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
  local whole = true
  for _, entry in ipairs(hold.spends) do
    local spent = due(entry, how, told)
    whole = whole and tonumber(spent) >= tonumber(entry[3])
    local key = epoch .. 'b:' .. entry[1]
    if redis.call('HGET', key, 'w') == entry[2] then
      redis.call('HINCRBY', key, 's', '-' .. entry[3] == '-0' and '0' or '-' .. entry[3])
      spend(entry[1], entry[2], '0', spent)
    end
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
