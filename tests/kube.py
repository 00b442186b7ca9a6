"""The fake Kubernetes API server (tests/kube_api.py) from the outside, and a kubelet of ours."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from lightkube import AsyncClient, KubeConfig

from ratchet.kit.network import free_port

PYTHON = Path("build/kube/bin/python").absolute()
SERVER = Path(__file__).parent / "kube_api.py"


class Kube:
    """The fake API server from the outside."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, **wish: Any) -> Any:
        answer = httpx.post(f"{self.url}/_control", json=wish, timeout=10.0)
        answer.raise_for_status()
        return answer.json()

    def fault(self, on: str, code: int, reason: str, count: int = 1, **more: Any) -> None:
        self.ask(do="fault", on=on, code=code, reason=reason, count=count, **more)

    def objects(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(do="objects", kind=kind)
        return found

    def put(self, kind: str, value: dict[str, Any]) -> None:
        self.ask(do="put", kind=kind, object=value)

    def client(self) -> AsyncClient:
        return AsyncClient(KubeConfig.from_dict(self.config()), namespace="ratchet")

    def config(self) -> dict[str, Any]:
        """As kubectl has it."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }


@contextmanager
def kube_api() -> Iterator[Kube]:
    """A running server.  Skips where its libraries could not be installed."""
    if not PYTHON.exists():
        pytest.skip("build/kube does not exist: make test-deep makes it")
    port = free_port()
    process = subprocess.Popen([PYTHON, str(SERVER), str(port)])
    found = Kube(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            found.objects("jobs")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    try:
        yield found
    finally:
        process.terminate()
        process.wait(10)


def pod_of(job: dict[str, Any], **status: Any) -> dict[str, Any]:
    meta = job["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name']}-x",
            "namespace": meta["namespace"],
            "labels": meta["labels"],
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": job["spec"]["template"]["spec"],
        "status": status,
    }


def fail(kube: Kube, job: dict[str, Any], reason: str = "PodFailurePolicy") -> None:
    """As the Job controller would."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Failed", "status": "True", "reason": reason, "lastTransitionTime": now}
    kube.put("jobs", {**job, "status": {"conditions": [condition], "failed": 1}})


class Kubelet(threading.Thread):
    """Runs what a Job's container says as a process here, and tells how it ended."""

    def __init__(self, kube: Kube, root: Path, token: Path) -> None:
        super().__init__(daemon=True)
        self._kube, self._root, self._token = kube, root, token
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.taken: set[str] = set()
        self.has_room: Callable[[dict[str, Any]], bool] = lambda _: True
        """Whether there is a machine for a Job; without one it is pending."""
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            with contextlib.suppress(httpx.HTTPError):
                self._tend()
            time.sleep(0.2)
        for process in self.running.values():
            process.kill()

    def _tend(self) -> None:
        jobs = {job["metadata"]["name"]: job for job in self._kube.objects("jobs")}
        for name, job in jobs.items():
            ended = any(c["status"] == "True" for c in job["status"].get("conditions", ()))
            if name not in self.running and not ended and self.has_room(job):
                self.running[name] = self._start(job)
        for name, process in list(self.running.items()):
            if name not in jobs:
                process.terminate()
            if process.poll() is None or name not in jobs:
                continue
            del self.running[name]
            self._end(jobs[name], process.returncode)

    def _start(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        [container] = job["spec"]["template"]["spec"]["containers"]
        places = {
            "/var/run/ratchet/token": str(self._token),
            "/work": str(self._root / "work"),
            "/cache": str(self._root / "cache"),
        }
        arguments = [places.get(each, each) for each in container["args"]]
        command = [sys.executable, *container["command"][1:], *arguments]
        with (self._root / "pods.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._kube.put("pods", pod_of(job, phase="Running"))
        return process

    def _end(self, job: dict[str, Any], code: int) -> None:
        name = job["metadata"]["name"]
        terminated = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error"}
        status: dict[str, Any] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "worker", "image": "i", "imageID": "", "ready": False,
                    "restartCount": 0, "state": {"terminated": terminated},
                }
            ],
        }  # fmt: skip
        if name in self.taken:
            status["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
            ]
        self._kube.put("pods", pod_of(job, **status))
        if code or name in self.taken:
            fail(self._kube, job)
        else:
            condition = {"type": "Complete", "status": "True"}
            self._kube.put("jobs", {**job, "status": {"conditions": [condition]}})

    def take_machine(self) -> str:
        """As a cloud does: notice, and then the end."""
        name, process = next(iter(self.running.items()))
        self.taken.add(name)
        process.send_signal(signal.SIGTERM)
        return name
