"""The mirror, against a real MLflow server of its own environment (build/mlflow)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ratchet.adapters.mlflow import ALIAS, MlflowTracker
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.errors import Unavailable
from ratchet.ports import Tracked
from tests.mlflow_server import mlflow_server

pytestmark = pytest.mark.deep

VERSION = Version(
    id=VersionId("v_1"),
    project="p",
    base="package:x",
    adapter_uri="adapters/a",
    adapter_digest="a",
    dataset_id="ds_1",
    recipe={},
    report={"metrics": {"s.accuracy": 0.8}},
    run_id=RunId("run_1"),
)
LOSSES = [(step, 1.0 / step) for step in range(1, 1200)]
TRACKED = Tracked(
    version=VERSION, params={"lora.rank": "16"}, metrics={"s.accuracy": 0.8}, losses=LOSSES,
    adapter={"adapter_config.json": b"{}"}, url="http://console/runs/run_1",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running.url


def test_a_version_is_mirrored_once_with_its_run_metrics_artifacts_and_alias(server: str) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker(server)

    first = asyncio.run(tracker.mirror(TRACKED))
    again = asyncio.run(tracker.mirror(TRACKED))

    client = MlflowClient(server)
    run_id = first.rpartition("/")[2]
    assert first == again
    run = client.get_run(run_id)
    assert run.data.metrics["s.accuracy"] == 0.8
    assert run.data.params["lora.rank"] == "16"
    assert run.data.tags["ratchet.url"] == TRACKED.url
    assert len(client.get_metric_history(run_id, "loss")) == 1199
    assert [f.path for f in client.list_artifacts(run_id, "adapter")] == [
        "adapter/adapter_config.json"
    ]
    assert client.get_model_version_by_alias("p", ALIAS).run_id == run_id
    assert len(client.search_model_versions("name = 'p'")) == 1


def test_a_tracker_that_is_away_is_unavailable_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = MlflowTracker("http://127.0.0.1:1")

    with pytest.raises(Unavailable, match="MLflow"):
        asyncio.run(tracker.mirror(TRACKED))
