"""A bell that PostgreSQL rings when there is something to do."""

from __future__ import annotations

import asyncio

import psycopg
import structlog

PAUSE_SECONDS = 1.0

log = structlog.get_logger()


class PostgresBell:
    """Rings at every notice of one channel: one connection for all who wait.

    A bell only saves time.  Whoever waits looks again after a while in any case.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._url, self._channel = url, channel
        self._rung = asyncio.Condition()
        self.count = 0
        """How often it has rung.  Take it before a look, so that no ring in between is missed."""

    async def listen(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._hear()
            except psycopg.Error as error:
                log.warning("bell_waits", channel=self._channel, because=str(error))
                await asyncio.sleep(PAUSE_SECONDS)

    async def _hear(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {self._channel}")
            # What was told while nobody listened.
            await self._ring()
            async for _ in connection.notifies():
                await self._ring()

    async def _ring(self) -> None:
        async with self._rung:
            self.count += 1
            self._rung.notify_all()

    async def wait(self, heard: int, seconds: float) -> None:
        """Return when it has rung since `heard`, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._rung:
                await self._rung.wait_for(lambda: self.count > heard)
        except TimeoutError:
            return
