"""Dataset versions on a real PostgreSQL and a real folder: kept once, told apart, safe to kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets
from ratchet.core.data import Message, Row
from ratchet.core.errors import NotFound
from ratchet.kit.clock import ManualClock
from ratchet.operations.datasets import DatasetParts, compare, freeze
from ratchet.operations.shelf import Shelf
from tests.stored import NOW, a_live_release, with_database

RECIPE = {"files": ["a.jsonl"]}


def rows(*answers: str) -> list[Row]:
    return [
        Row((Message("user", f"question {number}"), Message("assistant", answer)), f"a:{number}")
        for number, answer in enumerate(answers)
    ]


async def parts_in(database: Database, folder: Path) -> DatasetParts:
    await a_live_release(database)
    clock = ManualClock(NOW)
    objects = ObstoreObjects(f"file://{folder}")
    shelf = Shelf(PostgresArtifacts(database), objects, clock)
    return DatasetParts(PostgresDatasets(database), shelf, clock)


def test_the_same_rows_are_one_version_and_a_changed_row_costs_itself(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(database: Database) -> None:
        parts = await parts_in(database, tmp_path)
        answers = [f"answer {number} of many" for number in range(2_000)]

        first = await freeze("run_1", "p", rows(*answers), RECIPE, parts)
        again = await freeze("run_1", "p", rows(*answers), RECIPE, parts)
        answers[700] = "another"
        second = await freeze("run_1", "p", rows(*answers), RECIPE, parts)

        assert replace(again, created_at=None) == first
        assert second.bytes_new < first.bytes_new / 20
        listed = await parts.datasets.listing("p", 9)
        assert {each.id for each in listed} == {first.id, second.id}
        found = await compare(first.id, second.id, parts)
        assert [(old.answer, new.answer) for old, new in found.changed] == [
            ("answer 700 of many", "another")
        ]
        assert (found.added, found.removed, found.kept) == ((), (), 1_999)
        with pytest.raises(NotFound, match="ds_x is not known"):
            await compare(first.id, "ds_x", parts)

    with_database(database_url, scenario)


class Killed(Exception):
    pass


class DiesAfter(ObstoreObjects):
    """A real folder, and a process that is killed after so many writes."""

    def __init__(self, url: str, writes: int) -> None:
        super().__init__(url)
        self._left = writes

    async def put(self, key: str, content: bytes) -> bool:
        if not self._left:
            raise Killed
        self._left -= 1
        return await super().put(key, content)


@pytest.mark.parametrize("writes", [0, 1])
def test_a_kill_on_the_way_leaves_nothing_that_is_named(
    database_url: str, tmp_path: Path, writes: int
) -> None:
    async def scenario(database: Database) -> None:
        parts = await parts_in(database, tmp_path)
        objects = DiesAfter(f"file://{tmp_path}", writes)
        dying = replace(parts, shelf=replace(parts.shelf, objects=objects))

        with pytest.raises(Killed):
            await freeze("run_1", "p", rows("a", "b"), RECIPE, dying)

        assert await parts.datasets.listing("p", 9) == []
        kept = await freeze("run_1", "p", rows("a", "b"), RECIPE, parts)
        assert (await compare(kept.id, kept.id, parts)).kept == 2

    with_database(database_url, scenario)


def test_a_version_does_not_build_upon_one_whose_bytes_are_gone(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(database: Database) -> None:
        parts = await parts_in(database, tmp_path)
        await freeze("run_1", "p", rows("a", "b"), RECIPE, parts)
        for pack in (tmp_path / "rows").iterdir():
            pack.unlink()

        kept = await freeze("run_1", "p", rows("a", "b", "c"), RECIPE, parts)

        assert (await compare(kept.id, kept.id, parts)).kept == 3

    with_database(database_url, scenario)


def test_a_dataset_in_one_piece_is_of_an_older_ratchet(database_url: str, tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        parts = await parts_in(database, tmp_path)
        new = await freeze("run_1", "p", rows("a"), RECIPE, parts)
        old = replace(new, id="ds_old", uri="datasets/ds_old.json", packs=None)
        await parts.shelf.book.adopt({old.uri: (9, NOW)})
        await parts.datasets.add(old, NOW)

        with pytest.raises(NotFound, match="stored by an older Ratchet"):
            await compare("ds_old", new.id, parts)

    with_database(database_url, scenario)


def test_a_run_keeps_the_place_that_it_reads(database_url: str, tmp_path: Path) -> None:
    """Also when another run, which ended since, has stored the same version elsewhere."""

    async def scenario(database: Database) -> None:
        parts = await parts_in(database, tmp_path)
        mine = await freeze("run_1", "p", rows("a", "b"), RECIPE, parts)
        detail = Jsonb({"dataset": mine.id, "uri": mine.uri, "code": {}, "suites": []})
        async with database.transaction() as tx:
            await tx.execute(
                "INSERT INTO stages (run_id, name, state, detail)"
                " VALUES ('run_1', 'freeze', 'done', %s)"
                " ON CONFLICT (run_id, name) DO UPDATE SET detail = EXCLUDED.detail",
                (detail,),
            )
        elsewhere = {key: f"{key}.g2" for key in (mine.uri, *(mine.packs or ()))}
        await parts.shelf.book.adopt({uri: (1, NOW) for uri in elsewhere.values()})
        packs = tuple(elsewhere[pack] for pack in mine.packs or ())
        theirs = replace(mine, uri=elsewhere[mine.uri], packs=packs)
        await parts.datasets.add(theirs, NOW)

        [run] = (await parts.shelf.book.lineage()).runs
        assert {mine.uri, *(mine.packs or ())} <= set(run.uris)
        assert not set(run.uris) & set(elsewhere.values())

    with_database(database_url, scenario)
