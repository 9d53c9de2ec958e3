-- Shares one queue's budget among any number of producers: one producer's report in, its lease out.
--
-- Version 2. docs/reference/age-protocol.md tells the key, the report, the answer and their units;
-- budget.py beside this is the same computation in Python, equal in every bit.
--
-- Times are milliseconds of the server's clock, fleet rates millijobs a second, leases microjobs and microjobs a
-- second, shares millionths. All numbers are whole, all products below 2^53, so that doubles compute them exactly.

local VERSION = 2
local MILLION, MOST_JOBS, MOST_RATE, MOST_DEMAND = 1000000, 1000000000, 1000000000, 2000000000
local FURTHEST_CALL = 1000000  -- ms: nobody is told to call later than that, or products would pass 2^53
local FURTHEST_APART = 600000  -- ms: over a longer time the drain is not measured
local REMEMBERED = 21600000  -- ms for which the drain is remembered at least

local floor = math.floor
local function div(x, y) return floor(x / y) end
-- Towards zero, as both languages' integers can do it.
local function signed_div(x, y) if x < 0 then return -floor(-x / y) end return floor(x / y) end
local function max(x, y) if x > y then return x end return y end
local function min(x, y) if x < y then return x end return y end

-- The report.

-- Places in ARGV. Those of priorities are where HIGH stands; MEDIUM and LOW follow.
local ID, SINCE, DECIDED, GONE, WAITING, HELD, HELD_PATIENT, REST = 13, 14, 15, 18, 21, 24, 27, 30
local ENQUEUED, SEEN, SEEN_OLDEST, SEEN_AGO, SEED_DRAIN, SEED_PROCESSES, LAST_ARGUMENT = 33, 34, 35, 36, 37, 38, 38

if tonumber(ARGV[1]) ~= VERSION then
  return redis.error_reply('AGEVERSION the caller speaks version ' .. tostring(ARGV[1]) .. ', this script ' .. VERSION)
end
if #ARGV ~= LAST_ARGUMENT or #ARGV[ID] < 1 or #ARGV[ID] > 64 then
  return redis.error_reply('AGEREPORT wants ' .. LAST_ARGUMENT .. ' arguments, and an id of 1 to 64 bytes')
end
local id = ARGV[ID]
local report = {}
for i = 1, LAST_ARGUMENT do
  local x = i == ID and 0 or tonumber(ARGV[i])
  if not x or x % 1 ~= 0 or x > MOST_JOBS or x < 0 and (x < -1 or i ~= SEEN and i ~= SEEN_OLDEST) then
    return redis.error_reply('AGEREPORT argument ' .. i .. ' is not a whole number from 0 to 1000000000')
  end
  report[i] = x
end
local target, tick, gain_most, window = report[2], report[3], report[4], report[5]
local trims, least_budget, burst, calls, limit = report[6] == 1, report[7], report[10], report[11], report[12]
local since = report[SINCE]
if tick < 1 or tick > 1000 or target < tick or target > 3600000 or gain_most > 9000 or window > 6000
  or least_budget > 1000 or report[8] > 1000 or report[9] > 1000 or burst > 1000 or calls < 1 or calls > MILLION
  or limit > 1000 or report[SEED_PROCESSES] > MILLION then
  return redis.error_reply('AGEREPORT a setting is out of its bounds')
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

-- The state.

-- The place of each number in it; version first, and three in a row where there is one for each priority.
local TICKED, TICKS, DRAIN, BUDGET, AGE, GAP, TRIM, SMOOTHED = 2, 3, 4, 5, 6, 7, 8, 9
local SUM_OFFERS, SUM_ASKED, SUM_GONE, SUM_WAITED, SUM_WAITING = 10, 13, 16, 19, 22
local SUM_SINCE, TOTAL, SUM_LEASED, SUM_DEALT = 25, 26, 27, 28
local DEMAND, PATIENT, WAITERS, ASKED, PROCESSES = 29, 32, 35, 38, 41
local BACKLOG, OLDEST, READ, BACKLOG_BEFORE, READ_BEFORE, TOTAL_BEFORE = 42, 43, 44, 45, 46, 47
local SHARE, SPARE, ROOM, SAMPLED = 48, 51, 52, 53
local PROMISED, PROMISED_RATE, NEXT_CALL, NEXT_START = 54, 55, 56, 57
local DELAY, UNHEARD, BUSY, CALM, KNOWN = 58, 59, 60, 61, 62
local RING, RING_END, PROMISED_SPARE = 63, 86, 87
-- News of the queue: how far apart the last two were, how old the last but one when the last came; what is added to the
-- backlog that is foreseen between them; and the budget that is held between them while the queue runs dry.
local APART, FAR, LIFT, HELD_UP, LAST = 88, 89, 90, 91, 91
local FORMAT = '<I2' .. string.rep('d', LAST - 1)
local SIZE = 2 + 8 * (LAST - 1)

