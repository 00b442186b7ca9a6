"""Dataset versions, model versions and cached evaluations, in PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import suite_report_from_json, suite_report_to_json
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.runs import version_of_row, version_row
from ratchet.core.artifact import Version, VersionId
from ratchet.core.errors import NotFound
from ratchet.core.gates import SuiteReport
from ratchet.ports import StoredDataset


class PostgresDatasets:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, dataset: StoredDataset, now: datetime) -> None:
        await self._db.run(
            "add_dataset",
            id=dataset.id,
            project=dataset.project,
            uri=dataset.uri,
            rows=dataset.rows,
            recipe=Jsonb(dict(dataset.recipe)),
            bytes_new=dataset.bytes_new,
            now=now,
        )

    async def get(self, dataset_id: str) -> StoredDataset:
        row = await self._db.one("get_dataset", id=dataset_id)
        if row is None:
            raise NotFound(f"dataset {dataset_id} is not known here")
        return StoredDataset(**row)

    async def listing(self, project: str, limit: int) -> list[StoredDataset]:
        rows = await self._db.all("list_datasets", project=project, limit=limit)
        return [StoredDataset(**row) for row in rows]


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
