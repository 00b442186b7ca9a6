"""Runs, prunes, pins and crashes at once, one step at a time in an order that a seed decides.

The book is a real PostgreSQL and the operations are the product's.  The object store is a fake: a
dictionary that knows when a put or a removal was asked for and when it arrives, which no real one
tells.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets
from ratchet.adapters.postgres.runs import PostgresAudit
from ratchet.core.access import Caller, Role
from ratchet.core.data import Message, Row
from ratchet.core.errors import Conflict, NotFound
from ratchet.core.retention import adapter_uri, artifact_of, files_of
from ratchet.kit.clock import ManualClock
from ratchet.kit.digest import digest_bytes
from ratchet.operations import artifacts
from ratchet.operations.artifacts import ArtifactParts, look, pin, prune, unpin
from ratchet.operations.datasets import DatasetParts, freeze
from ratchet.operations.shelf import Shelf, shelve
from ratchet.ports import StoredFile
from tests.stored import NOW, with_database

PROJECTS = ("p1", "p2")
BY = Caller(name="ana", role=Role.ADMIN)
# One in so many steps, somewhere among them: as many crashes in every world.
CRASH_EVERY = 100
POLICY = {"promoted": 1, "age_seconds": 60.0, "grace_seconds": 60.0}
# Of two actors one may be asleep while the other does a hundred things.
SPEEDS = (1.0, 1.0, 0.1, 0.02)
ACTORS_MAX = 5


class Crashed(BaseException):
    """The process is gone; nothing of it is cleaned up."""


class Steps:
    """Lets one actor go on at a time, up to its next step."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._waiting: dict[asyncio.Task[None], asyncio.Future[bool]] = {}
        self.taken = self.crashes = 0
        self._crash_at = chance.randrange(CRASH_EVERY)

    async def step(self) -> None:
        """Every effect is one; a crash may come before it."""
        task = asyncio.current_task()
        assert task is not None
        turn = asyncio.get_running_loop().create_future()
        self._waiting[task] = turn
        if await turn:
            self.crashes += 1
            raise Crashed

    async def go_on(self, task: asyncio.Task[None]) -> None:
        """One step of one actor, until it waits again or has ended."""
        while task not in self._waiting and not task.done():
            await asyncio.sleep(0)
        turn = self._waiting.pop(task, None)
        if turn is None:
            return
        place = self.taken % CRASH_EVERY
        self.taken += 1
        turn.set_result(place == self._crash_at)
        if place == CRASH_EVERY - 1:
            self._crash_at = self._chance.randrange(CRASH_EVERY)
        while task not in self._waiting and not task.done():
            await asyncio.sleep(0.0)


class Objects:
    """A fake object store in memory."""

    def __init__(self, steps: Steps, clock: ManualClock) -> None:
        self._steps, self._clock = steps, clock
        self.stored: dict[str, tuple[bytes, datetime]] = {}

    async def put(self, key: str, content: bytes) -> bool:
        await self._steps.step()
        if key in self.stored:
            return False
        self.stored[key] = (content, self._clock.now())
        return True

    async def get(self, key: str) -> bytes:
        await self._steps.step()
        if key not in self.stored:
            raise NotFound(key)
        return self.stored[key][0]

    async def has(self, path: str) -> bool:
        await self._steps.step()
        return path in self.stored

    async def files(self) -> list[StoredFile]:
        await self._steps.step()
        return [
            StoredFile(path=path, bytes=len(content), modified_at=at)
            for path, (content, at) in self.stored.items()
        ]

    async def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            # Each arrives by itself, perhaps long after it was asked for.
            await self._steps.step()
            self.stored.pop(path, None)


class SteppedBook(PostgresArtifacts):
    """The real book; each of its transactions is a step."""

    def __init__(self, database: Database, steps: Steps) -> None:
        super().__init__(database)
        for name in ("reserve", "hold", "adopt", "lineage", "listing", "bury", "revive",
                     "condemn", "forget", "pin", "unpin", "pins"):  # fmt: skip
            setattr(self, name, _stepped(getattr(self, name), steps))


def _stepped(call: Callable[..., Awaitable[Any]], steps: Steps) -> Callable[..., Awaitable[Any]]:
    async def stepped(*arguments: Any) -> Any:
        await steps.step()
        return await call(*arguments)

    return stepped


