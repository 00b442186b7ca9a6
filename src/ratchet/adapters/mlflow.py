"""A mirror of runs and versions in MLflow, through its light client.

Nothing is ever read back: our tables are the truth, MLflow is where the team looks.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ratchet.core.errors import Unavailable
from ratchet.ports import Tracked

METRICS_PER_CALL = 500  # MLflow's own bound is 1,000
ALIAS = "candidate"


class MlflowTracker:
    """Mirrors to one MLflow server, by version: a run with the version's tag is not made twice."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    async def mirror(self, tracked: Tracked) -> str:
        return await asyncio.to_thread(self._mirror, tracked)

    def _mirror(self, tracked: Tracked) -> str:
        # The client takes a second to import; only who mirrors pays for it.
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._uri)
        try:
            experiment, run_id = _Mirror(client, tracked).write()
        except (MlflowException, OSError) as error:
            raise Unavailable(f"MLflow at {self._uri}: {error}") from error
        return shown_at(self._uri, experiment, run_id)


def shown_at(uri: str, experiment: str, run_id: str) -> str:
    """Where MLflow's own pages show a run: links are read by people, so without a password."""
    path = f"#/experiments/{experiment}/runs/{run_id}"
    parts = urlsplit(uri)
    if parts.hostname is None:
        return path
    where = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return f"{where.rstrip('/')}/{path}"


class _Mirror:
    """One version on its way into MLflow."""

    def __init__(self, client: Any, tracked: Tracked) -> None:
        self._client, self._tracked, self._version = client, tracked, tracked.version

    def write(self) -> tuple[str, str]:
        experiment = self._experiment()
        run_id = self._find(experiment)
        if run_id is None:
            tags = {
                "ratchet.version": self._version.id,
                "ratchet.run": self._version.run_id or "",
                "ratchet.url": self._tracked.url,
            }
            created = self._client.create_run(experiment, tags=tags, run_name=self._version.id)
            run_id = created.info.run_id
            self._log(run_id)
            self._upload(run_id)
            self._client.set_terminated(run_id)
        self._register(run_id)
        return experiment, run_id

    def _experiment(self) -> str:
        name = f"ratchet/{self._version.project}"
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _find(self, experiment: str) -> str | None:
        # Only a finished mirror counts: one that was cut short is made anew beside it.
        wanted = f"tags.`ratchet.version` = '{self._version.id}' and status = 'FINISHED'"
        runs = self._client.search_runs([experiment], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _log(self, run_id: str) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(key, value) for key, value in self._tracked.params.items()]
        points = [Metric("loss", loss, 0, step) for step, loss in self._tracked.losses]
        points += [Metric(key, value, 0, 0) for key, value in self._tracked.metrics.items()]
        self._client.log_batch(run_id, params=params)
        for start in range(0, len(points), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])

    def _upload(self, run_id: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self._tracked.adapter.items():
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
