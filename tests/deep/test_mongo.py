"""Events in MongoDB.  The server is SecantusDB, which speaks MongoDB's protocol over WiredTiger: no
mongod can be had from a package."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient

from ratchet.adapters.mongo import MongoEvents
from ratchet.adapters.postgres.pool import Database
from ratchet.core.errors import Unavailable
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent
from ratchet.kit.secret import Secret
from ratchet.operations.turns import erase, tell_followers
from tests.contract.test_turns import ANA, parts_of, said, turn
from tests.stored import NOW, a_live_release, with_database

pytestmark = pytest.mark.deep

SERVER = Path("build/mongo/bin/secantusd-py").absolute()


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and process."""
    if not SERVER.exists():
        pytest.skip("build/mongo does not exist: make test-deep makes it")
    port = free_port()
    process = subprocess.Popen(
        [SERVER, "--host", "127.0.0.1", "--port", str(port), "--storage-path", tmp_path / "m"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    yield f"mongodb://127.0.0.1:{port}/events", process
    process.kill()
    process.wait(10)


async def everything(url: str) -> dict[str, list[str]]:
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(url)
    database = client.get_default_database()
    found = {
        name: sorted([str(each["_id"]) async for each in database[name].find()])
        for name in ("turns", "feedback")
    }
    await client.close()
    return found


async def told(parts: object, seconds: float = 30.0) -> None:
    """Tell until nothing is left, waiting for a server that is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if not await tell_followers(parts):  # type: ignore[arg-type]
                return
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def test_turns_feedback_and_erasures_are_copied(
    mongo: tuple[str, subprocess.Popen[bytes]], database_url: str
) -> None:
    url, _ = mongo

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        sink = MongoEvents(Secret(url))
        parts = parts_of(database, sink)
        await parts.turns.add([turn("r1"), turn("r2", subject="other")], NOW)
        await parts.turns.add_feedback([said("f1", request="r1"), said("f2", request="r2")], NOW)
        await told(parts)
        assert await everything(url) == {"turns": ["r1", "r2"], "feedback": ["f1", "f2"]}

        # Killed after it was sent and before it was noted: sent again, there once.
        await parts.events.move(sink.name, 0, NOW)
        await told(parts)
        assert await everything(url) == {"turns": ["r1", "r2"], "feedback": ["f1", "f2"]}

        await erase("p", "jane", "she asked", ANA, parts)
        await told(parts)
        assert await everything(url) == {"turns": ["r2"], "feedback": ["f2"]}
        await sink.close()

    with_database(database_url, scenario)


def test_a_server_that_is_away_is_unavailable(
    mongo: tuple[str, subprocess.Popen[bytes]], database_url: str
) -> None:
    url, process = mongo
    process.kill()
    process.wait()

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        parts = parts_of(database, MongoEvents(Secret(url)))
        await parts.turns.add([turn("r1")], NOW)
        with pytest.raises(Unavailable, match="MongoDB"):
            await tell_followers(parts)
        assert len(await parts.events.after("mongodb", 10)) == 1

    with_database(database_url, scenario)
