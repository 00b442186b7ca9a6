"""A real MLflow server for tests, of an environment of its own (build/mlflow)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from ratchet.kit.network import free_port

MLFLOW = Path("build/mlflow/bin/mlflow").absolute()
START_SECONDS_MAX = 120.0


class MlflowServer:
    """It may be killed, and comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, port = folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/db",
            "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if self._process is not None:
            # It has workers of its own, which would go on.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/health", timeout=1.0).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.3)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def runs(self) -> int:
        answer = httpx.post(
            f"{self.url}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": ["0", "1", "2"], "max_results": 100},
            timeout=30.0,
        )
        return len(answer.json().get("runs", []))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A running server.  Skips where MLflow could not be installed."""
    if not MLFLOW.exists():
        pytest.skip("build/mlflow does not exist: make test-deep makes it")
    server = MlflowServer(folder)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()
