"""Connections to PostgreSQL: one bounded pool, statements by name, errors in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiosql
import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ratchet.core.errors import Conflict, Rejected, Unavailable

log = structlog.get_logger()

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Row]

# Statement name -> SQL with %(name)s parameters.
STATEMENTS: Mapping[str, str] = {
    name: getattr(queries, name).sql
    for queries in [
        aiosql.from_path(Path(__file__).parent / "queries", "psycopg", mandatory_parameters=False)
    ]
    for name in queries.available_queries
    if not name.endswith("_cursor")
}

CONNECT_SECONDS = 5.0
# A query of ours takes milliseconds; one that takes this long waits for a lock that is stuck.
STATEMENT_SECONDS = 15


_BREAKS_A_RULE = (psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)
_Value = TypeVar("_Value")


class Database:
    """A pool.  Statements are prepared on the server after a few uses, as psycopg does."""

    def __init__(self, url: str, *, size_max: int = 8) -> None:
        self.url = url
        self._pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size_max,
            open=False,
            timeout=CONNECT_SECONDS,
            reconnect_timeout=30.0,
            check=AsyncConnectionPool.check_connection,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "options": f"-c statement_timeout={STATEMENT_SECONDS}s",
            },
            connection_class=psycopg.AsyncConnection[Row],
        )

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction.  Translates psycopg's errors: lost server `Unavailable`, lost race
        `Conflict`, a value that no column holds `Rejected`."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error
        except (psycopg.DataError, UnicodeEncodeError, *_BREAKS_A_RULE) as error:
            # Text with a NUL or half a character, a number out of range: no column holds it.
            raise Rejected(f"PostgreSQL cannot hold this value: {error}") from error
        except psycopg.errors.UniqueViolation as error:
            raise Conflict(str(error.diag.message_detail or error)) from error

    async def all(self, name: str, /, **parameters: object) -> list[Row]:
        """All rows of one named statement, in a transaction of its own."""
        async with self.transaction() as connection:
            return await fetch(connection, name, **parameters)

    async def one(self, name: str, /, **parameters: object) -> Row | None:
        rows = await self.all(name, **parameters)
        return rows[0] if rows else None

    async def run(self, name: str, /, **parameters: object) -> None:
        async with self.transaction() as connection:
            await connection.execute(STATEMENTS[name], parameters)


async def keep_all(
    values: Sequence[_Value], keep: Callable[[Sequence[_Value]], Awaitable[set[str]]]
) -> set[str]:
    """Keep values together, or one by one when one of them cannot be kept: who reports it would
    report it for ever, and nothing after it.  Answers the ids that were new."""
    if not values:
        return set()
    try:
        return await keep(values)
    except Rejected as error:
        if len(values) == 1:
            log.error("cannot_be_kept", because=str(error)[:200])
            return set()
    found: set[str] = set()
    for value in values:
        found |= await keep_all([value], keep)
    return found


async def fetch(connection: Connection, name: str, /, **parameters: object) -> list[Row]:
    """Rows of one named statement inside a transaction; none for statements that give none."""
    cursor = await connection.execute(STATEMENTS[name], parameters)
    return await cursor.fetchall() if cursor.description is not None else []


async def wait_for_notice(url: str, channel: str, seconds: float) -> None:
    """Return at the next notice on a channel, or after `seconds`."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        await connection.execute(f"LISTEN {channel}")
        async for _ in connection.notifies(timeout=seconds, stop_after=1):
            return
