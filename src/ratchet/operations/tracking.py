"""Copy versions to the team's tracker, now or later.  Its being away never stops a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet.core.artifact import RunId, Version
from ratchet.core.errors import Unavailable
from ratchet.core.run import StageName
from ratchet.kit.clock import Clock
from ratchet.ports import Registry, RunStore, StageStore, Tracker

# What was missed comes a few at a time, so that a tracker that is back is not run over.
CAUGHT_UP_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class TrackingParts:
    runs: RunStore
    stages: StageStore
    registry: Registry
    tracker: Tracker
    clock: Clock


async def mirror(version: Version, run_id: RunId, parts: TrackingParts) -> str:
    """Copy a version with its run, once; answers where it is shown.  By version.

    Raises `Unavailable` when the tracker is away.
    """
    run = await parts.runs.get(run_id)
    trained: dict[str, Any] = dict((await parts.stages.get(run_id, StageName.TRAIN)).detail)
    losses = [(int(step), float(loss)) for step, loss in trained["losses"]]
    link = await parts.tracker.mirror(version, run, losses)
    await parts.registry.put_mirror(version.id, link, parts.clock.now())
    return link


async def catch_up(parts: TrackingParts) -> int:
    """Copy what the tracker missed, the oldest first; answers how many."""
    count = 0
    for version in await parts.registry.not_mirrored(CAUGHT_UP_AT_ONCE):
        if version.run_id is None:
            continue
        try:
            await mirror(version, version.run_id, parts)
        except Unavailable:
            break
        count += 1
    return count
