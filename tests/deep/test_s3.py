"""Artifacts on a real S3: SeaweedFS, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets
from ratchet.adapters.postgres.runs import PostgresAudit
from ratchet.core.data import Message, Row
from ratchet.core.errors import NotFound, Unavailable
from ratchet.kit.clock import ManualClock
from ratchet.operations import artifacts
from ratchet.operations.artifacts import ArtifactParts, prune
from ratchet.operations.datasets import DatasetParts, compare, freeze
from ratchet.operations.shelf import Shelf
from tests.e2e.stack import Stack, Traffic
from tests.stored import NOW, a_live_release, with_database
from tests.weed import BUCKET, Weed, weed

pytestmark = pytest.mark.deep

URL = f"s3://{BUCKET}/team"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weed]:
    """A server with one bucket, and the environment that leads to it."""
    with weed(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def test_an_object_is_created_once_read_back_and_missed_by_name(s3: Weed) -> None:
    async def scenario() -> None:
        store = ObstoreObjects(URL)
        assert await store.put("a/b", b"first")
        assert not await store.put("a/b", b"second")
        assert await store.get("a/b") == b"first"
        assert (await store.has("a/b"), await store.has("a/c")) == (True, False)
        with pytest.raises(NotFound, match="a/c"):
            await store.get("a/c")
        [file] = await store.files()
        assert (file.path, file.bytes) == ("a/b", 5)

    asyncio.run(scenario())


def test_of_many_who_create_one_object_one_does(s3: Weed) -> None:
    async def scenario() -> None:
        store = ObstoreObjects(URL)
        for name in range(10):
            contents = [bytes([number]) for number in range(16)]
            made = await asyncio.gather(*(store.put(f"a/{name}", each) for each in contents))
            assert sum(made) == 1
            assert await store.get(f"a/{name}") == contents[made.index(True)]

    asyncio.run(scenario())


def test_what_is_removed_is_gone_and_removed_again_without_a_word(s3: Weed) -> None:
    async def scenario() -> None:
        store = ObstoreObjects(URL)
        names = [f"rows/{number}" for number in range(300)]
        await asyncio.gather(*(store.put(name, b"x") for name in names))
        assert len(await store.files()) == 300
        await store.remove(names)
        await store.remove([*names, "rows/never"])
        assert await store.files() == []

    asyncio.run(scenario())


def test_a_bucket_that_is_away_is_unavailable(s3: Weed) -> None:
    store = ObstoreObjects(URL)
    s3.kill()

    for call in (store.get("a/b"), store.put("a/b", b""), store.has("a/b"), store.files()):
        with pytest.raises(Unavailable, match="s3://"):
            asyncio.run(call)


def test_a_prune_on_s3_takes_what_nobody_needs_and_a_version_comes_back(
    s3: Weed, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "BORN_SECONDS", -1.0)

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        clock, store = ManualClock(NOW + timedelta(days=365)), ObstoreObjects(URL)
        book = PostgresArtifacts(database)
        datasets = DatasetParts(PostgresDatasets(database), Shelf(book, store, clock), clock)
        parts = ArtifactParts(book, store, datasets, PostgresAudit(database), clock)
        made = await freeze("run_1", "p", rows(), {"files": []}, datasets)
        await store.put("adapters/run_0/abc/adapter_config.json", b"{}")

        await prune(parts, "test")
        clock.advance(timedelta(days=2))
        first = await prune(parts, "test")
        assert first.removed == ["adapters/run_0/abc"], "the run that is going on keeps its rows"

        await finish(database, "run_1")
        await prune(parts, "test")
        clock.advance(timedelta(days=2))
        second = await prune(parts, "test")
        assert set(second.removed) == {made.uri, *(made.packs or ())}
        assert s3.listing() == []

        await again(database)
        back = await freeze("run_2", "p", rows(), {"files": []}, datasets)
        assert back.id == made.id
        assert (back.packs or ("",))[0].endswith(".g2"), "where a late removal cannot meet it"
        assert (await compare(back.id, back.id, datasets)).kept == 50

    with_database(database_url, scenario)


def rows() -> list[Row]:
    return [
        Row((Message("user", f"q {n}"), Message("assistant", f"a {n}")), f"a:{n}")
        for n in range(50)
    ]


async def finish(database: Database, run: str) -> None:
    async with database.transaction() as tx:
        await tx.execute("UPDATE releases SET stage = 'rolled_back' WHERE run_id = %s", (run,))
        await tx.execute(
            "UPDATE runs SET state = 'failed', ended_at = created_at WHERE id = %s", (run,)
        )


async def again(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            "INSERT INTO runs (id, project, state, trigger, spec, source_dir, idempotency_key,"
            " created_at) SELECT 'run_2', project, 'running', trigger, spec, source_dir, 'again',"
            " created_at FROM runs WHERE id = 'run_1'"
        )


def test_a_run_keeps_everything_in_the_bucket_and_is_promoted(s3: Weed, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", env={"RATCHET_OBJECTS_URL": URL})
    stack.root.mkdir()
    stack.prepare()
    stack.start()
    try:
        with Traffic(stack.gateway):
            run = stack.end_of(stack.start_run("good"))
    finally:
        stack.stop()

    assert run["state"] == "promoted", run["because"]
    for folder in ("datasets", "rows", "suites", f"adapters/{run['id']}", "reports"):
        assert any(key.startswith(f"team/{folder}/") for key in s3.listing()), folder
    assert not (stack.state.root / "objects").exists()
