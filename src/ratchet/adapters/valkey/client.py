"""Valkey or Redis: what may be lost.  Slow is as good as away."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ratchet.core.errors import Unavailable
from ratchet.kit.breaker import Breaker
from ratchet.kit.secret import Secret

_Answer = TypeVar("_Answer")


class Valkey:
    """One server, by `redis://host:6379/0`, `rediss://…` or `unix:///path`.

    Every call has a time limit; after some failures in a row nobody is made to wait for a while.
    """

    def __init__(self, url: Secret, *, call_seconds: float = 0.05) -> None:
        self._client: Any = redis.Redis.from_url(
            url.reveal(),
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
        )
        self.breaker = Breaker()
        self._scripts: dict[str, Any] = {}

    async def get(self, key: str) -> bytes | None:
        """Raises `Unavailable`."""
        found: bytes | None = await self._call(self._client.get(key))
        return found

    async def put(self, key: str, value: bytes, seconds: int) -> None:
        """Keep a value for so long.  Raises `Unavailable`."""
        await self._call(self._client.set(key, value, ex=seconds))

    async def script(self, text: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        """Run a script, as one step.  Raises `Unavailable`."""
        made = self._scripts.get(text)
        if made is None:
            made = self._scripts[text] = self._client.register_script(text)
        return await self._call(made(keys=keys, args=arguments))

    async def fields(self, key: str, names: Sequence[str]) -> list[bytes | None]:
        """Raises `Unavailable`."""
        found: list[bytes | None] = await self._call(self._client.hmget(key, names))
        return found

    async def names(self, key: str) -> list[str]:
        """Of a hash.  Raises `Unavailable`."""
        found: list[bytes] = await self._call(self._client.hkeys(key))
        return [name.decode() for name in found]

    async def drop(self, *keys: str) -> None:
        """Raises `Unavailable`."""
        await self._call(self._client.delete(*keys))

    async def replace(self, key: str, fields: Mapping[str, str]) -> None:
        """A hash, whole.  Raises `Unavailable`."""
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(key)
        pipe.hset(key, mapping=dict(fields))
        await self._call(pipe.execute())

    async def _call(self, call: Awaitable[_Answer]) -> _Answer:
        if not self.breaker.allows():
            if hasattr(call, "close"):
                call.close()
            raise Unavailable("Valkey: not asked, because it failed just now")
        try:
            answer = await call
        except (RedisError, OSError, TimeoutError) as error:
            self.breaker.failed()
            raise Unavailable(f"Valkey does not answer: {error}") from error
        self.breaker.succeeded()
        return answer

    async def close(self) -> None:
        await self._client.aclose()
