"""The keeper with real engine processes, against a control plane that forgets and fails."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.entrypoints.local.keepers import Keeper
from ratchet.entrypoints.local.state import Ports, open_state
from tests import tiny

PATIENCE_SECONDS = 60.0


@dataclass
class Plane:
    """The control plane's side, in memory: one engine, and what was reported of it."""

    base: str
    failures: int = 0
    """Reports that are lost before one arrives."""
    state: str = "stopped"
    port: int | None = None
    restarts: int = 0
    because: str = ""
    wanted: bool = True
    reports: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"engines": [self.engine()], "attempts": []})
        report = json.loads(request.content)
        if report["state"] == "ready" and self.failures:
            self.failures -= 1
            return httpx.Response(503)
        self.reports.append(report["state"])
        self.state, self.port = report["state"], report["port"]
        self.restarts += report["restarts"]
        self.because = report["because"]
        return httpx.Response(204)

    def engine(self) -> dict[str, Any]:
        return {
            "version": "v_1", "wanted": self.wanted, "kind": "builtin", "served_name": "m",
            "base": self.base, "adapter_uri": None, "drill": None,
            "state": self.state, "port": self.port,
        }  # fmt: skip


async def tend_until(keeper: Keeper, done: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        try:
            await keeper.tend()
        except httpx.HTTPError:
            continue
        await asyncio.sleep(0.05)


def with_keeper(tmp_path: Path, plane: Plane, scenario: Any) -> None:
    async def run() -> None:
        transport = httpx.MockTransport(plane.answer)
        client = httpx.AsyncClient(transport=transport, base_url="http://plane")
        state = open_state(tmp_path / "state")
        keeper = Keeper(state, Ports(), client, "python", dict(os.environ))
        try:
            await scenario(keeper)
        finally:
            for child in keeper.children():
                await child.stop()
            await client.aclose()

    asyncio.run(run())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"path:{tiny.build(tmp_path_factory.mktemp('model'))}"


def test_a_report_that_was_lost_is_made_again(base: str, tmp_path: Path) -> None:
    plane = Plane(base, failures=2)

    async def scenario(keeper: Keeper) -> None:
        await tend_until(keeper, lambda: plane.state == "ready")
        assert plane.failures == 0
        assert plane.reports == ["starting", "ready"]

        # A control plane that was set back, to a copy of its database for example.
        plane.state, plane.port = "starting", None
        await tend_until(keeper, lambda: plane.state == "ready")

        plane.wanted = False
        await tend_until(keeper, lambda: plane.state == "stopped")
        assert not keeper.engines

    with_keeper(tmp_path, plane, scenario)


def test_an_engine_that_cannot_start_is_counted_each_time(tmp_path: Path) -> None:
    plane = Plane(f"path:{tmp_path}/nowhere")

    async def scenario(keeper: Keeper) -> None:
        await tend_until(keeper, lambda: plane.restarts >= 2)
        assert plane.state == "down"
        assert "no config.json" in plane.because

    with_keeper(tmp_path, plane, scenario)