@dataclass
class World:
    """Everything in it, and what it promised to keep."""

    database: Database
    seed: int
    chance: random.Random = field(init=False)
    crashed_runs: list[str] = field(default_factory=list)
    numbers: int = 0
    prunes: int = 0
    removed: int = 0
    checked: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.clock = ManualClock(NOW)
        self.steps = Steps(self.chance)
        self.objects = Objects(self.steps, self.clock)
        self.book = SteppedBook(self.database, self.steps)
        shelf = Shelf(self.book, self.objects, self.clock)
        self.datasets = DatasetParts(PostgresDatasets(self.database), shelf, self.clock)
        audit = PostgresAudit(self.database)
        self.parts = ArtifactParts(self.book, self.objects, self.datasets, audit, self.clock)
        # Looks from outside: takes no step and never crashes.
        self.truth = PostgresArtifacts(self.database)

    async def sql(self, text: str, *values: object) -> list[Any]:
        async with self.database.transaction() as connection:
            cursor = await connection.execute(text, values)
            return await cursor.fetchall() if cursor.description is not None else []

    async def prepare(self) -> None:
        for project in PROJECTS:
            await self.sql(
                "INSERT INTO projects (name, served_name, base, engine, retention, created_at)"
                " VALUES (%s, 'm', 'b', 'builtin', %s, %s)",
                project, Jsonb(POLICY), NOW,
            )  # fmt: skip

    async def train(self) -> None:
        """One run, from its first file to its end."""
        project = self.chance.choice(PROJECTS)
        self.numbers += 1
        run, number = f"run_{self.numbers}", self.numbers
        now = self.clock.now()
        try:
            await self.sql(
                "INSERT INTO runs (id, project, state, trigger, spec, source_dir, idempotency_key,"
                " created_at, started_at) VALUES (%s, %s, 'running', '{}', '{}', '', %s, %s, %s)",
                run, project, run, now, now,
            )  # fmt: skip
        except Conflict:
            return  # another one of this project is going on
        try:
            await self._make(project, run, number)
        except Crashed:
            # The control plane comes back, sees that the run cannot go on, and ends it.
            self.crashed_runs.append(run)
            raise

    async def _make(self, project: str, run: str, number: int) -> None:
        # Few kinds of rows, so that runs share packs, whole datasets and suites.
        few = self.chance.randrange(4)
        rows = [_row(f"question {n}", f"answer {n % 3}") for n in range(few, few + 6)]
        dataset = await freeze(run, project, rows, {"kind": few}, self.datasets)
        suite = f"suites/{digest_bytes(str(few).encode())}.json"
        places, _ = await shelve(run, {suite: lambda: suite.encode()}, self.datasets.shelf)
        detail = {"dataset": dataset.id, "uri": dataset.uri, "code": {},
                  "suites": [{"uri": places[suite]}]}  # fmt: skip
        await self._stage(run, "freeze", detail)
        adapter = adapter_uri(run, digest_bytes(run.encode()))
        for file in files_of(adapter):
            await self.objects.put(file, file.encode())
        await self._stage(run, "train", {"adapter_uri": adapter})
        await self.objects.put(f"reports/{run}.json", run.encode())
        await self._stage(run, "evaluate", {"reports": f"reports/{run}.json"})
        await self.steps.step()
        if self.chance.random() < 0.3:
            await self._end(run, "gated")
            return
        version = f"v_{number}"
        await self.sql(
            "INSERT INTO versions (id, project, base, adapter_uri, adapter_digest, dataset_id,"
            " recipe, report, run_id, created_at)"
            " VALUES (%s, %s, 'b', %s, 'd', %s, '{}', '{}', %s, %s)",
            version, project, adapter, dataset.id, run, self.clock.now(),
        )  # fmt: skip
        await self.steps.step()
        await self._release(project, run, version)

    async def _release(self, project: str, run: str, version: str) -> None:
        [known] = await self.sql("SELECT baseline_version FROM projects WHERE name = %s", project)
        baseline = known["baseline_version"] or version
        now = self.clock.now()
        await self.sql(
            "INSERT INTO releases (id, run_id, project, candidate, baseline, stage, plan, evidence,"
            " created_at, updated_at) VALUES (%s, %s, %s, %s, %s, 'canary', '{}', '{}', %s, %s)",
            f"rel_{version}", run, project, version, baseline, now, now,
        )  # fmt: skip
        await self.steps.step()
        promoted = self.chance.random() < 0.6
        async with self.database.transaction() as tx:
            await tx.execute(
                "UPDATE releases SET stage = %s, updated_at = %s WHERE id = %s",
                ("promoted" if promoted else "rolled_back", self.clock.now(), f"rel_{version}"),
            )
            if promoted:
                await tx.execute(
                    "UPDATE projects SET baseline_version = %s WHERE name = %s", (version, project)
                )
        await self.steps.step()
        await self._end(run, "promoted" if promoted else "rolled_back")

    async def _stage(self, run: str, name: str, detail: dict[str, Any]) -> None:
        await self.steps.step()
        await self.sql(
            "INSERT INTO stages (run_id, name, state, detail) VALUES (%s, %s, 'done', %s)",
            run, name, Jsonb(detail),
        )  # fmt: skip

    async def _end(self, run: str, state: str) -> None:
        await self.sql(
            "UPDATE runs SET state = %s, ended_at = %s WHERE id = %s", state, self.clock.now(), run
        )

    async def prune(self) -> None:
        found = await prune(self.parts, "test")
        self.prunes += 1
        self.removed += len(found.removed)

    async def pin(self) -> None:
        versions = await self.sql("SELECT id, project FROM versions ORDER BY id")
        pins = await self.truth.pins()
        for version in self.chance.sample(versions, min(1, len(versions))):
            try:
                if pins and self.chance.random() < 0.5:
                    await unpin(pins[0].project, pins[0].subject, BY, self.parts)
                else:
                    await pin(version["project"], version["id"], "why", False, BY, self.parts)
            except (Conflict, NotFound):
                return  # it was pruned before, or is not pinned any more

    async def tend(self) -> None:
        """What a control plane that is back does for runs that it finds broken off."""
        for run in self.crashed_runs:
            found = await self.sql("SELECT stage FROM releases WHERE run_id = %s", run)
            if found and found[0]["stage"] == "canary":
                await self.sql("UPDATE releases SET stage = 'rolled_back' WHERE run_id = %s", run)
            await self.sql(
                "UPDATE runs SET state = 'failed', ended_at = %s WHERE id = %s"
                " AND state = 'running'", self.clock.now(), run,
            )  # fmt: skip
        self.crashed_runs.clear()

    async def check(self) -> None:
        """Everything that something keeps can be read, to its last file."""
        lineage = await self.truth.lineage()
        in_use = set(lineage.serving) | {pin.subject for pin in lineage.pins}
        for run in lineage.runs:
            if run.version in in_use or not run.is_over:
                for uri in run.uris:
                    for file in files_of(uri):
                        assert file in self.objects.stored, (run, file)
                        self.checked += 1


