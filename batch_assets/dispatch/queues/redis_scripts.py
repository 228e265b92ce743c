"""The steps of the Redis queue, each one script: the server runs it whole or not at all.

Time is the server's, so that a worker whose clock is wrong takes nobody's claim. Keys, in this order everywhere:

    1 NAME            sorted set: messages by deadline, as producers add them
    2 NAME-claimed    sorted set: messages by the time until which they are held: in flight, or to be tried again later
    3 NAME-state      hash: sha1 of a held message → "<deadline> <attempts> <claim>"
    4 NAME-finished   sorted set: tokens of finished messages by the time they were finished
    5 NAME-results    list (a channel's results are published)
    6 NAME-dead       list
    7 NAME-endings    hash: how many messages have ended so
"""

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
"""

_STATE = """
local function state(message)
  local digest = redis.sha1hex(message)
  local text = redis.call('HGET', KEYS[3], digest)
  if not text then return digest, nil, 0, '' end
  local score, attempts, claim = string.match(text, '^(%S+) (%S+) ?(.*)$')
  return digest, score, tonumber(attempts), claim
end
local function remember(digest, score, attempts, claim)
  redis.call('HSET', KEYS[3], digest, score .. ' ' .. attempts .. ' ' .. claim)
end
"""

CLAIM = (
    _NOW
    + _STATE
    + """
-- ARGV: most, seconds, claim, '1' for expired ones only
local most = tonumber(ARGV[1])
for _, message in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, math.max(most, 100))) do
  local digest, score, attempts = state(message)
  redis.call('ZREM', KEYS[2], message)
  redis.call('ZADD', KEYS[1], 'NX', score or now, message)
  if score then remember(digest, score, attempts, '') end
end
local found
if ARGV[4] == '1' then
  found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
else
  found = redis.call('ZRANGE', KEYS[1], 0, most - 1)
end
local taken = {string.format('%.6f', now)}
for _, message in ipairs(found) do
  local score = redis.call('ZSCORE', KEYS[1], message)
  redis.call('ZREM', KEYS[1], message)
  -- Put a second time while it is in flight: it is the same message.
  if not redis.call('ZSCORE', KEYS[2], message) then
    local digest, _, attempts = state(message)
    redis.call('ZADD', KEYS[2], now + ARGV[2], message)
    remember(digest, score, attempts, ARGV[3])
    taken[#taken + 1] = message
    taken[#taken + 1] = attempts
  end
end
return taken
"""
)

EXTEND = (
    _NOW
    + _STATE
    + """
-- ARGV: seconds, then message and claim, ...
for i = 2, #ARGV, 2 do
  local _, _, _, claim = state(ARGV[i])
  if claim == ARGV[i + 1] then redis.call('ZADD', KEYS[2], 'XX', now + ARGV[1], ARGV[i]) end
end
"""
)

GIVE_BACK = (
    _NOW
    + _STATE
    + """
-- ARGV: message, claim, attempts, pause, ...
for i = 1, #ARGV, 4 do
  local digest, score, _, claim = state(ARGV[i])
  if claim == ARGV[i + 1] and redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    remember(digest, score, ARGV[i + 2], '')
    if tonumber(ARGV[i + 3]) > 0 then
      redis.call('ZADD', KEYS[2], now + ARGV[i + 3], ARGV[i])
    else
      redis.call('ZREM', KEYS[2], ARGV[i])
      redis.call('ZADD', KEYS[1], 'NX', score, ARGV[i])
    end
  end
end
"""
)

FINISH = (
    _NOW
    + """
-- ARGV: 'list' or 'channel', seconds to remember tokens, then message, token, result, ending, ...
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[2])
for i = 3, #ARGV, 4 do
  -- The result first: where there is no memory for it, the message stays.
  if not redis.call('ZSCORE', KEYS[4], ARGV[i + 1]) then
    if ARGV[i + 2] ~= '' then
      if ARGV[1] == 'list' then
        redis.call('LPUSH', KEYS[5], ARGV[i + 2])
      else
        redis.call('PUBLISH', KEYS[5], ARGV[i + 2])
      end
    end
    if ARGV[i + 3] == 'invalid' then redis.call('LPUSH', KEYS[6], ARGV[i]) end
    redis.call('ZADD', KEYS[4], now, ARGV[i + 1])
    if ARGV[i + 3] ~= '' then redis.call('HINCRBY', KEYS[7], ARGV[i + 3], 1) end
  end
  redis.call('ZREM', KEYS[2], ARGV[i])
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[3], redis.sha1hex(ARGV[i]))
end
"""
)

DEPTH = (
    _NOW
    + _STATE
    + """
-- What is held no longer waits, though nobody has claimed it yet.
local lapsed = redis.call('ZCOUNT', KEYS[2], '-inf', now)
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
for _, message in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  local _, score = state(message)
  if score and (not first or tonumber(score) < tonumber(first)) then first = score end
end
return {
  redis.call('ZCARD', KEYS[1]) + lapsed, redis.call('ZCARD', KEYS[2]) - lapsed,
  redis.call('TYPE', KEYS[5]).ok == 'list' and redis.call('LLEN', KEYS[5]) or 0, first or '', string.format('%.6f', now)
}
"""
)