local function new_state(drain, trim)
  local s = {VERSION}
  for i = 2, LAST do s[i] = 0 end
  s[TICKED] = now; s[DRAIN] = drain; s[TRIM] = trim; s[SMOOTHED] = -1; s[PROCESSES] = 1; s[SAMPLED] = -MOST_JOBS
  for i = BACKLOG, TOTAL_BEFORE do s[i] = -1 end
  for i = SHARE, SHARE + 2 do s[i] = 4 * MILLION end
  for i = RING, RING_END do s[i] = -1 end
  if drain > 0 then
    s[GAP] = tick; s[CALM] = 2 * tick; s[KNOWN] = 1
  else
    s[GAP] = max(1, div(tick, 8))
  end
  return s
end

-- Whatever else lies there, of another version or of nobody, is no state. One number that is none would spoil all.
local function unpacked(value)
  if not value or #value < SIZE or #value > SIZE + 64 or struct.unpack('<I2', value) ~= VERSION then return nil end
  local s = {struct.unpack(FORMAT, value)}
  local nothing = 0
  for i = 2, LAST do nothing = nothing + s[i] * 0 end
  if nothing ~= 0 then return nil end
  return s
end

local value = redis.call('GET', KEYS[1])
local s, sampler = unpacked(value), ''
if not s or now < s[TICKED] - 2000 then
  s = new_state(report[SEED_DRAIN], MILLION)
elseif now - s[TICKED] > 60 * target then
  s = new_state(s[DRAIN], s[TRIM])  -- nobody called for long: what the workers can do is remembered, the rest is not
else
  sampler = string.sub(value, SIZE + 1)
end

-- What the report brings.

-- Who was away brings the jobs of minutes, which belong to no tick: one interval's part stands for them.
local interval = max(tick, div(s[NEXT_CALL], 1000) - now)
if since > 3 * interval then
  for i = DECIDED, GONE + 2 do report[i] = div(report[i] * interval, since) end
  report[ENQUEUED] = div(report[ENQUEUED] * interval, since)
  since = interval
end

-- Whoever brings most of the demand had better set the pace: ticks fall where its leases end. Who is not heard of for
-- two and a half gaps is followed by the next that calls; so, when ticks become short, the queue is soon looked at.
local brought = 0
for i = DECIDED, WAITING + 2 do brought = brought + report[i] end
local demand = s[DEMAND] + s[DEMAND + 1] + s[DEMAND + 2]
local was_sampler = sampler == id
local heavy = since > 0 and demand > 0 and min(div(brought * MILLION, since), 4 * MOST_DEMAND) * 5 > 3 * demand
if id ~= '-' and (sampler == id or heavy or now - s[SAMPLED] > 2 * s[GAP] + div(s[GAP], 2)) then
  sampler = id; s[SAMPLED] = now
end
local samples = sampler == id

local function add(place, jobs) s[place] = min(s[place] + jobs, MOST_JOBS) end
local asking = 0
for l = 0, 2 do
  local waiting, held, held_patient = report[WAITING + l], report[HELD + l], report[HELD_PATIENT + l]
  add(SUM_OFFERS + l, report[DECIDED + l] + held)
  add(SUM_ASKED + l, held)
  add(SUM_GONE + l, report[GONE + l] + held_patient)
  s[SUM_WAITED + l] = min(s[SUM_WAITED + l] + min(waiting * min(since, tick), MOST_RATE), 100 * MOST_RATE)
  add(SUM_WAITING + l, waiting)
  asking = asking + held + held_patient + waiting
