"""What a Redis store's server does: one script for each write, so that it happens whole or not at all.

Keys, under a prefix::

    schema                      hash: application, version
    sequence                    counter, by which runs and their rows are ordered
    runs, runs:updated          sorted sets of run ids, by their order and by when they were last written
    run:{id}                    hash: the run;  :steps  hash: rows by path;  :order  sorted set of paths
    sessions, sessions:expires  sorted sets of session ids, by their last use and by when they end
    epoch                       counter: a later owner of anything has a larger number
    sessions:of                 hash: pool and user by id, for the indexes of one whose keys are gone
    sessions:pool:P             sorted set of session ids by when they end; sessions:user:U the same
    session:{id}                hash: the session;  :entries  :versions  hashes by key;  :turns  list

Every script is given the prefix, the time (empty for the server's own) and its arguments, and answers with a
list whose first element says how it went. Numbers with a fraction travel as text: Redis cuts them off.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = ["APPLICATION", "VERSION", "RunScripts", "Script", "SessionScripts"]

APPLICATION: Final = b"dspex"
VERSION: Final = 1


class Script(NamedTuple):
    """A script.

    Attributes:
        source: Its text.
        sha: By which the server knows it.
    """

    source: str
    sha: str


_HEAD: Final = """
local p, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = t[1] + t[2] / 1000000
end
local said = redis.call('HMGET', p .. 'schema', 'application', 'version')
if said[1] ~= 'dspex' or said[2] ~= '1' then
  return {'schema', said[1], said[2]}
end
local function text(number) return string.format('%.17g', number) end
"""

_RUN_HEAD: Final = (
    _HEAD
    + """
local function run_key(id) return p .. 'run:{' .. id .. '}' end
local function info_of(id)
  return redis.call('HMGET', run_key(id), 'pipeline', 'status', 'fingerprint', 'inputs', 'outcome', 'created',
    'updated', 'epoch', 'resumes', 'owner', 'lease_until')
end
local function drop(id)
  local key = run_key(id)
  redis.call('ZREM', p .. 'runs', id)
  redis.call('ZREM', p .. 'runs:updated', id)
  return redis.call('DEL', key, key .. ':steps', key .. ':order')
end
local function touch(id)
  redis.call('HSET', run_key(id), 'updated', text(now))
  redis.call('ZADD', p .. 'runs:updated', text(now), id)
end
local id = ARGV[3]
local key = run_key(id or '')
"""
)
_RUN_OWNED: Final = """
local at = redis.call('HMGET', key, 'epoch', 'owner')
if not at[1] then return {'none'} end
if at[1] ~= ARGV[4] or not at[2] then return {'lost'} end
"""

_SESSION_HEAD: Final = (
    _HEAD
    + """
local function session_key(id) return p .. 'session:{' .. id .. '}' end
local function purge(id)
  local key = session_key(id)
  redis.call('DEL', key, key .. ':entries', key .. ':versions', key .. ':turns')
  redis.call('ZREM', p .. 'sessions', id)
  redis.call('ZREM', p .. 'sessions:expires', id)
  local of = redis.call('HGET', p .. 'sessions:of', id)
  if of then
    of = cmsgpack.unpack(of)
    redis.call('ZREM', p .. 'sessions:pool:' .. of[1], id)
    redis.call('ZREM', p .. 'sessions:user:' .. of[2], id)
    redis.call('HDEL', p .. 'sessions:of', id)
  end
end
local function lasts(id)
  local at = redis.call('HMGET', session_key(id), 'created', 'expires')
  return at[1] and (at[2] == '' or tonumber(at[2]) > now)
end
local function purge_some(most)
  local old = redis.call('ZRANGEBYSCORE', p .. 'sessions:expires', '-inf', text(now), 'LIMIT', 0, most)
  for _, each in ipairs(old) do purge(each) end
  return old
end
local function info_of(id)
  local key = session_key(id)
  local info = redis.call('HMGET', key, 'pool', 'user', 'settings', 'idle_ttl', 'max_age', 'created', 'used',
    'expires', 'version', 'size', 'epoch', 'owner', 'lease_until')
  info[14] = redis.call('HGET', key, 'last')
  info[15] = id
  return info
