"""Runs from the outside: ask for one, start what is queued, cancel, and look after attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ratchet.core.artifact import RunId, Version, version_id
from ratchet.core.compute import LEAVE_SECONDS_MAX, is_used_up
from ratchet.core.run import AttemptState, RunState, StageState
from ratchet.core.serving import difference
from ratchet.core.spec import Spec
from ratchet.kit.clock import Clock
from ratchet.kit.ids import new_id
from ratchet.ports import (
    AttemptStore,
    Audit,
    Project,
    ProjectStore,
    Run,
    RunStore,
    StageStore,
    WorkerDesk,
)

# A worker reports every second.  Ninety without a word is death or a machine that is gone.
SILENT_SECONDS_MAX = 90.0


class Wakes(Protocol):
    async def start(self, name: str, key: str, *arguments: object) -> str | None:
        """Answers why the flow ended, if it ended with an error."""

    async def wake(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RunParts:
    projects: ProjectStore
    runs: RunStore
    stages: StageStore
    attempts: AttemptStore
    workers: WorkerDesk
    audit: Audit
    clock: Clock


async def apply(spec: Spec, who: str, parts: RunParts, spec_file: Path | None = None) -> Project:
    """Register a project and serve its base model if it serves nothing yet.  Repeatable.

    `spec_file` is where schedules read the spec, unless it names a repository.
    """
    now = parts.clock.now()
    before = await parts.projects.find(spec.project)
    project = await parts.projects.put(spec, now)
    if spec_file is not None:
        await parts.projects.put_spec_file(spec.project, spec_file)
    if before is not None and before.serving != project.serving:
        old, new = difference(before.serving, project.serving)
        await parts.audit.add(who, "serve otherwise", spec.project, old, new, "the spec", now)
    if project.baseline is None:
        await parts.projects.first_baseline(base_version(spec), now)
        await parts.audit.add(
            "system", "serve", spec.project, "nothing", spec.base.source, "first start", now
        )
    return await parts.projects.get(spec.project)


def base_version(spec: Spec) -> Version:
    """The base model itself as a version, so that everything served has a name."""
    recipe: dict[str, object] = {"method": "none"}
    return Version(
        id=version_id(
            base=spec.base.source, adapter_digest=None, dataset_id=None, recipe=recipe, report={}
        ),
        project=spec.project,
        base=spec.base.source,
        adapter_uri=None,
        adapter_digest=None,
        dataset_id=None,
        recipe=recipe,
        report={},
        run_id=None,
    )


async def request_run(
    spec: Spec,
    source_dir: Path,
    trigger: Mapping[str, object],
    key: str,
    parts: RunParts,
    *,
    spec_file: Path | None = None,
    not_before: datetime | None = None,
    supersedes: Sequence[str] = (),
) -> RunId:
    """Queue a run.  By (project, key): a trigger that is sent twice is one run."""
    await apply(spec, str(trigger.get("who", "unknown")), parts, spec_file)
    run = Run(
        id=RunId(new_id("run")),
        state=RunState.QUEUED,
        spec=spec,
        source_dir=source_dir,
        trigger=trigger,
        because="",
    )
    now = parts.clock.now()
    run_id = await parts.runs.add(run, key, now, not_before, supersedes)
    if run_id == run.id:
        who = str(trigger.get("who", "unknown"))
        await parts.audit.add(who, "start run", run_id, "", "queued", str(trigger["kind"]), now)
    return run_id


async def dispatch(parts: RunParts, durable: Wakes) -> None:
    """Start what may start, and every active run whose flow was never started."""
    for run_id in await parts.runs.start_next(parts.clock.now()):
        bug = await durable.start("retrain", run_id, run_id)
        if bug is not None:
            # The flow is gone; the run must not stand in the way of the next for ever.
            because = f"internal error: {bug}"
            now = parts.clock.now()
            await parts.stages.stop_open(run_id, StageState.FAILED, because, now)
            await parts.runs.move(run_id, RunState.RUNNING, RunState.FAILED, because, now)


async def cancel_run(run_id: RunId, who: str, why: str, parts: RunParts, durable: Wakes) -> None:
    """End a run that has not ended.  Its worker stops at the next heartbeat.

    Raises `Rejected` when the run has ended.
    """
    now = parts.clock.now()
    run = await parts.runs.get(run_id)
    because = f"cancelled by {who}: {why}"
    await parts.runs.move(run_id, run.state, RunState.CANCELLED, because, now)
    await parts.attempts.cancel(run_id, because, now)
    await parts.stages.stop_open(run_id, StageState.STOPPED, because, now)
    await parts.audit.add(who, "cancel run", run_id, run.state.value, "cancelled", why, now)
    await durable.wake(run_id)


async def bury_silent_workers(parts: RunParts, durable: Wakes) -> None:
    """Mark attempts lost whose workers have not been heard for too long."""
    now = parts.clock.now()
    for attempt in await parts.workers.live():
        if attempt.heartbeat_at is None or _heard(attempt.heartbeat_at, now):
            continue
        await parts.attempts.end(
            attempt.id,
            AttemptState.LOST,
            None,
            f"no word from the worker for {SILENT_SECONDS_MAX:.0f} s",
            now,
        )
        await durable.wake(attempt.run_id)


async def meter_workers(parts: RunParts, durable: Wakes) -> None:
    """Ask workers to save and leave when their run's budget is used up; end those that do not."""
    now = parts.clock.now()
    for attempt in await parts.workers.live():
        if attempt.heartbeat_at is None or not attempt.place.budget_usd:
            continue
        if not is_used_up(await parts.attempts.spent_usd(attempt.run_id, now), attempt.place):
            continue
        asked_at = await parts.attempts.ask_to_leave(attempt.id, now)
        if (now - asked_at).total_seconds() < LEAVE_SECONDS_MAX:
            continue
        because = f"its budget is used up, and it did not leave in {LEAVE_SECONDS_MAX:.0f} s"
        await parts.attempts.end(attempt.id, AttemptState.LOST, None, because, now)
        await durable.wake(attempt.run_id)


def _heard(heartbeat_at: datetime, now: datetime) -> bool:
    return (now - heartbeat_at).total_seconds() <= SILENT_SECONDS_MAX