end
s[TOTAL] = s[TOTAL] + report[ENQUEUED]
add(SUM_LEASED, report[ENQUEUED])
s[SUM_SINCE] = s[SUM_SINCE] + (since > 0 and since or tick)

-- In a hole of the ticks reports were lost, so that nothing is measured over it.
local elapsed, first = now - s[TICKED], s[TICKS] == 0
local hole = elapsed > 5 * tick
if hole then
  s[TOTAL_BEFORE] = -1
  for i = RING, RING_END do s[i] = -1 end
end
local news = report[SEEN] >= 0
if news then
  local read = now - report[SEEN_AGO]
  if s[READ] >= 0 and not hole and 2 * (read - s[READ]) >= s[GAP] then  -- else the same news, read once more
    s[APART] = min(read - s[READ], FURTHEST_APART); s[FAR] = min(now - s[READ], FURTHEST_APART)
  end
  s[BACKLOG] = report[SEEN]; s[OLDEST] = report[SEEN_OLDEST]; s[READ] = read
end
local seldom = 2 * s[APART] > 3 * tick  -- news come less often than ticks

-- A tick.

-- Millijobs that a tick may promise to callers who will not wait.
local function promisable() return div(s[BUDGET] * s[GAP] * 3, 2000) + s[ROOM] * 1000 end