end
local function use(id, used)
  local key = session_key(id)
  local at = redis.call('HMGET', key, 'created', 'used', 'idle_ttl', 'max_age', 'pool', 'user')
  used = math.max(used, tonumber(at[2]))
  local ends
  if at[3] ~= '' then ends = used + at[3] end
  if at[4] ~= '' then ends = math.min(ends or math.huge, at[1] + at[4]) end
  redis.call('HSET', key, 'used', text(used), 'expires', ends and text(ends) or '')
  redis.call('ZADD', p .. 'sessions', text(used), id)
  local score = ends and text(ends) or '+inf'
  redis.call('ZADD', p .. 'sessions:pool:' .. at[5], score, id)
  if at[6] ~= '' then redis.call('ZADD', p .. 'sessions:user:' .. at[6], score, id) end
  if ends then
    redis.call('ZADD', p .. 'sessions:expires', score, id)
    if ARGV[2] == '' then
      local ms = string.format('%.0f', math.ceil(ends * 1000))
      for _, more in ipairs({'', ':entries', ':versions', ':turns'}) do
        redis.call('PEXPIREAT', key .. more, ms)
      end
    end
  end
end
local function owned(id, epoch)
  if not lasts(id) then return 'none' end
  local at = redis.call('HMGET', session_key(id), 'epoch', 'owner')
  if at[1] ~= epoch or not at[2] then return 'moved' end
end
local id = ARGV[3]
local key = session_key(id or '')
"""
)


def _script(*parts: str) -> Script:
    source = "".join(parts)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class RunScripts:
    """Scripts of runs."""

    create: Final = _script(
        _RUN_HEAD,
        """
if redis.call('EXISTS', key) == 1 then return {'exists'} end
local till = text(now + ARGV[8])
local epoch = redis.call('INCR', p .. 'epoch')
redis.call('HSET', key, 'pipeline', ARGV[4], 'status', 'running', 'fingerprint', ARGV[5], 'inputs', ARGV[6],
  'created', text(now), 'epoch', epoch, 'resumes', '0', 'owner', ARGV[7], 'lease_until', till)
redis.call('ZADD', p .. 'runs', redis.call('INCR', p .. 'sequence'), id)
touch(id)
return {'ok', till, epoch}
""",
    )
    claim: Final = _script(
        _RUN_HEAD,
        """
local at = redis.call('HMGET', key, 'status', 'resumes', 'owner', 'lease_until')
if not at[1] then return {'none'} end
if at[3] and tonumber(at[4]) > now and ARGV[7] ~= 'any' and not (ARGV[7] == 'from' and ARGV[8] == at[3]) then
  return {'busy', at[3], text(at[4] - now)}
end
local done = at[1] == 'done'
redis.call('HSET', key, 'epoch', redis.call('INCR', p .. 'epoch'))
touch(id)
if not done and ARGV[6] ~= '' and tonumber(at[2]) >= tonumber(ARGV[6]) then
  redis.call('HSET', key, 'status', 'failed')
  redis.call('HDEL', key, 'owner')
  return {'resumes', at[2]}
end
if not done then redis.call('HINCRBY', key, 'resumes', 1) end
redis.call('HSET', key, 'status', done and 'done' or 'running', 'owner', ARGV[4],
  'lease_until', text(now + ARGV[5]))
return {'ok', info_of(id)}
""",
    )
    renew: Final = _script(
        _RUN_HEAD,
        _RUN_OWNED,
        """
local till = text(now + ARGV[5])
redis.call('HSET', key, 'lease_until', till)
return {'ok', till}
""",
    )
    record: Final = _script(
        _RUN_HEAD,
        _RUN_OWNED,
        """
for i = 5, #ARGV, 6 do
  local path, digest = ARGV[i], ARGV[i + 2]
  local there = redis.call('HGET', key .. ':steps', path)
  if not there or cmsgpack.unpack(there)[2] ~= digest then
    local row = {ARGV[i + 1], digest, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], text(now)}
    redis.call('HSET', key .. ':steps', path, cmsgpack.pack(row))
    if not there then redis.call('ZADD', key .. ':order', redis.call('INCR', p .. 'sequence'), path) end
  end
end
return {'ok'}
""",
    )
    steps: Final = _script(
        _RUN_HEAD,
        """
