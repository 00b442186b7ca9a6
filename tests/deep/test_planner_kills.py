"""The planner is killed at random, again and again, in simulation: real operations over real
tables, with machines, spot capacity and the clock played.  Whatever is killed, nothing is placed
twice, nothing is late, and it costs the same."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ratchet.adapters.postgres.placements import PostgresPlacements
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.artifact import RunId
from ratchet.core.place import Capacity
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.forecast import sample
from ratchet.core.placement.market import Player
from ratchet.core.run import AttemptState, RunState, StageName
from ratchet.kit.clock import ManualClock
from ratchet.operations.placement import PlacementParts
from ratchet.operations.retrain import Pipeline
from ratchet.ports import LiveAttempt
from ratchet.ports import Wish as Heard
from ratchet.wiring import Parts, _pipeline
from tests.contract.test_specfile import SMALL
from tests.fragile import Fragile, Killed
from tests.integration.test_access import Api, with_api
from tests.stored import NOW, about_to_train, queued

pytestmark = pytest.mark.deep

HOUR = 3600.0
TICK = timedelta(minutes=5)
PROBE_SECONDS = 600.0
WORK_SECONDS, DEADLINE_HOURS = 8 * HOUR, 20
SPOT = f"capacity: spot, deadline: {DEADLINE_HOURS}h, usd_per_hour: 3, spot_usd_per_hour: 1"
SPEC = parse_spec(SMALL + f"train: {{{SPOT}}}\n", Path("/x/ratchet.yaml"))
WORLDS = 8
KILLS_MIN = 200


@dataclass(slots=True)
class World:
    """One run's training, from its start to its end."""

    parts: Parts
    run: RunId
    clock: ManualClock
    market: Player
    chance: random.Random
    kill_share: float
    kills: int = 0
    done_seconds: float = 0.0
    starts: dict[str, datetime] = field(default_factory=dict)
    mine_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Work that each attempt has done."""

    def dies(self) -> bool:
        return self.chance.random() < self.kill_share

    def pipeline(self) -> Pipeline:
        parts = self.parts
        made = _pipeline(parts.database, parts.material, parts.datasets, parts.tracking)
        store = Fragile(PostgresPlacements(parts.database), self.dies)
        return replace(
            made,
            attempts=Fragile(made.attempts, self.dies),
            placement=PlacementParts(store, parts.material.fleet, self.market, self.clock),
            clock=self.clock,
        )

    async def play(self) -> tuple[float, float]:
        """Answers what it cost and how many hours it took."""
        pipeline, look_at = self.pipeline(), self.clock.now()
        while True:
            ended = await self._machines()
            if self.clock.now() >= look_at or ended:
                while (found := await self._looked(pipeline)) is None:
                    self.kills += 1
                if found is True:
                    break
                look_at = self.clock.now() + timedelta(seconds=float(found))
            self.clock.advance(TICK)
        usd = await self.parts.attempts.spent_usd(self.run, self.clock.now())
        return usd, (self.clock.now() - NOW).total_seconds() / HOUR

    async def _looked(self, pipeline: Pipeline) -> bool | float | None:
        """One look of the planner; None if it was killed: another takes over and looks again."""
        try:
            return await pipeline.attempt(self.run, StageName.TRAIN.value)
        except Killed:
            return None

    async def _machines(self) -> bool:
        """A tick of what machines there are; whether an attempt has ended."""
        live = [each for each in await self.parts.attempts.live() if each.run_id == self.run]
        assert len(live) <= 1, "two at work at once"
        return bool(live) and await self._work(live[0])

    async def _work(self, attempt: LiveAttempt) -> bool:
        attempts, now = self.parts.attempts, self.clock.now()
        is_spot = attempt.place.capacity is Capacity.SPOT
        if is_spot and not self.market.is_up(attempt.place.zone, now):
            await attempts.end(attempt.id, AttemptState.PREEMPTED, None, "taken away", now)
            return True
        if attempt.id not in self.starts:
            await attempts.claim(attempt.id, now)
            self.starts[attempt.id] = now
            return False
        if (now - self.starts[attempt.id]).total_seconds() > TICK.total_seconds():
            self.done_seconds += TICK.total_seconds()
            self.mine_seconds[attempt.id] += TICK.total_seconds()
        left = max(0.0, WORK_SECONDS - self.done_seconds)
        steps = {"step": int(self.done_seconds / 60), "steps": int(WORK_SECONDS / 60)}
        heard = await attempts.heartbeat(attempt.id, {**steps, "seconds_left": left}, [], now)
        if left == 0.0:
            result = {"seconds": self.mine_seconds[attempt.id], "tokens": 1}
            await attempts.end(attempt.id, AttemptState.SUCCEEDED, result, "", now)
            return True
        if heard is Heard.SAVE_AND_LEAVE:
            await attempts.end(attempt.id, AttemptState.PREEMPTED, None, "asked to leave", now)
            return True
        return False


async def world(api: Api, number: int, kill_share: float) -> World:
    """A run that is about to train, on capacity of its own number."""
    parts, run = api.parts, RunId(f"run_{number}_{kill_share:g}")
    await parts.runs.runs.add(replace(queued(run), spec=SPEC), str(run), NOW)
    await parts.runs.runs.start_next(NOW)
    await about_to_train(run, parts.runs.stages, WORK_SECONDS)
    ticks = 1_000
    series = sample(PUBLIC, PROBE_SECONDS, ticks, np.random.default_rng(number))
    market = Player(
        names=("a",),
        series=(tuple(series),),
        tick_seconds=PROBE_SECONDS,
        began_at=NOW - timedelta(days=3),
    )
    return World(parts, run, ManualClock(NOW), market, random.Random(number), kill_share)


async def ended(api: Api, made: World) -> tuple[float, float]:
    usd, hours = await made.play()
    runs = api.parts.runs.runs
    await runs.move(made.run, RunState.RUNNING, RunState.FAILED, "the test is over", NOW)
    return usd, hours


def test_a_planner_that_is_killed_two_hundred_times_places_all_the_same(
    database_url: str, tmp_path: Path
) -> None:
    seen: dict[float, list[tuple[float, float]]] = {0.0: [], 0.1: []}
    kills = 0

    async def scenario(api: Api) -> None:
        nonlocal kills
        for number in range(WORLDS):
            for kill_share, results in seen.items():
                made = await world(api, number, kill_share)
                results.append(await ended(api, made))
                kills += made.kills

    with_api(database_url, tmp_path, scenario)

    whole, killed = (sum(usd for usd, _ in results) for results in seen.values())
    print(f"{kills} kills; {whole:.2f} USD undisturbed, {killed:.2f} with kills; {seen}")
    assert kills >= KILLS_MIN
    assert killed == pytest.approx(whole, rel=0.02)
    for results in seen.values():
        assert all(hours <= DEADLINE_HOURS for _, hours in results)
        assert all(math.isfinite(usd) and usd > 0 for usd, _ in results)