-- Whoever's call it is: scripts do not overlap, so nobody leads. When all fitted, and more was asked than a tick may
-- promise, the next tick comes early, and the law is cold again.
local used_up = not first and s[SPARE] > 0 and s[PROMISED] >= promisable() and 8 * elapsed >= tick
if used_up then s[CALM] = 0 end
local due = elapsed >= 2 * s[GAP] or news and 2 * elapsed >= s[GAP] or was_sampler and 4 * elapsed >= 3 * s[GAP]
if first or used_up or due then

  -- Seldom news may have come between two ticks, and are not lost.
  local sampled = news or seldom and s[READ] ~= s[READ_BEFORE]
  local read_before = s[READ_BEFORE]
  local apart = max(0, s[READ] - read_before)

  local function is_dry(backlog) return backlog <= 0 or backlog * 4 * MILLION < s[DRAIN] * s[GAP] end
  local was_dry = is_dry(s[BACKLOG_BEFORE])

  -- Jobs that were reported as enqueued by the time of the sample; nil: too long ago. A sample is held against the jobs
  -- of its own interval, or an old one would read the drain of the present ones, and more jobs as a faster drain.
  local function enqueued_by(instant)
    if instant >= now then return s[TOTAL] end
    local later, jobs = now, s[TOTAL]
    for i = RING, RING_END - 1, 2 do
      local earlier, fewer = s[i], s[i + 1]
      if earlier < 0 then return nil end
      if earlier <= instant then
        local span = max(1, later - earlier)
        return fewer + div(min(jobs - fewer, div(9000000000000000, span)) * (instant - earlier), span)
      end
      later = earlier; jobs = fewer
    end
    return nil
  end

  local function measure_demand(dt)
    local many = first and max(1, report[SEED_PROCESSES]) or 1  -- the first caller's peers are taken to be like it
    local function rate(jobs) return div(min(jobs * many, MOST_JOBS) * MILLION, dt) end
    for l = 0, 2 do
      local waiting
      if first then
        waiting = div(min(s[SUM_WAITING + l] * many, MOST_JOBS) * MILLION, tick)
      else
        waiting = div(div(s[SUM_WAITED + l] * 1000, tick) * 1000, dt)
      end
      local patient = min(rate(s[SUM_GONE + l]) + waiting, MOST_DEMAND)
      local all = min(patient + rate(s[SUM_OFFERS + l]), MOST_DEMAND)
      if first or all > 2 * s[DEMAND + l] then  -- a jump is believed at once
        s[DEMAND + l] = all; s[PATIENT + l] = patient
      else
        s[DEMAND + l] = div(s[DEMAND + l] + all, 2); s[PATIENT + l] = div(s[PATIENT + l] + patient, 2)
      end
      s[ASKED + l] = div(s[ASKED + l] + min(rate(s[SUM_ASKED + l]), MOST_DEMAND), 2)
      if s[SUM_WAITING + l] == 0 then
        s[WAITERS + l] = 0
      else
        s[WAITERS + l] = max(1, first and s[SUM_WAITING + l] * many or div(s[SUM_WAITED + l], dt))
      end
      for place = SUM_OFFERS, SUM_WAITING, 3 do s[place + l] = 0 end
    end
    if first then
      s[PROCESSES] = many
    else
      local heard = div(2 * s[SUM_SINCE] + dt, 2 * dt)  -- to the nearest: of few, one less is much
      s[PROCESSES] = max(1, s[TICKS] > 16 and div(s[PROCESSES] + heard + 1, 2) or heard)
    end
  end

  -- How late a lease takes effect: dealt jobs at once, leased ones an interval late. So late may a job be heard of.
  local function measure_delay(dt)
    local delay = max(0, div(s[NEXT_CALL], 1000) - now - s[GAP])
    s[DELAY] = s[SUM_LEASED] > 0 and div(delay * s[SUM_LEASED], s[SUM_LEASED] + s[SUM_DEALT]) or 0
    s[UNHEARD] = min(max(s[UNHEARD] - dt, s[DELAY] + s[GAP]), 4 * tick)
    s[SUM_SINCE] = 0; s[SUM_LEASED] = 0; s[SUM_DEALT] = 0
  end

  -- The drain: jobs enqueued less growth of the backlog. Returns whether it was steady.
  local function measure_drain()
    local jobs = enqueued_by(s[READ])
    if not jobs then
      if s[TOTAL_BEFORE] < 0 then s[BACKLOG_BEFORE] = s[BACKLOG]; s[READ_BEFORE] = s[READ] end
      return false
    end
    local dt, steady = s[READ] - s[READ_BEFORE], false
    if s[TOTAL_BEFORE] >= 0 and dt >= 0 and dt <= FURTHEST_APART then
      if 4 * dt < 3 * s[UNHEARD] then return false end  -- too short: jobs that were let in are not yet told of
      local drain = s[DRAIN]
      local growth = s[BACKLOG] - s[BACKLOG_BEFORE]
      local seen = min(div(min(max(0, jobs - s[TOTAL_BEFORE] - growth), MOST_JOBS) * MILLION, dt), MOST_RATE)
      -- One odd interval is not believed; but few jobs make odd intervals.
      if s[KNOWN] > 0 and div(drain, 1000) * dt >= 8000 then seen = min(seen, 4 * drain) end
      local least = min(s[BACKLOG], s[BACKLOG_BEFORE])
      if least >= 1 and least * 4 * MILLION >= drain * s[GAP] then
        steady = math.abs(seen - drain) * 4 <= drain
        local slow = max(window, min(div(20 * MILLION, max(drain, 1)), 20 * window))  -- some 20 jobs, when they are few
        local over = min(slow, s[BUSY])  -- while nothing is known, the first busy interval counts in full
        if s[KNOWN] > 0 then over = seen < drain and slow or min(slow, max(s[BUSY], window)) end
        s[DRAIN] = drain + signed_div((seen - drain) * dt, dt + over)
        s[BUSY] = min(s[BUSY] + dt, 20 * window)
      else
        -- Workers without work show a lower bound only.
        if seen > drain then
          s[DRAIN] = seldom and seen or drain + div(seen - drain, 2)
        else
          s[DRAIN] = drain - div(drain * min(dt, 15 * target), 60 * target)
        end
        s[BUSY] = s[BUSY] - div(s[BUSY] * dt, 4 * target + dt)
      end
    end
    s[BACKLOG_BEFORE] = s[BACKLOG]; s[READ_BEFORE] = s[READ]; s[TOTAL_BEFORE] = jobs; s[LIFT] = 0
    return steady
  end

  -- Between seldom news the backlog follows from what came and what will have left; a queue is not emptier than empty.
  local function foresees() return seldom and s[TOTAL_BEFORE] >= 0 end
  local function foreseen()
    local left = div(s[DRAIN] * min(max(0, now - s[READ_BEFORE]), FURTHEST_APART), MILLION)
    local jobs = s[BACKLOG_BEFORE] + min(s[TOTAL] - s[TOTAL_BEFORE], MOST_JOBS) - left
    s[LIFT] = max(s[LIFT], 0 - jobs)
    return jobs + s[LIFT]
  end

  -- The age: how long a job that is enqueued now will wait. The oldest job's age corrects it, slowly, as jobs of
  -- producers that do not report are in the backlog and not in the drain.
  local function measure_age(steady)
    local backlog, drain = max(s[BACKLOG], 0), s[DRAIN]
    local age = 0
    if drain > 0 then age = div(backlog * MILLION, drain) elseif backlog > 0 then age = 100 * target end
    local ticks = max(8, div(2 * target, tick))
    local sixteenths = backlog * 16
    if s[SMOOTHED] < 0 then
      s[SMOOTHED] = sixteenths
    else
      s[SMOOTHED] = s[SMOOTHED] + signed_div(sixteenths - s[SMOOTHED], ticks)
    end
    local rests = math.abs(sixteenths - s[SMOOTHED]) * 8 <= s[SMOOTHED]
    if trims and steady and rests and s[CALM] >= 2 * tick and s[OLDEST] > 0 and backlog >= 10 and age > 0 then
      local told = min(2 * MILLION, max(MILLION / 2, div(s[OLDEST] * MILLION, age)))
      s[TRIM] = s[TRIM] + signed_div(told - s[TRIM], 4 * ticks)
    end
    if foresees() and drain > 0 then age = div(foreseen() * MILLION, drain) end
    s[AGE] = min(div(min(age, 100 * target) * s[TRIM], MILLION), 100 * target)
  end

  -- Twice as much from one dry news to the next. One alone is chance, which is made up for by what is foreseen.
  local function explore(old, all)
    local since_before = min(apart, s[APART])
    local up = div(s[BUDGET] * since_before, max(1, old + s[DELAY] + since_before))
    s[HELD_UP] = was_dry and is_dry(s[BACKLOG]) and min(s[BUDGET] + up, 2 * all) or 0
  end

  local function set_budget(dt, old, all)
    local gap, drain = s[GAP], s[DRAIN]
    -- No more gain than news so old allow without overshoot. What was foreseen wrong is made up for in part of the time
    -- to the next news: sudden changes would blur how many jobs had been enqueued by their instant.
    local late = s[DELAY] + (foresees() and div(s[FAR], 4) or old)
    local gain = min(gain_most, div(1000 * target, 2 * late + 3 * gap))
    local lack = min(1500, signed_div((target - min(s[AGE], 20 * target)) * gain, target))
    local budget = max(div(drain * least_budget, 1000), drain + signed_div(drain * lack, 1000))
    local unseen, most = now - s[READ], drain
    if is_dry(s[BACKLOG]) then
      -- The queue runs dry: twice as much each tick, until it does not, or all that is asked for fits.
      local up, least = seldom and s[HELD_UP] or s[BUDGET], div((drain > 0 and 1 or 10) * MILLION, tick)
      if sampled and not seldom then up = up + div(s[BUDGET] * min(dt, gap), old + s[DELAY] + gap) end
      budget = max(max(budget, min(up, 2 * all)), least)
      if s[READ] >= 0 then most = max(drain, least) end
      if seldom and unseen <= 2 * s[FAR] then most = max(most, up) end
    end
    -- Nobody sees the queue: no news came, or seldom ones are overdue, or nothing can be foreseen from them.
    if (seldom or not sampled) and unseen > (foresees() and 2 * s[FAR] or 3 * tick) then budget = min(budget, most) end
    s[BUDGET] = min(div(budget * limit, 1000), MOST_DEMAND)
  end

  -- Cold, with short ticks, until two ticks' worth of busy workers or of all demand fitting were seen.
  local function set_gap(dt, old, all)
    if not first and (s[BUSY] > 0 or (s[BUDGET] >= all and s[TICKS] > 16)) then s[CALM] = s[CALM] + dt end
    s[CALM] = min(s[CALM], 2 * tick)
    if s[CALM] >= 2 * tick then
      s[KNOWN] = 1; s[GAP] = tick
    else
      s[GAP] = min(tick, max(max(div(tick, 8), old), max(seldom and s[APART] or 0, 1)))
    end
  end

  -- One number for each priority: HIGH first, then what is left; what is a floor's is kept for it.
  local function set_shares()
    local left, kept = s[BUDGET], {[0] = 0}
    for l = 1, 2 do kept[l] = div(div(s[DEMAND + l] * report[7 + l], 1000) * limit, 1000) end  -- memory ends floors too
    for l = 0, 2 do
      local asks, has = s[DEMAND + l], left
      if l == 1 then has = left - kept[2] end
      has = max(max(has, kept[l]), 0)
      s[SHARE + l] = has >= 4 * asks and 4 * MILLION or div(has * MILLION, asks)
      left = max(0, left - asks)
    end
    s[SPARE] = left
    s[ROOM] = div(div(s[DRAIN] * max(0, target - s[AGE]), 2 * MILLION) * limit, 1000)
    s[PROMISED] = 0; s[PROMISED_RATE] = 0; s[PROMISED_SPARE] = 0
  end

  local dt = first and tick or min(max(elapsed, 1), 5 * tick)
  measure_demand(dt)
  measure_delay(dt)
  local steady = sampled and measure_drain()
  if s[RING] < 0 or 11 * (now - s[RING]) >= s[FAR] then  -- so that it reaches back to the oldest news
    for i = RING_END, RING + 2, -1 do s[i] = s[i - 2] end
    s[RING] = now; s[RING + 1] = s[TOTAL]
  end
  measure_age(steady)
  local old, all = sampled and max(0, now - s[READ]) or 0, s[DEMAND] + s[DEMAND + 1] + s[DEMAND + 2]
  if s[READ_BEFORE] ~= read_before then explore(old, all) end
  set_budget(min(dt, apart), old, all)
  set_gap(dt, old, all)
  set_shares()
  s[TICKS] = s[TICKS] + 1; s[TICKED] = now
