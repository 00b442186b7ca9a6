"""The book of artifacts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.errors import Conflict, NotFound
from ratchet.core.retention import (
    Artifact,
    ArtifactState,
    Lineage,
    MadeBy,
    Pin,
    Retention,
    generation_of,
    key_of,
    kind_of,
)

# More parameters than this in one statement take longer than many statements.
BATCH = 10_000


class PostgresArtifacts:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def reserve(self, run_id: str, keys: Sequence[str], now: datetime) -> Mapping[str, str]:
        uris = {}
        async with self._db.transaction() as tx:
            # In one order, so that two who reserve the same keys wait for each other only once.
            for key in sorted(set(keys)):
                found = await fetch(tx, "take_artifact", key=key) or await fetch(
                    tx, "new_artifact", key=key, kind=kind_of(key), now=now
                )
                uris[key] = str(found[0]["uri"])
            await fetch(tx, "lease_artifacts", uris=list(uris.values()), run_id=run_id)
        return uris

    async def hold(self, run_id: str, uris: Sequence[str]) -> bool:
        async with self._db.transaction() as tx:
            try:
                await _hold(tx, uris)
            except Conflict:
                return False
            await fetch(tx, "lease_artifacts", uris=list(uris), run_id=run_id)
        return True

    async def adopt(self, files: Mapping[str, tuple[int, datetime]]) -> None:
        uris = list(files)
        for begin in range(0, len(uris), BATCH):
            some = uris[begin : begin + BATCH]
            await self._db.run(
                "adopt_artifacts",
                uris=some,
                keys=[key_of(uri) for uri in some],
                generations=[generation_of(uri) for uri in some],
                kinds=[kind_of(uri) for uri in some],
                sizes=[files[uri][0] for uri in some],
                births=[files[uri][1] for uri in some],
            )

    async def lineage(self) -> Lineage:
        async with self._db.transaction() as tx:
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            projects = await fetch(tx, "retention_of_projects")
            serving = await fetch(tx, "lineage_of_serving")
            runs = await fetch(tx, "lineage_of_runs")
            pins = await fetch(tx, "list_pins")
            leases = await fetch(tx, "lineage_of_leases")
        return Lineage(
            policies={row["name"]: Retention(**row["retention"]) for row in projects},
            serving={row["version"]: row["because"] for row in reversed(serving)},
            runs=[_made_by(row) for row in runs],
            pins=[Pin(**row) for row in pins],
            leases={row["uri"]: row["run_id"] for row in leases},
        )

    async def listing(self) -> list[Artifact]:
        return [
            Artifact(**{**row, "state": ArtifactState(row["state"])})
            for row in await self._db.all("list_artifacts")
        ]

    async def bury(self, seen: Sequence[Artifact], not_before: datetime) -> list[str]:
        return await self._decide("bury_artifacts", seen, not_before=not_before)

    async def condemn(self, seen: Sequence[Artifact], now: datetime) -> list[str]:
        return await self._decide("condemn_artifacts", seen, now=now)

    async def _decide(self, name: str, seen: Sequence[Artifact], **more: datetime) -> list[str]:
        found: list[str] = []
        for begin in range(0, len(seen), BATCH):
            some = seen[begin : begin + BATCH]
            rows = await self._db.all(
                name, uris=[a.uri for a in some], epochs=[a.epoch for a in some], **more
            )
            found += [row["uri"] for row in rows]
        return found

    async def revive(self, uris: Sequence[str]) -> None:
        await self._db.run("revive_artifacts", uris=list(uris))

    async def forget(self, uris: Sequence[str]) -> None:
        await self._db.run("forget_artifacts", uris=list(uris))
        await self._db.run("drop_old_leases")

    async def pin(self, pin: Pin, uris: Sequence[str], now: datetime) -> None:
        async with self._db.transaction() as tx:
            await _hold(tx, uris)
            await fetch(
                tx,
                "pin_artifact",
                project=pin.project,
                subject=pin.subject,
                because=pin.because,
                who=pin.who,
                legal=pin.legal,
                now=now,
            )

    async def unpin(self, project: str, subject: str) -> None:
        if not await self._db.all("unpin_artifact", project=project, subject=subject):
            raise NotFound(f"{subject} is not pinned")

    async def pins(self) -> list[Pin]:
        return [Pin(**row) for row in await self._db.all("list_pins")]


async def _hold(tx: Connection, uris: Sequence[str]) -> None:
    """Raises `Conflict`, and the transaction is undone, unless all of them are there to stay."""
    held = {row["uri"] for row in await fetch(tx, "hold_artifacts", uris=list(uris))}
    if missing := sorted(set(uris) - held):
        raise Conflict(f"{missing[0]} was taken away, or is going just now")


def _made_by(row: Row) -> MadeBy:
    uris = [row["manifest"], row["adapter_uri"], row["trained"], row["reports"]]
    uris += [*row["packs"], *row["suites"], *row["code"]]
    return MadeBy(
        run=row["run"],
        project=row["project"],
        is_over=row["is_over"],
        ended_at=row["ended_at"],
        version=row["version"],
        promoted_at=row["promoted_at"],
        dataset=row["dataset_id"] or row["frozen"],
        uris=tuple(dict.fromkeys(uri for uri in uris if uri)),
    )
