"""Workers on this machine: within what they asked for, and no longer than they may."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.placement.market import Player
from ratchet.entrypoints.local.cloud import SimulatedCloud
from ratchet.entrypoints.local.keepers import Keeper
from ratchet.entrypoints.local.state import Ports, open_state
from ratchet.kit.clock import SystemClock
from ratchet.kit.network import free_port

GIBIBYTE = 1 << 30


class Plane:
    """The control plane: one attempt, whose real worker waits for a desk that is not there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.told: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.told.append(json.loads(request.content))
            return httpx.Response(204)
        attempt = {
            "id": "att_1",
            "run": "run_1",
            "stage": "train",
            "state": "wanted",
            "place": self.place.to_json(),
        }
        return httpx.Response(200, json={"engines": [], "attempts": [] if self.told else [attempt]})


def with_plane(tmp_path: Path, place: Place, scenario: Any) -> Plane:
    plane = Plane(place)

    async def run() -> None:
        transport = httpx.MockTransport(plane.answer)
        client = httpx.AsyncClient(transport=transport, base_url="http://plane")
        state = open_state(tmp_path / "state")
        keeper = Keeper(state, Ports(grpc=free_port()), client, "python", dict(os.environ))
        try:
            await scenario(keeper)
        finally:
            for child in keeper.children():
                await child.stop()
            await client.aclose()

    asyncio.run(run())
    return plane


def test_a_worker_has_the_cores_and_the_memory_that_it_asked_for(tmp_path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        await keeper.tend()
        [child] = keeper.workers.values()
        assert child.process is not None
        pid = child.process.pid
        assert len(os.sched_getaffinity(pid)) == 1
        limits = Path(f"/proc/{pid}/limits").read_text()
        [data] = [line for line in limits.splitlines() if line.startswith("Max data size")]
        assert data.split()[3] == str(4 * GIBIBYTE)

    with_plane(tmp_path, Place(cpus=1.0, memory_bytes=4 * GIBIBYTE), scenario)


def test_a_worker_that_takes_too_long_is_told_of_and_stopped(tmp_path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        deadline = time.monotonic() + 30.0
        await keeper.tend()
        [child] = keeper.workers.values()
        while keeper.workers:
            assert time.monotonic() < deadline
            await keeper.tend()
            await asyncio.sleep(0.1)
        assert child.exit_code() is not None

    plane = with_plane(tmp_path, Place(deadline_seconds=0.5), scenario)

    assert plane.told[0] == {"how": "timed_out", "because": "train.deadline passed"}


def test_a_worker_for_a_cluster_is_not_started_here(tmp_path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        await keeper.tend()
        assert not keeper.workers

    with_plane(tmp_path, Place(executor=Executor.KUBERNETES), scenario)


def cloud(up: list[bool], notice_seconds: float) -> SimulatedCloud:
    """A zone that is seen once a second."""
    player = Player(
        names=("a",),
        series=(tuple(up),),
        tick_seconds=1.0,
        began_at=SystemClock().now(),
    )
    return SimulatedCloud(player, notice_seconds)


def test_a_worker_on_spot_is_taken_away_with_its_zone(tmp_path: Path) -> None:
    codes = []

    async def scenario(keeper: Keeper) -> None:
        keeper.cloud = cloud([True, True] + [False] * 60, notice_seconds=0.0)
        await keeper.tend()
        [child] = keeper.workers.values()
        while keeper.workers:
            await asyncio.sleep(0.1)
            await keeper.tend()
        codes.append(child.exit_code())

    plane = with_plane(tmp_path, Place(capacity=Capacity.SPOT, zone="a"), scenario)

    assert codes == [-9]
    assert [told["how"] for told in plane.told] == ["lost"]


def test_a_worker_is_not_started_where_spot_is_gone(tmp_path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        keeper.cloud = cloud([False] * 60, notice_seconds=5.0)
        await keeper.tend()
        assert not keeper.workers

    plane = with_plane(tmp_path, Place(capacity=Capacity.SPOT, zone="a"), scenario)

    assert [told["how"] for told in plane.told] == ["preempted"]
    assert "gone before the worker began" in plane.told[0]["because"]


def test_what_is_not_on_spot_is_left_alone_by_the_cloud(tmp_path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        keeper.cloud = cloud([False] * 60, notice_seconds=0.0)
        await keeper.tend()
        await keeper.tend()
        [child] = keeper.workers.values()
        assert child.exit_code() is None

    with_plane(tmp_path, Place(), scenario)