ACTORS = ("train", "train", "train", "prune", "prune", "pin")


async def live(world: World, steps: int) -> None:
    """Let so many steps be taken, by up to five actors at once."""
    await world.prepare()
    tasks: dict[asyncio.Task[None], float] = {}
    while world.steps.taken < steps:
        if len(tasks) < ACTORS_MAX:
            actor = getattr(world, world.chance.choice(ACTORS))
            tasks[asyncio.create_task(_alive(actor()))] = world.chance.choice(SPEEDS)
        [task] = world.chance.choices(list(tasks), list(tasks.values()))
        await world.steps.go_on(task)
        if task.done():
            task.result()
            del tasks[task]
            await world.check()
        if world.chance.random() < 0.1:
            world.clock.advance(timedelta(seconds=world.chance.expovariate(1 / 200)))
        if world.chance.random() < 0.05:
            await world.tend()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await world.check()


async def _alive(work: Awaitable[None]) -> None:
    try:
        await work
    except Crashed:
        return


async def settle(world: World) -> None:
    """Everybody is done, time goes by, and two prunes find what is left."""
    world.steps.step = _at_once  # type: ignore[method-assign]
    await world.tend()
    await world.sql("UPDATE runs SET state = 'failed', ended_at = %s WHERE state = 'running'", NOW)
    await world.sql("UPDATE releases SET stage = 'rolled_back' WHERE stage = 'canary'")
    for _ in range(3):
        world.clock.advance(timedelta(days=2))
        await prune(world.parts, "test")
    await world.check()


def one_world(database_url: str, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that lived for so long, with nothing lost and nothing left over at its end."""
    monkeypatch.setattr(artifacts, "BORN_SECONDS", 10.0)
    worlds = []

    async def scenario(database: Database) -> None:
        world = World(database, seed)
        worlds.append(world)
        await live(world, steps)
        await settle(world)
        assert await orphans(world) == set()

    with_database(database_url, scenario)
    return worlds[0]


async def _at_once() -> None:
    return


async def orphans(world: World) -> set[str]:
    """Files in the store that nothing keeps."""
    _, _, found = await look(world.parts)
    return {path for path in world.objects.stored if artifact_of(path) not in found.kept}


def _row(prompt: str, answer: str) -> Row:
    return Row((Message("user", prompt), Message("assistant", answer)), json.dumps(prompt))
