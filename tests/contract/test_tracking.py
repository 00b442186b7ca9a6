"""What a tracker missed while it was away is told when it is back, once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ratchet.adapters.mlflow import shown_at
from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.runs import PostgresRuns, PostgresStages
from ratchet.core.artifact import RunId
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.run import StageName, StageState
from ratchet.kit.clock import ManualClock
from ratchet.operations.tracking import TrackingParts, catch_up
from ratchet.ports import Tracked
from ratchet.settings import Wandb, wandb_of
from tests.stored import NOW, a_live_release, with_database


class Tracker:
    """A fake that is away until it is told to be there; the real one is in tests/deep."""

    def __init__(self) -> None:
        self.away = True
        self.told: list[Tracked] = []

    async def mirror(self, tracked: Tracked) -> str:
        if self.away:
            raise Unavailable("connection refused")
        self.told.append(tracked)
        return "http://tracker/1"


def test_a_link_into_mlflow_tells_no_password() -> None:
    at = "#/experiments/7/runs/r"

    assert shown_at("http://ml:5000/", "7", "r") == f"http://ml:5000/{at}"
    assert shown_at("https://u:secret@ml/x", "7", "r") == f"https://ml/x/{at}"
    assert shown_at("databricks", "7", "r") == at


def test_versions_are_mirrored_to_one_tracker() -> None:
    offline = {"WANDB_PROJECT": "colours", "WANDB_DIR": "/tmp/w"}

    assert wandb_of({"MLFLOW_TRACKING_URI": "http://x"}) is None
    assert wandb_of(offline) == Wandb(
        project="colours", folder=Path("/tmp/w"), python=sys.executable
    )
    with pytest.raises(Rejected, match="MLFLOW_TRACKING_URI and WANDB_PROJECT are both set"):
        wandb_of({**offline, "MLFLOW_TRACKING_URI": "http://x"})


def test_what_was_missed_is_told_once(database_url: str, tmp_path: Path) -> None:
    tracker = Tracker()

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        stages, run = PostgresStages(database), RunId("run_1")
        await stages.begin(run, StageName.TRAIN, NOW)
        detail = {"losses": [[1, 0.5]], "machine": {"peak_memory_mb": 512}}
        await stages.end(run, StageName.TRAIN, StageState.DONE, detail, "", NOW)
        registry = PostgresRegistry(database)
        objects = ObstoreObjects(f"file://{tmp_path}")
        parts = TrackingParts(
            runs=PostgresRuns(database), stages=stages, registry=registry, objects=objects,
            tracker=tracker, console_url="http://console", clock=ManualClock(NOW),
        )  # fmt: skip

        assert await catch_up(parts) == (0, "connection refused")
        [waiting] = await registry.not_mirrored(9)
        await objects.put(f"{waiting.adapter_uri}/adapter_config.json", b"{}")
        tracker.away = False
        assert await catch_up(parts) == (1, "")
        assert await catch_up(parts) == (0, "")
        [told] = tracker.told
        assert (told.version, told.losses) == (waiting, [(1, 0.5)])
        assert told.params["lora.rank"] == "16"
        assert told.metrics == {"system/peak_memory_mb": 512.0}
        assert told.adapter == {"adapter_config.json": b"{}"}
        assert told.url == "http://console/runs/run_1"

    with_database(database_url, scenario)
