"""Dataset versions, model versions and cached evaluations, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import suite_report_from_json, suite_report_to_json
from ratchet.adapters.postgres.pool import Database, Row, fetch
from ratchet.adapters.postgres.runs import version_of_row, version_row
from ratchet.core.artifact import Version, VersionId
from ratchet.core.errors import Conflict, NotFound
from ratchet.core.gates import SuiteReport
from ratchet.ports import StoredDataset


class PostgresDatasets:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, dataset: StoredDataset, now: datetime) -> None:
        places = [dataset.uri, *(dataset.packs or ())]
        async with self._db.transaction() as tx:
            live = await fetch(tx, "lock_live", uris=places)
            if missing := sorted(set(places) - {row["uri"] for row in live}):
                raise Conflict(f"{missing[0]} of dataset {dataset.id} was taken away: try again")
            await fetch(
                tx,
                "add_dataset",
                id=dataset.id,
                project=dataset.project,
                uri=dataset.uri,
                rows=dataset.rows,
                recipe=Jsonb(dict(dataset.recipe)),
                bytes_new=dataset.bytes_new,
                packs=None if dataset.packs is None else list(dataset.packs),
                now=now,
            )
            if dataset.packs is not None:
                packs = list(dataset.packs)
                await fetch(tx, "add_dataset_place", uri=dataset.uri, packs=packs)

    async def get(self, dataset_id: str) -> StoredDataset:
        row = await self._db.one("get_dataset", id=dataset_id)
        if row is None:
            raise NotFound(f"dataset {dataset_id} is not known here")
        return _dataset(row)

    async def listing(self, project: str, limit: int) -> list[StoredDataset]:
        rows = await self._db.all("list_datasets", project=project, limit=limit)
        return [_dataset(row) for row in rows]

    async def without_packs(self) -> list[StoredDataset]:
        return [_dataset(row) for row in await self._db.all("datasets_without_packs")]

    async def put_packs(self, dataset_id: str, packs: Sequence[str]) -> None:
        await self._db.run("put_packs", id=dataset_id, packs=list(packs))


def _dataset(row: Row) -> StoredDataset:
    packs = row.pop("packs")
    return StoredDataset(**row, packs=None if packs is None else tuple(packs))


class PostgresRegistry:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, version: Version, now: datetime) -> None:
        await self._db.run("add_version", **version_row(version), now=now)

    async def get(self, version_id: VersionId) -> Version:
        row = await self._db.one("get_version", id=version_id)
        if row is None:
            raise NotFound(f"version {version_id} is not known here")
        return version_of_row(row)

    async def put_mirror(self, version_id: VersionId, link: str, now: datetime) -> None:
        await self._db.run("put_mirror", id=version_id, link=link, now=now)

    async def not_mirrored(self, limit: int) -> list[Version]:
        return [version_of_row(row) for row in await self._db.all("not_mirrored", limit=limit)]

    async def evaluation(self, weights: str, suite: str) -> SuiteReport | None:
        row = await self._db.one("get_evaluation", weights=weights, suite=suite)
        return None if row is None else suite_report_from_json(row["report"])

    async def put_evaluation(self, weights: str, report: SuiteReport, now: datetime) -> None:
        await self._db.run(
            "put_evaluation",
            weights=weights,
            suite=report.digest,
            report=Jsonb(suite_report_to_json(report)),
            now=now,
        )