local found = {}
for _, path in ipairs(redis.call('ZRANGE', key .. ':order', 0, -1)) do
  found[#found + 1] = path
  found[#found + 1] = redis.call('HGET', key .. ':steps', path)
end
return {'ok', found}
""",
    )
    forget: Final = _script(
        _RUN_HEAD,
        _RUN_OWNED,
        """
local count = 0
for i = 5, #ARGV do
  count = count + redis.call('HDEL', key .. ':steps', ARGV[i])
  redis.call('ZREM', key .. ':order', ARGV[i])
end
return {'ok', count}
""",
    )
    update: Final = _script(
        _RUN_HEAD, _RUN_OWNED, "redis.call('HSET', key, 'fingerprint', ARGV[5])\nreturn {'ok'}\n"
    )
    end: Final = _script(
        _RUN_HEAD,
        _RUN_OWNED,
        """
redis.call('HSET', key, 'status', ARGV[5])
redis.call('HDEL', key, 'owner', 'outcome')
if ARGV[6] == '1' then redis.call('HSET', key, 'outcome', ARGV[7]) end
touch(id)
return {'ok'}
""",
    )
    release: Final = _script(
        _RUN_HEAD,
        "if redis.call('HGET', key, 'epoch') == ARGV[4] then redis.call('HDEL', key, 'owner') end\n"
        "return {'ok'}\n",
    )
    read: Final = _script(_RUN_HEAD, "return {'ok', info_of(id)}\n")
    page: Final = _script(
        _RUN_HEAD,
        """
local first, most = tonumber(ARGV[7]), tonumber(ARGV[8])
local ids = redis.call('ZREVRANGE', p .. 'runs', first, first + 499)
local found = {}
for _, each in ipairs(ids) do
  local at = redis.call('HMGET', run_key(each), 'pipeline', 'status')
  if at[1] and (ARGV[3] == '' or at[1] == ARGV[4]) and (ARGV[5] == '' or at[2] == ARGV[6]) then
    if #found >= most then break end
    local info = info_of(each)
    info[12] = each
    found[#found + 1] = info
  end
end
return {'ok', #ids, found}
""",
    )
    drop: Final = _script(_RUN_HEAD, "return {'ok', drop(id)}\n")
    prune: Final = _script(
        _RUN_HEAD,
        """
local old = redis.call('ZRANGEBYSCORE', p .. 'runs:updated', '-inf', '(' .. text(now - ARGV[3]),
  'LIMIT', ARGV[4], 500)
local gone = 0
for _, each in ipairs(old) do
  local at = redis.call('HMGET', run_key(each), 'status', 'owner', 'lease_until')
  local ended = not at[1]
  for i = 5, #ARGV do ended = ended or at[1] == ARGV[i] end
  if ended and (not at[2] or tonumber(at[3]) < now) then
    drop(each)
    gone = gone + 1
  end
end
return {'ok', #old, gone}
""",
    )


class SessionScripts:
    """Scripts of sessions."""

    create: Final = _script(
        _SESSION_HEAD,
        """
local pool, user = ARGV[4], ARGV[5]
if lasts(id) then return {'exists'} end
purge(id)
purge_some(10)
local live = '(' .. text(now)
if ARGV[11] ~= '' and redis.call('ZCOUNT', p .. 'sessions:pool:' .. pool, live, '+inf') >= tonumber(ARGV[11])
then return {'quota', 'pool'} end
if user ~= '' and ARGV[12] ~= ''
  and redis.call('ZCOUNT', p .. 'sessions:user:' .. user, live, '+inf') >= tonumber(ARGV[12])
then return {'quota', 'user'} end
local till = text(now + ARGV[10])
local epoch = redis.call('INCR', p .. 'epoch')
redis.call('HSET', key, 'pool', pool, 'user', user, 'settings', ARGV[6], 'idle_ttl', ARGV[7],
  'max_age', ARGV[8], 'created', text(now), 'used', text(now), 'version', '0', 'size', '0',
  'last', '0', 'epoch', epoch, 'owner', ARGV[9], 'lease_until', till)
redis.call('HSET', p .. 'sessions:of', id, cmsgpack.pack({pool, user}))
use(id, now)
return {'ok', till, epoch}
""",
    )
    claim: Final = _script(
        _SESSION_HEAD,
        """
if not lasts(id) then return {'none'} end
local at = redis.call('HMGET', key, 'owner', 'lease_until')
if at[1] and tonumber(at[2]) > now and ARGV[6] ~= 'any' and not (ARGV[6] == 'from' and ARGV[7] == at[1]) then
  return {'busy', at[1], text(at[2] - now)}
end
redis.call('HSET', key, 'owner', ARGV[4], 'lease_until', text(now + ARGV[5]),
  'epoch', redis.call('INCR', p .. 'epoch'))
use(id, now)
return {'ok', info_of(id), redis.call('HGETALL', key .. ':entries'),
  redis.call('HGETALL', key .. ':versions'), redis.call('HGET', key, 'last'),
  redis.call('LRANGE', key .. ':turns', 0, -1)}
""",
    )
    # Arguments: id, epoch, seconds, forget_to, how many of expected, written, removed and turns; then these.
    commit: Final = _script(
        _SESSION_HEAD,
        """
local wrong = owned(id, ARGV[4])
if wrong then return {wrong} end
local i = 11
for _ = 1, tonumber(ARGV[7]) do
  local version = tonumber(redis.call('HGET', key .. ':versions', ARGV[i]) or 0)
  if version ~= tonumber(ARGV[i + 1]) then return {'conflict', ARGV[i], version} end
  i = i + 2
end
local size = tonumber(redis.call('HGET', key, 'size'))
local version = redis.call('HINCRBY', key, 'version', 1)
for _ = 1, tonumber(ARGV[8]) do
  size = size - redis.call('HSTRLEN', key .. ':entries', ARGV[i]) + #ARGV[i + 1]
  redis.call('HSET', key .. ':entries', ARGV[i], ARGV[i + 1])
  redis.call('HSET', key .. ':versions', ARGV[i], version)
  i = i + 2
end
for _ = 1, tonumber(ARGV[9]) do
  size = size - redis.call('HSTRLEN', key .. ':entries', ARGV[i])
  redis.call('HDEL', key .. ':entries', ARGV[i])
  redis.call('HDEL', key .. ':versions', ARGV[i])
  i = i + 1
end
for _ = 1, tonumber(ARGV[10]) do
  size = size + #ARGV[i]
  redis.call('RPUSH', key .. ':turns', ARGV[i])
  i = i + 1
end
local last = redis.call('HINCRBY', key, 'last', ARGV[10])
local gone = tonumber(ARGV[6]) - (last - redis.call('LLEN', key .. ':turns'))
if gone > 0 then
  for _, turn in ipairs(redis.call('LRANGE', key .. ':turns', 0, gone - 1)) do size = size - #turn end
  redis.call('LTRIM', key .. ':turns', gone, -1)
end
redis.call('HSET', key, 'size', string.format('%.0f', size), 'lease_until', text(now + ARGV[5]))
use(id, now)
return {'ok', info_of(id)}
""",
    )
    renew: Final = _script(
        _SESSION_HEAD,
        """
local gone = {}
for i = 4, #ARGV, 3 do
  if owned(ARGV[i], ARGV[i + 1]) then
    gone[#gone + 1] = ARGV[i]
  else
    redis.call('HSET', session_key(ARGV[i]), 'lease_until', text(now + ARGV[3]))
    use(ARGV[i], now - ARGV[i + 2])
  end
end
return {'ok', gone}
""",
    )
    release: Final = _script(
        _SESSION_HEAD,
        """
if not owned(id, ARGV[4]) then
  redis.call('HDEL', key, 'owner')
  use(id, now - ARGV[5])
end
return {'ok'}
""",
    )
    read: Final = _script(
        _SESSION_HEAD, "if not lasts(id) then return {'none'} end\nreturn {'ok', info_of(id)}\n"
    )
    entries: Final = _script(
        _SESSION_HEAD,
        """
if not lasts(id) then return {'none'} end
return {'ok', redis.call('HGETALL', key .. ':entries'), redis.call('HGETALL', key .. ':versions')}
""",
    )
    turns: Final = _script(
        _SESSION_HEAD,
        """
if not lasts(id) then return {'none'} end
return {'ok', redis.call('HGET', key, 'last'), redis.call('LRANGE', key .. ':turns', 0, -1)}
""",
    )
    page: Final = _script(
        _SESSION_HEAD,
        """
local first, most = tonumber(ARGV[7]), tonumber(ARGV[8])
local ids = redis.call('ZREVRANGE', p .. 'sessions', first, first + 499)
local found = {}
for _, each in ipairs(ids) do
  local at = redis.call('HMGET', session_key(each), 'pool', 'user')
  if lasts(each) and (ARGV[3] == '' or at[1] == ARGV[4]) and (ARGV[5] == '' or at[2] == ARGV[6]) then
    if #found >= most then break end
    found[#found + 1] = info_of(each)
  end
end
return {'ok', #ids, found}
""",
    )
    drop: Final = _script(
        _SESSION_HEAD, "local there = lasts(id)\npurge(id)\nreturn {'ok', there and 1 or 0}\n"
    )
    expire: Final = _script(_SESSION_HEAD, "return {'ok', purge_some(ARGV[3])}\n")
