"""Copy versions to the team's tracker, now or later.  Its being away never stops a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ratchet.core.artifact import RunId, Version
from ratchet.core.errors import NotFound, Unavailable
from ratchet.core.retention import ADAPTER_FILES
from ratchet.core.run import StageName
from ratchet.kit.clock import Clock
from ratchet.ports import ObjectStore, Registry, Run, RunStore, StageStore, Tracked, Tracker

# What was missed comes a few at a time, so that a tracker that is back is not run over.
CAUGHT_UP_AT_ONCE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingParts:
    runs: RunStore
    stages: StageStore
    registry: Registry
    objects: ObjectStore
    tracker: Tracker | None
    """None where the team has none."""
    console_url: str
    clock: Clock


async def mirror(version: Version, run_id: RunId, parts: TrackingParts) -> str:
    """Copy a version with its run, once; answers where it is shown.  By version.

    Raises `Unavailable` when the tracker is away.
    """
    link = ""
    if parts.tracker is not None:
        run = await parts.runs.get(run_id)
        trained = (await parts.stages.get(run_id, StageName.TRAIN)).detail
        adapter = await _adapter(version, parts.objects)
        url = f"{parts.console_url}/runs/{run_id}"
        link = await parts.tracker.mirror(tracked(version, run, trained, adapter, url))
    await parts.registry.put_mirror(version.id, link, parts.clock.now())
    return link


def tracked(
    version: Version,
    run: Run,
    trained: Mapping[str, Any],
    adapter: Mapping[str, bytes],
    url: str,
) -> Tracked:
    """What a tracker shows of a version and its run."""
    recipe = asdict(run.spec.train)
    lora = recipe.pop("lora")
    recipe |= {f"lora.{key}": value for key, value in lora.items()}
    recipe |= {"base": version.base, "dataset": version.dataset_id}
    gated = version.report.get("metrics", {})
    assert isinstance(gated, dict)
    return Tracked(
        version=version,
        params={key: str(value) for key, value in recipe.items()},
        metrics={
            **{key: float(value) for key, value in gated.items()},
            # A run that an older Ratchet trained does not say.
            **{f"system/{key}": float(value) for key, value in trained.get("machine", {}).items()},
        },
        losses=[(int(step), float(loss)) for step, loss in trained["losses"]],
        adapter=adapter,
        url=url,
    )


async def _adapter(version: Version, objects: ObjectStore) -> dict[str, bytes]:
    found = {}
    for name in ADAPTER_FILES if version.adapter_uri is not None else ():
        try:
            found[name] = await objects.get(f"{version.adapter_uri}/{name}")
        except NotFound:
            continue
    return found


async def catch_up(parts: TrackingParts) -> tuple[int, str]:
    """Copy what the tracker missed, the oldest first; answers how many, and why not the rest."""
    count = 0
    for version in await parts.registry.not_mirrored(CAUGHT_UP_AT_ONCE):
        if version.run_id is None:
            continue
        try:
            await mirror(version, version.run_id, parts)
        except Unavailable as error:
            return count, str(error)
        count += 1
    return count, ""
