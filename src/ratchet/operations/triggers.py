"""Hear what asks for runs: merges, schedules, feedback; and tell commits what became of them.

Everything here is found from the database again after a kill: what was heard waits until it is
dealt with, and a run has a key that says what asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from ratchet.core.artifact import RunId
from ratchet.core.errors import Conflict, NotFound, RatchetError, Rejected, Unavailable
from ratchet.core.spec import Spec
from ratchet.core.triggers import (
    MISSED_SECONDS,
    Push,
    Schedule,
    due,
    enter,
    is_about,
    same_repository,
)
from ratchet.kit.clock import Clock
from ratchet.operations.runs import RunParts, Wakes, cancel_run, request_run
from ratchet.ports import (
    Delivery,
    Forge,
    Heard,
    Repositories,
    SpecReader,
    TriggerStore,
    Watched,
)

log = structlog.get_logger()
SCHEDULE, POLL, FEEDBACK = "schedule", "poll", "feedback"
# So far back a schedule is looked through again and again; what is older was decided.
LOOK_BACK = timedelta(days=1)
# What a commit could not be told for so long it is not told any more.
TOLD_FOR = timedelta(days=1)
WHO = "system"


@dataclass(frozen=True, slots=True)
class TriggerParts:
    store: TriggerStore
    repositories: Repositories
    specs: SpecReader
    forge: Forge
    runs: RunParts
    console_url: str
    """Where people look at runs."""
    clock: Clock


async def watched_by(urls: tuple[str, ...], store: TriggerStore) -> Watched:
    """The project that waits for merges into a repository.  Raises `NotFound`."""
    for watched in await store.watched():
        ours = watched.triggers.repository
        if watched.triggers.merge and any(same_repository(ours, url) for url in urls):
            return watched
    raise NotFound(f"no project has {urls[0] if urls else 'that'} as its triggers.repository")


async def hear(watched: Watched, push: Push, source: str, parts: TriggerParts) -> str:
    """Keep a push for `attend`; answers in words what will become of it.  By commit."""
    if push.branch != watched.triggers.branch:
        return f"left: {push.branch} is not {watched.triggers.branch}"
    delivery = Delivery(
        project=watched.project, push=push, source=source, heard_at=parts.clock.now()
    )
    return "heard" if await parts.store.hear(delivery) else "heard before"


async def attend(parts: TriggerParts, durable: Wakes) -> None:
    """Deal with everything that was heard."""
    for delivery in await parts.store.waiting():
        try:
            heard, because, run_id = await _attend(delivery, parts, durable)
        except (Unavailable, Conflict) as error:
            log.warning("trigger_waits", commit=delivery.push.after, because=str(error))
            continue
        except RatchetError as error:
            heard, because, run_id = Heard.REFUSED, str(error), None
        await parts.store.settle(delivery, heard, because, run_id, parts.clock.now())
        log.info("trigger", commit=delivery.push.after, became=heard.value, because=because)


async def _attend(
    delivery: Delivery, parts: TriggerParts, durable: Wakes
) -> tuple[Heard, str, RunId | None]:
    push = delivery.push
    watched = await _watched(delivery.project, parts.store)
    merge = watched.triggers.merge
    if merge is None:
        return Heard.LEFT, "merges are no trigger of this project any more", None
    await parts.repositories.newest(watched.triggers)
    changed = await parts.repositories.changed(watched.triggers, push.before, push.after)
    if not is_about(merge.paths, changed):
        return Heard.LEFT, f"nothing of {', '.join(merge.paths)} changed", None
    spec, folder = await _at(watched, push.after, parts)
    asked = _Asked(
        kind="merge",
        who=push.who,
        why=f"merged into {push.branch}",
        key=push.key,
        commit=push.after,
        not_before=delivery.heard_at + timedelta(seconds=merge.settle_seconds),
    )
    return await _ask(spec, folder, asked, parts, durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A run as a trigger asks for it."""

    kind: str
    why: str
    key: str
    who: str = WHO
    commit: str = ""
    not_before: datetime | None = None

    @property
    def trigger(self) -> Mapping[str, object]:
        return {"kind": self.kind, "who": self.who, "why": self.why, "commit": self.commit}


async def _ask(
    spec: Spec, folder: Path, asked: _Asked, parts: TriggerParts, durable: Wakes
) -> tuple[Heard, str, RunId | None]:
    """By key.  Killed between the new run and the end of what it replaces, it is asked again."""
    known = await parts.store.run_of(spec.project, asked.key)
    standing = [s for s in await parts.store.standing(spec.project) if s.run_id != known]
    entry = enter(asked.kind, standing, spec.triggers.concurrency)
    if entry.skipped_for and known is None:
        return Heard.LEFT, f"run {entry.skipped_for} has not ended", None
    run_id = await request_run(
        spec, folder, asked.trigger, asked.key, parts.runs,
        not_before=asked.not_before, supersedes=entry.supersedes,
    )  # fmt: skip
    for replaced in entry.cancels:
        if replaced != run_id:
            await _replace(RunId(replaced), run_id, parts, durable)
    return Heard.STARTED, f"run {run_id}", run_id


async def _replace(old: RunId, new: RunId, parts: TriggerParts, durable: Wakes) -> None:
    try:
        await cancel_run(old, WHO, f"replaced by {new}", parts.runs, durable)
    except Rejected:
        log.info("run_ended_by_itself", run=old)