end

-- The lease.

-- When to call again: calls are dealt out like jobs, so many a second. No count of processes is needed for it.
local gap, apart = s[GAP], div(MILLION, calls)
s[NEXT_CALL] = max(s[NEXT_CALL], (now + gap) * 1000)
if since > 0 or asking > 0 then
  s[NEXT_CALL] = min(s[NEXT_CALL] + apart, (now + FURTHEST_CALL) * 1000)
  interval = max(1, div(s[NEXT_CALL], 1000) - now)
else
  -- Just started: it is to ask at its first offer, but a whole fleet not at once.
  s[NEXT_START] = max(s[NEXT_START], now * 1000) + apart
  interval = max(1, (div(s[NEXT_START], 1000) - now) % target)
end
local answer = {now, s[TICKS], s[DRAIN], s[BUDGET], s[AGE], s[BACKLOG], s[PROCESSES], s[SPARE],
  samples and 1 or 0, samples and gap or interval, s[DEMAND], s[DEMAND + 1], s[DEMAND + 2]}
for l = 0, 2 do answer[#answer + 1] = min(s[SHARE + l], MILLION) end
-- The sampler's terms hold for a gap. Charged for longer, a busy one would use up what all may be promised.
if samples then interval = gap end

since = max(max(since, div(tick, 8)), 1)
local processes, room, warm = s[PROCESSES], s[ROOM], s[CALM] >= 2 * tick
local may_promise, may_promise_rate = promisable(), div(s[BUDGET] * gap * 3, 2000)
-- More processes called in this tick than were known: what may go unasked has been given away, and the rest asks.
local crowded = s[SUM_SINCE] > processes * gap

-- Where leases are old, who asks is served first, as its job is counted at once; the others share what is left.
local function shares_of(l, share)
  if s[SHARE + l] >= MILLION or interval <= 2 * gap then return share, share end
  local impatient, asked = max(0, s[DEMAND + l] - s[PATIENT + l]), s[ASKED + l]
  local fit = div(impatient * share, MILLION)
  if fit < asked then return div(fit * MILLION, asked), 0 end
  if fit == asked or impatient <= asked then return MILLION, 0 end
  return MILLION, min(MILLION, div((fit - asked) * MILLION, impatient - asked))
end

for l = 0, 2 do
  local decided, gone, waiting = report[DECIDED + l], report[GONE + l], report[WAITING + l]
  local held, held_patient = report[HELD + l], report[HELD_PATIENT + l]
  local whole = s[SHARE + l]
  local share, roomy = min(whole, MILLION), whole >= MILLION
  local asks = min(div(gone * MILLION, since) + div(waiting * MILLION, max(since, tick)), MOST_DEMAND)
  local rate = div(asks * whole, 1000)

  -- Whole jobs, at once: to who is held, and to who waits where a lease would be of less than a job.
  local deals = waiting > 0 and div(rate, 1000) * interval < min(waiting, 4) * MILLION
  local share_held, share_decided = shares_of(l, share)
  local due = report[REST + l] + held * share_held + held_patient * share
  if deals then
    due = due + div(min(gone * 1000 + div(waiting * min(since, tick) * 1000, tick), MOST_RATE) * whole, 1000)
  end
  local go = min(div(due, MILLION), held + held_patient + (deals and waiting or 0))
  if l > 0 then go = min(go, div(max(0, may_promise - s[PROMISED]), 1000)) end
  s[PROMISED] = s[PROMISED] + go * 1000; s[TOTAL] = s[TOTAL] + go; add(SUM_DEALT, go)
  local rest = due % MILLION  -- only what is less than a job: else waiters who were cut short would keep step

  -- Who will not wait. Cold, nobody gets what was not asked for; while all fits, a second offer asks again.
  local cap = (warm and not roomy) and 1 or 0
  local wants = div(div(min(max(0, decided - 1), MILLION) * share_decided, 1000) * interval, since)
  local free = max(0, may_promise - s[PROMISED])
  if wants > free then
    cap = cap + div(free, 1000); s[PROMISED] = s[PROMISED] + free
  else
    -- Twice as many offers as were known, and how far they jump nobody can tell: no more go than this one brought.
    local jumps = s[SUM_OFFERS + l] * MILLION > 2 * s[DEMAND + l] * gap
    cap = cap + (jumps and decided or div(2 * decided * interval, since)); s[PROMISED] = s[PROMISED] + wants
    if not crowded then
      cap = cap + min(burst, div(room + div(s[BUDGET] * gap, MILLION), processes)) + div(room, 2 * processes)
    end
  end

  -- Who will.
  local most, fill = MILLION, 0
  if roomy and waiting == 0 then  -- nobody waits, so nobody is to wait for a first token
    local in_tick = div(s[BUDGET] * tick, MILLION)
    if asks == 0 and s[TICKS] > 1 then rate = warm and div(s[SPARE] * 1000, processes) or 0 end
    most = (1 + max(0, min(burst - 1, div(in_tick, processes))) + div(room, processes)) * MILLION
    if s[DRAIN] > 0 and (l == 0 or warm or room + in_tick >= processes) then fill = 1 end
  elseif deals then
    rate = 0
  else
    if waiting > 0 and s[WAITERS + l] > 0 then  -- an eighth by who waits, not by who went: so producers become alike
      local each = div(div(s[PATIENT + l] * whole, 1000), s[WAITERS + l])
      local eighth = div(each * min(waiting, s[WAITERS + l]), 8)
      rate = rate - div(rate, 8) + div(eighth * tick, max(since, tick))  -- who calls seldom is one waiter all the same
    end
    most = max(2 * MILLION, div(rate * tick, 2000))
  end
  -- A jump cannot be granted to each of N callers. Who asked for nothing has a promise of its own, of what is spare:
  -- out of the same one, idle processes would starve the one that is busy.
  if asks > 0 then
    rate = min(rate, div(max(0, may_promise_rate - s[PROMISED_RATE]) * 1000, interval) * 1000)
    s[PROMISED_RATE] = s[PROMISED_RATE] + div(div(rate, 1000) * interval, 1000)
  elseif rate > 0 then
    rate = min(rate, div(max(0, div(s[SPARE] * gap, 1000) - s[PROMISED_SPARE]) * 1000, interval) * 1000)
    s[PROMISED_SPARE] = s[PROMISED_SPARE] + div(div(rate, 1000) * interval, 1000)
  end

  local n = #answer
  answer[n + 1] = share_decided; answer[n + 2] = cap; answer[n + 3] = rate; answer[n + 4] = most; answer[n + 5] = fill
  answer[n + 6] = go; answer[n + 7] = rest
end

local kept = struct.pack(FORMAT, unpack(s, 1, LAST)) .. sampler
redis.call('SET', KEYS[1], kept, 'PX', max(REMEMBERED, 60 * target + 60000))
return answer
