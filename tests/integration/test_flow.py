"""Durable flows on a real PostgreSQL: recorded once, patient, woken, taken over from the dead."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from ratchet.adapters.postgres.migrate import sqlalchemy_url
from ratchet.core.errors import Rejected, Unavailable
from ratchet.durable.flow import Durable, Flow, FlowFunction
from ratchet.entrypoints.local.postgres import STOP_SIGNAL, Postgres
from ratchet.entrypoints.local.privileges import become_unprivileged

PATIENCE_SECONDS = 20.0


class Dropped(BaseException):
    """An end of a flow that its engine records nowhere."""


class Story:
    """A flow of three steps; counts how often each ran, and can be made to stumble."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.away = 0
        self.drops = 0
        self.pause_seconds = 30.0
        self.home: asyncio.AbstractEventLoop | None = None

    async def tell(self, flow: Flow, name: str) -> str:
        first = await flow.step("first", self.step, name)
        while not await flow.receive(self.pause_seconds):
            continue
        return str(await flow.step("second", self.step, first + "+"))

    async def fail(self, flow: Flow) -> None:
        await flow.step("failing", self.reject)

    async def drop(self, flow: Flow, name: str) -> None:
        first = await flow.step("first", self.step, name)
        if self.drops:
            self.drops -= 1
            raise Dropped
        await flow.step("second", self.step, first + "+")

    async def step(self, name: str) -> str:
        assert asyncio.get_running_loop() is self.home
        if self.away > 0:
            self.away -= 1
            raise Unavailable("not just now")
        self.ran[name] += 1
        return name

    async def did(self, name: str) -> bool:
        return self.ran[name] == 1

    async def reject(self) -> None:
        raise Rejected("this cannot be done")


async def until(look: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await look():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def live(url: str, executor: str, story: Story, life: Callable[[Durable], Awaitable[None]]) -> None:
    """One life of a server process: a loop of its own, ended with whatever flows still wait."""

    async def run() -> None:
        story.home = asyncio.get_running_loop()
        flows: dict[str, FlowFunction] = {
            "tell": story.tell,
            "fail": story.fail,
            "drop": story.drop,
        }
        durable = Durable(sqlalchemy_url(url), executor, flows)
        durable.launch()
        try:
            await life(durable)
        finally:
            durable.close()

    asyncio.run(run())


def test_a_flow_runs_once_waits_out_what_is_away_and_goes_on_when_woken(database_url: str) -> None:
    story = Story()
    story.away = 2

    async def life(durable: Durable) -> None:
        await durable.start("tell", "key", "a")
        await durable.start("tell", "key", "a")
        await until(lambda: story.did("a"), "the first step")
        await durable.wake("key")
        await until(lambda: story.did("a+"), "the second step, once woken")
        await durable.wake("nobody")

    live(database_url, "exe_1", story, life)

    assert story.ran == {"a": 1, "a+": 1}


def test_a_flow_that_ended_badly_says_why(database_url: str) -> None:
    async def life(durable: Durable) -> None:
        async def ended() -> bool:
            return "cannot be done" in (await durable.start("fail", "key") or "")

        await until(ended, "the reason")

    live(database_url, "exe_1", Story(), life)


def test_the_living_go_on_where_the_dead_stopped(database_url: str) -> None:
    story = Story()

    async def first(durable: Durable) -> None:
        await durable.start("tell", "key", "a")
        await until(lambda: story.did("a"), "the first step")

    async def second(durable: Durable) -> None:
        assert await durable.recover(["exe_dead"]) == 1
        await durable.wake("key")
        await until(lambda: story.did("a+"), "the second step")
        assert await durable.recover(["exe_dead"]) == 0

    live(database_url, "exe_dead", story, first)
    live(database_url, "exe_living", story, second)

    # The recorded answer was used: the first step did not run again.
    assert story.ran == {"a": 1, "a+": 1}


def test_a_flow_that_ended_without_a_record_is_taken_up_by_its_living_process(
    database_url: str,
) -> None:
    story = Story()
    story.drops = 1

    async def life(durable: Durable) -> None:
        await durable.start("tell", "other", "b")
        await durable.start("drop", "key", "a")
        await until(lambda: story.did("a"), "the first step")
        await until(lambda: story.did("b"), "the first step of one that goes on")
        await asyncio.sleep(0.2)
        assert await durable.take_up_dropped() == [], "it might just begin"
        assert await durable.take_up_dropped() == ["key"]
        await until(lambda: story.did("a+"), "the second step")
        assert await durable.take_up_dropped() == []
        assert await durable.take_up_dropped() == []

    live(database_url, "exe_1", story, life)

    assert story.ran == {"a": 1, "a+": 1, "b": 1}


def test_a_database_that_is_killed_and_comes_back_ends_no_flow() -> None:
    """A wait may end just while nobody listens at the database's socket."""
    story = Story()
    story.pause_seconds = 0.5
    root = Path(tempfile.mkdtemp(prefix="flow-"))  # a short path: sockets must fit in 107 bytes
    root.chmod(0o711)
    postgres = Postgres(root / "data", root / "s")
    postgres.initialise()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*postgres.command(), "-c", "fsync=off"],
            cwd="/",
            preexec_fn=become_unprivileged(None),
            stderr=subprocess.DEVNULL,
        )

    running = start()

    async def ready() -> bool:
        return postgres.is_ready()

    async def life(durable: Durable) -> None:
        nonlocal running
        await durable.start("tell", "key", "a")
        await until(lambda: story.did("a"), "the first step")
        running.kill()
        running.wait()
        await asyncio.sleep(4 * story.pause_seconds)
        running = start()
        await until(ready, "the database is back")
        await asyncio.sleep(1.0)
        await durable.wake("key")
        await until(lambda: story.did("a+"), "the second step, once woken")

    try:
        asyncio.run(_until_ready(ready))
        live(postgres.url.reveal(), "exe_1", story, life)
    finally:
        running.send_signal(STOP_SIGNAL)
        running.wait()
        shutil.rmtree(root)

    assert story.ran == {"a": 1, "a+": 1}


async def _until_ready(ready: Callable[[], Awaitable[bool]]) -> None:
    await until(ready, "the database is there")
