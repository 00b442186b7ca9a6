"""A mirror of runs and versions in MLflow, through its light client.

Nothing is ever read back: our tables are the truth, MLflow is where the team looks.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet.core.artifact import Version
from ratchet.core.errors import NotFound, Unavailable
from ratchet.ports import ObjectStore, Run

METRICS_PER_CALL = 500  # MLflow's own bound is 1,000
ALIAS = "candidate"


class NoTracker:
    """Where no tracker is configured: says so and does nothing."""

    async def mirror(self, version: Version, run: Run, losses: Sequence[tuple[int, float]]) -> str:
        return ""


class MlflowTracker:
    """Mirrors to one MLflow server, by version: a run with the version's tag is not made twice."""

    def __init__(self, uri: str, objects: ObjectStore) -> None:
        self._uri = uri
        self._objects = objects

    async def mirror(self, version: Version, run: Run, losses: Sequence[tuple[int, float]]) -> str:
        adapter = {}
        if version.adapter_uri is not None:
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                try:
                    adapter[name] = await self._objects.get(f"{version.adapter_uri}/{name}")
                except NotFound:
                    continue
        return await asyncio.to_thread(self._mirror, version, run, losses, adapter)

    def _mirror(
        self,
        version: Version,
        run: Run,
        losses: Sequence[tuple[int, float]],
        adapter: dict[str, bytes],
    ) -> str:
        # The client takes a second to import; only who mirrors pays for it.
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._uri)
        try:
            return _Mirror(client, version, run).write(losses, adapter)
        except (MlflowException, OSError) as error:
            raise Unavailable(f"MLflow at {self._uri}: {error}") from error


class _Mirror:
    """One version on its way into MLflow."""

    def __init__(self, client: Any, version: Version, run: Run) -> None:
        self._client, self._version, self._run = client, version, run

    def write(self, losses: Sequence[tuple[int, float]], adapter: dict[str, bytes]) -> str:
        experiment = self._experiment()
        run_id = self._find(experiment)
        if run_id is None:
            tags = {"ratchet.version": self._version.id, "ratchet.run": self._run.id}
            created = self._client.create_run(experiment, tags=tags, run_name=self._version.id)
            run_id = created.info.run_id
            self._log(run_id, losses)
            self._upload(run_id, adapter)
            self._client.set_terminated(run_id)
        self._register(run_id)
        return f"{experiment}/{run_id}"

    def _experiment(self) -> str:
        name = f"ratchet/{self._version.project}"
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _find(self, experiment: str) -> str | None:
        # Only a finished mirror counts: one that was cut short is made anew beside it.
        wanted = f"tags.`ratchet.version` = '{self._version.id}' and status = 'FINISHED'"
        runs = self._client.search_runs([experiment], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _log(self, run_id: str, losses: Sequence[tuple[int, float]]) -> None:
        from mlflow.entities import Metric, Param

        recipe = asdict(self._run.spec.train)
        lora = recipe.pop("lora")
        recipe |= {f"lora.{key}": value for key, value in lora.items()}
        recipe |= {"base": self._version.base, "dataset": self._version.dataset_id}
        params = [Param(key, str(value)) for key, value in recipe.items()]
        points = [Metric("loss", loss, 0, step) for step, loss in losses]
        metrics = self._version.report.get("metrics", {})
        assert isinstance(metrics, dict)
        points += [Metric(key, float(value), 0, 0) for key, value in metrics.items()]
        self._client.log_batch(run_id, params=params)
        for start in range(0, len(points), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])

    def _upload(self, run_id: str, adapter: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in adapter.items():
                path = Path(folder) / name
                path.write_bytes(content)
                self._client.log_artifact(run_id, str(path), "adapter")
            report = Path(folder) / "report.json"
            report.write_text(json.dumps(self._version.report, indent=2))
            self._client.log_artifact(run_id, str(report))

    def _register(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        name = self._version.project
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._client.search_model_versions(f"name = '{name}'")
        mine = next((v for v in known if v.run_id == run_id), None)
        if mine is None:
            mine = self._client.create_model_version(name, f"runs:/{run_id}/adapter", run_id)
        self._client.set_registered_model_alias(name, ALIAS, mine.version)