async def _watched(project: str, store: TriggerStore) -> Watched:
    return next(each for each in await store.watched() if each.project == project)


async def _at(watched: Watched, commit: str, parts: TriggerParts) -> tuple[Spec, Path]:
    """The spec at a commit, and the folder that its paths start from."""
    checkout = await parts.repositories.checkout(watched.triggers, commit)
    try:
        return await _read(checkout / watched.triggers.spec_path, watched, parts)
    except Rejected as problem:
        # People know their files by the paths in the repository.
        raise Rejected(str(problem).replace(f"{checkout}/", "")) from None


async def _read(path: Path, watched: Watched, parts: TriggerParts) -> tuple[Spec, Path]:
    spec = await parts.specs.read(path)
    if spec.project != watched.project:
        raise Rejected(f"{path}: project: found {spec.project}, expected {watched.project}")
    return spec, path.parent


async def poll(parts: TriggerParts) -> None:
    """Ask repositories that send no webhooks whether their branch moved."""
    now = parts.clock.now()
    for watched in await parts.store.watched():
        merge = watched.triggers.merge
        if merge is None or merge.poll_seconds is None:
            continue
        known = await parts.store.mark(watched.project, POLL)
        if known is not None and (now - known[0]).total_seconds() < merge.poll_seconds:
            continue
        try:
            newest = await parts.repositories.newest(watched.triggers)
        except (Unavailable, Rejected) as error:
            log.warning("poll_waits", project=watched.project, because=str(error))
            continue
        before = "" if known is None else known[1]
        # What is there when a repository is first seen is no merge.
        if before and newest != before:
            push = Push(
                repository=watched.triggers.repository,
                branch=merge.branch,
                before=before,
                after=newest,
                who="git",
            )
            await hear(watched, push, POLL, parts)
        await parts.store.put_mark(watched.project, POLL, now, newest)


async def keep_schedules(parts: TriggerParts, durable: Wakes) -> None:
    """Start what a schedule wants started.  By time."""
    for watched in await parts.store.watched():
        if watched.triggers.schedule is not None:
            await _keep(watched, watched.triggers.schedule, parts, durable)


async def _keep(watched: Watched, schedule: Schedule, parts: TriggerParts, durable: Wakes) -> None:
    now, project = parts.clock.now(), watched.project
    known = await parts.store.mark(project, SCHEDULE)
    if known is None:
        await parts.store.put_mark(project, SCHEDULE, now, "")
        return
    at = due(schedule, known[0], now)
    if at is None:
        settled = now - timedelta(seconds=schedule.jitter_seconds + MISSED_SECONDS)
        if settled - known[0] > LOOK_BACK:
            await parts.store.put_mark(project, SCHEDULE, settled, known[1])
        return
    asked = _Asked(
        kind="schedule",
        why=f"{schedule.cron} {schedule.timezone}",
        key=f"schedule-{at.isoformat()}",
    )
    word = await _now(watched, asked, parts, durable)
    await parts.store.put_mark(project, SCHEDULE, at, word)


async def count_feedback(parts: TriggerParts, durable: Wakes) -> None:
    """Start a run where enough was said since the last.  By that run."""
    for watched in await parts.store.watched():
        wanted = watched.triggers.feedback
        if wanted is None:
            continue
        new, since = await parts.store.feedback_since_run(watched.project)
        if new < wanted:
            continue
        why = f"{new} new feedback since {since or 'ever'}"
        asked = _Asked(kind="feedback", why=why, key=f"feedback-{since or 'first'}")
        word = await _now(watched, asked, parts, durable)
        await parts.store.put_mark(watched.project, FEEDBACK, parts.clock.now(), word)


async def _now(watched: Watched, asked: _Asked, parts: TriggerParts, durable: Wakes) -> str:
    """Ask for a run of the spec as it is; answers what became of it.

    A file that is wrong is not tried again: the next time comes.  Raises `Unavailable`.
    """
    try:
        if watched.triggers.repository:
            commit = await parts.repositories.newest(watched.triggers)
            spec, folder = await _at(watched, commit, parts)
        elif watched.spec_file is not None:
            spec, folder = await _read(watched.spec_file, watched, parts)
        else:
            raise Rejected("no spec file is registered: `ratchet apply`")
        heard, because, _ = await _ask(spec, folder, asked, parts, durable)
    except (Rejected, NotFound) as error:
        heard, because = Heard.REFUSED, str(error)
        log.error("trigger_refused", project=watched.project, kind=asked.kind, because=because)
    return f"{heard.value}: {because}"


async def tidy(parts: TriggerParts) -> int:
    """Drop old checkouts that no run needs; answers how many."""
    live = await parts.store.live_sources()
    keep = {folder for source in live for folder in (source, *source.parents)}
    return await parts.repositories.forget(keep, parts.clock.now())


async def tell_commits(parts: TriggerParts) -> None:
    """Set the status of commits that say something else than what became of them."""
    for untold in await parts.store.untold(parts.clock.now() - TOLD_FOR):
        page = f"/runs/{untold.run_id}" if untold.run_id else "/"
        try:
            await parts.forge.tell(untold, f"{parts.console_url}{page}")
        except Unavailable as error:
            # Who does not take one takes none now.
            log.warning("status_waits", commit=untold.commit, because=str(error))
            return
        except Rejected as error:
            log.error("status_given_up", commit=untold.commit, because=str(error))
        await parts.store.told(untold)
