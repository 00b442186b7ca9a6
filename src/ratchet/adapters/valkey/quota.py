"""Reservations in Valkey: each step is one script, so no two gateways see the same rest.

For a project P: `quota:{P}:index` names the accounts of each key, `quota:{P}:A` is an account, and
`quota:{P}:A:open` has what the ledger does not know yet, by request: "amount deadline", where a
deadline of 0 is an answer that is over.  The sum of those is the account's `open`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.adapters.valkey.client import Valkey
from ratchet.core.errors import Unavailable
from ratchet.core.quota import Accounts, Refusal, Tokens

_AMOUNT = """
local function amount(account, prompt, completion)
  local price = redis.call('HMGET', account, 'prompt_nano', 'completion_nano')
  local a, b = tonumber(price[1]), tonumber(price[2])
  if a == 0 and b == 0 then a, b = 1, 1 end
  return prompt * a + completion * b
end
local function put(account, open, request, value, deadline)
  local old = redis.call('HGET', open, request)
  local before = old and tonumber(string.match(old, '^%d+')) or 0
  redis.call('HSET', open, request, string.format('%d %d', value, deadline))
  redis.call('HINCRBY', account, 'open', value - before)
end
"""

# ARGV: request, prompt, completion, deadline.  KEYS: accounts, each followed by its open ones.
_RESERVE = (
    _AMOUNT
    + """
for i = 1, #KEYS, 2 do
  local known = redis.call('HMGET', KEYS[i], 'limit', 'spent', 'open', 'words')
  if not known[1] then return 'unknown' end
  local wanted = amount(KEYS[i], ARGV[2], ARGV[3])
  if tonumber(known[2]) + tonumber(known[3] or 0) + wanted > tonumber(known[1]) then
    return known[4]
  end
end
for i = 1, #KEYS, 2 do
  put(KEYS[i], KEYS[i + 1], ARGV[1], amount(KEYS[i], ARGV[2], ARGV[3]), ARGV[4])
end
return ''
"""
)

_SETTLE = (
    _AMOUNT
    + """
for i = 1, #KEYS, 2 do
  -- What the ledger has already settled must not be counted twice.
  if redis.call('HEXISTS', KEYS[i + 1], ARGV[1]) == 1 then
    put(KEYS[i], KEYS[i + 1], ARGV[1], amount(KEYS[i], ARGV[2], ARGV[3]), 0)
  end
end
"""
)

# KEYS: account, open.  ARGV: limit, spent, prompt, completion, words, now, settled requests...
_SYNC = """
redis.call('HSET', KEYS[1], 'limit', ARGV[1], 'spent', ARGV[2], 'prompt_nano', ARGV[3],
           'completion_nano', ARGV[4], 'words', ARGV[5])
for i = 7, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
local sum = 0
local open = redis.call('HGETALL', KEYS[2])
for i = 1, #open, 2 do
  local value, deadline = string.match(open[i + 1], '^(%d+) (%d+)$')
  if tonumber(deadline) > 0 and tonumber(deadline) < tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[2], open[i])
  else
    sum = sum + tonumber(value)
  end
end
redis.call('HSET', KEYS[1], 'open', string.format('%d', sum))
"""


class ValkeyQuota:
    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    async def reserve(
        self, project: str, key_id: str, request_id: str, most: Tokens, deadline_seconds: float
    ) -> Refusal | None:
        accounts = await self._accounts(project, key_id)
        if not accounts:
            return None
        arguments = [request_id, most.prompt, most.completion, round(deadline_seconds)]
        said = await self._valkey.script(_RESERVE, _with_open(accounts), arguments)
        words = said.decode()
        if words == "unknown":
            raise Unavailable("a budget is not known to Valkey yet")
        return Refusal(words) if words else None

    async def settle(self, project: str, key_id: str, request_id: str, took: Tokens) -> None:
        if accounts := await self._accounts(project, key_id):
            arguments = [request_id, took.prompt, took.completion]
            await self._valkey.script(_SETTLE, _with_open(accounts), arguments)

    async def _accounts(self, project: str, key_id: str) -> list[str]:
        """Keys of the accounts that a request counts for."""
        index = await self._valkey.fields(_key(project, "index"), ["known", f"key:{key_id}", "all"])
        if index[0] is None:
            raise Unavailable("budgets are not known to Valkey yet")
        return [_key(project, id_) for part in index[1:] if part for id_ in part.decode().split()]

    async def open_requests(self, project: str) -> list[str]:
        found: set[str] = set()
        for id_ in await self._known(project):
            found.update(await self._valkey.names(f"{_key(project, id_)}:open"))
        return sorted(found)

    async def _known(self, project: str) -> list[str]:
        [ids] = await self._valkey.fields(_key(project, "index"), ["known"])
        return [] if ids is None else ids.decode().split()

    async def tell(
        self, project: str, known: Accounts, settled: Sequence[str], now_seconds: float
    ) -> None:
        before = await self._known(project)
        # Accounts before the index that names them.
        for each in known.accounts:
            arguments = [
                each.limit, each.spent, each.prompt_nano, each.completion_nano, each.words,
                round(now_seconds), *settled,
            ]  # fmt: skip
            await self._valkey.script(_SYNC, _with_open([_key(project, each.id)]), arguments)
        index = {f"key:{key}": " ".join(ids) for key, ids in known.of_keys.items()}
        ids = [each.id for each in known.accounts]
        index |= {"known": " ".join(ids), "all": " ".join(known.of_all)}
        await self._valkey.replace(_key(project, "index"), index)
        for gone in set(before) - set(ids):
            await self._valkey.drop(*_with_open([_key(project, gone)]))


def _key(project: str, name: str) -> str:
    # The braces keep a project's keys on one node of a cluster.
    return f"quota:{{{project}}}:{name}"


def _with_open(accounts: Sequence[str]) -> list[str]:
    return [key for account in accounts for key in (account, f"{account}:open")]
