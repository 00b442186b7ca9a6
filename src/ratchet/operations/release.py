"""Releases: one tick of the judge over every live canary, and what people may do to one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.core.analysis import Pending, Sight, Verdict, judge, judge_shadow
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Conflict, Rejected
from ratchet.core.evidence import Evidence, Unit, count, next_weight_begins, observe, ready
from ratchet.core.findings import describe
from ratchet.core.freeze import frozen
from ratchet.core.guards import Group
from ratchet.core.late import late_units
from ratchet.core.replay import Otherwise, Replayed, otherwise, replay
from ratchet.core.report import markdown
from ratchet.core.rollout import JUDGE, ReleaseId, Signal, Stage, decide
from ratchet.core.shadow import shadowed
from ratchet.core.spec import ReleasePlan
from ratchet.kit.clock import Clock
from ratchet.operations.runs import Wakes
from ratchet.ports import (
    Act,
    Audit,
    EngineStore,
    EvidenceSource,
    HistorySource,
    Metric,
    MetricSink,
    ReleaseStore,
    SampleStore,
    ShadowStore,
    StoredRelease,
    Taken,
)

NOTHING = Taken()
# A record this young means that the gateway can be seen.
SIGHT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class More:
    """What a person adds to a release's plan."""

    bad_answers: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReleaseParts:
    releases: ReleaseStore
    evidence: EvidenceSource
    engines: EngineStore
    audit: Audit
    clock: Clock
    history: HistorySource
    shadow: ShadowStore
    samples: SampleStore


async def advance_all(parts: ReleaseParts, durable: Wakes) -> None:
    """Move every live release as far as the evidence allows, and stop engines nobody needs."""
    for stored in await parts.releases.live():
        try:
            await advance(stored, parts, durable)
        except Conflict:
            # Another process or a person was first; the next tick sees what they did.
            continue
    await parts.engines.stop_retired(parts.clock.now())
    for release_id in await parts.releases.without_report():
        await parts.releases.put_report(release_id, await report(release_id, parts))


async def advance(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    """One look at one release.  Raises `Conflict` if somebody else moved it meanwhile."""
    if stored.release.stage is Stage.STARTING:
        await _await_engine(stored, parts, durable)
    elif stored.release.stage is Stage.SHADOW:
        await _judge_shadow(stored, parts, durable)
    elif stored.release.stage in (Stage.CANARY, Stage.PAUSED, Stage.HOLDBACK):
        await _judge_live(stored, parts, durable)
    elif stored.release.stage is Stage.HELD and not stored.release.asks:
        await _await_sight(stored, parts, durable)


async def _await_engine(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    candidate = stored.release.candidate
    if await _is_outrun(stored, parts, durable):
        return
    if frozen(stored.plan.freeze, parts.clock.now()):
        return
    if await parts.engines.down_seconds(candidate, parts.clock.now()) == 0.0:
        if not stored.release.has_shadow:
            await _end_holdbacks(stored, parts, durable)
        await _say(stored, Signal.READY, "the canary's engine is ready", parts, durable)
        return
    failure = await parts.engines.failure(candidate)
    if failure is not None:
        await _say(stored, Signal.DEAD, failure, parts, durable)


async def _is_outrun(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> bool:
    """Give up what was to be compared with a version that serves no more."""
    serving = await parts.releases.serving(stored.release.project)
    if serving == stored.release.baseline:
        return False
    because = (
        f"{serving} serves now: this release was to be compared with {stored.release.baseline}"
    )
    await _say(stored, Signal.DEAD, because, parts, durable)
    return True


async def _judge_shadow(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    if await _is_outrun(stored, parts, durable):
        return
    seen = shadowed(await parts.shadow.pairs(stored.release.id))
    sight = await _sight(stored, Pending(), parts)
    verdict = judge_shadow(stored.plan, seen, stored.evidence, sight, stored.problem)
    if verdict.signal is Signal.HEALTHY:
        await _end_holdbacks(stored, parts, durable)
    if verdict.signal is not None:
        await _commit(stored, verdict, parts, durable)
    elif verdict.because != stored.because:
        looked = replace(stored, because=verdict.because)
        await parts.releases.save_evidence(looked, NOTHING, parts.clock.now())


async def _end_holdbacks(newer: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    """Three versions at once are one too many to compare."""
    for stored in await parts.releases.live():
        is_same = stored.release.project == newer.release.project
        if is_same and stored.release.stage is Stage.HOLDBACK:
            await _say(stored, Signal.OVER, "a newer release begins", parts, durable)


async def _await_sight(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    """A hold for blindness ends when the gateway's records come again and the engine is there."""
    now = parts.clock.now()
    silent = await parts.evidence.seconds_since_record(stored.release.project, now)
    ready = await parts.engines.down_seconds(stored.release.candidate, now) == 0.0
    if silent <= SIGHT_SECONDS and ready:
        await _say(stored, Signal.RESUME, "access records come again", parts, durable)


async def _judge_live(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    release, plan, now = stored.release, stored.plan, parts.clock.now()
    units = await parts.evidence.units(release, stored.evidence.taken(Group.FAST), now)
    known = ready(units, plan.deadline_seconds)
    evidence = observe(stored.evidence, known.units, release.weight)
    evidence, late = await _hear(stored, evidence, parts)
    sight = await _sight(stored, _pending(units, evidence, release.weight), parts)
    verdict = judge(release, plan, evidence, sight)
    taken = Taken(known.censored, late)
    looked = replace(stored, evidence=evidence, because=verdict.because)
    if verdict.signal is not None:
        await _commit(looked, verdict, parts, durable, taken=taken)
    elif _moved(stored.evidence, evidence) or looked.because != stored.because or taken.censored:
        await parts.releases.save_evidence(looked, taken, now)


async def _hear(
    stored: StoredRelease, evidence: Evidence, parts: ReleaseParts
) -> tuple[Evidence, dict[Group, dict[int, Mapping[str, float]]]]:
    """Take what came later than the answers, with its values to be kept."""
    release, plan, now = stored.release, stored.plan, parts.clock.now()
    taken: dict[Group, dict[int, Mapping[str, float]]] = {}
    for group in plan.groups:
        if group is Group.FAST:
            continue
        if group is Group.SCRAPED:
            read = evidence.streams[group].watermark
            evidence = count(evidence, await parts.samples.after(release.id, read))
            continue
        before = evidence.streams[group].watermark
        heard = await parts.evidence.late_units(release, group, evidence.taken(group), now)
        # Patterns of the project's own over texts of users: not on the event loop.
        units = await asyncio.to_thread(late_units, plan, group, heard)
        evidence = observe(evidence, units, release.weight, group)
        after = evidence.streams[group].watermark
        taken[group] = {u.sequence: u.values for u in units if before < u.sequence <= after}
    return evidence, taken


def _moved(before: Evidence, after: Evidence) -> bool:
    return any(
        stream.watermark != before.streams[group].watermark
        for group, stream in after.streams.items()
    )


def _pending(units: Sequence[Unit], evidence: Evidence, weight: int) -> Pending:
    """What users were given and the judge has not taken."""
    ahead = [unit for unit in units if unit.sequence > evidence.watermark]
    return Pending(
        canary_units=sum(unit.is_canary for unit in ahead),
        weight_units=sum(unit.weight == weight for unit in ahead),
    )


async def _sight(stored: StoredRelease, pending: Pending, parts: ReleaseParts) -> Sight:
    now = parts.clock.now()
    release = stored.release
    since_verdict = await parts.evidence.seconds_since_verdict(release.id, now)
    since_record = await parts.evidence.seconds_since_record(release.project, now)
    since_start = 0.0 if stored.entered_at is None else (now - stored.entered_at).total_seconds()
    return Sight(
        seconds_since_record=min(since_record, since_verdict),
        seconds_since_verdict=since_verdict,
        seconds_since_start=since_start,
        canary_engine_down_seconds=await _down(release.candidate, parts),
        baseline_engine_down_seconds=await _down(release.baseline, parts),
        recent=await parts.evidence.recent(stored),
        pending=pending,
        freeze=frozen(stored.plan.freeze, now),
        capacity_share=await parts.evidence.capacity_share(release, now),
    )


async def _down(version: VersionId, parts: ReleaseParts) -> float:
    """An engine that is just starting again counts from its crash, which is no longer known; it is
    back or down again within seconds."""
    return await parts.engines.down_seconds(version, parts.clock.now()) or 0.0


async def act(
    release_id: ReleaseId,
    signal: Signal,
    who: str,
    why: str,
    parts: ReleaseParts,
    durable: Wakes,
) -> StoredRelease:
    """A person's signal.  Raises `NotFound`, and `Rejected` if the stage does not accept it."""
    return await _act(await parts.releases.get(release_id), signal, who, why, parts, durable)


async def _act(
    stored: StoredRelease,
    signal: Signal,
    who: str,
    why: str,
    parts: ReleaseParts,
    durable: Wakes,
) -> StoredRelease:
    release_id = stored.release.id
    stage = stored.release.stage
    if stage in (Stage.PROMOTED, Stage.HOLDBACK) and signal is Signal.ABORT:
        await _check_way_back(stored, parts)
    if stage is Stage.HELD and signal in (Signal.RESUME, Signal.EXTEND, Signal.PROMOTE):
        down = await parts.engines.down_seconds(stored.release.candidate, parts.clock.now())
        if down != 0.0:
            raise Rejected(f"release {release_id}: the canary's engine is not ready")
    because = f"{who}: {why}"
    await _say(stored, signal, because, parts, durable, who=who)
    after = await parts.releases.get(release_id)
    await parts.audit.add(
        who,
        f"release {signal.value}",
        release_id,
        stored.release.stage.value,
        after.release.stage.value,
        why,
        parts.clock.now(),
    )
    return after


async def extend(
    release_id: ReleaseId,
    more: More,
    who: str,
    why: str,
    parts: ReleaseParts,
    durable: Wakes,
) -> StoredRelease:
    """Give a release more budget or time, and let one that was held for want of it go on.

    Raises as `act` does, and `Rejected` for more of what the plan does not have.
    """
    stored = await parts.releases.get(release_id)
    plan = stored.plan
    if more.bad_answers <= 0 and more.seconds <= 0:
        raise Rejected("extend: expected a budget, a time, or both")
    if more.bad_answers > 0 and plan.harm_budget is None:
        raise Rejected(f"release {release_id} climbs by notches: it has no harm budget")
    plan = replace(
        plan,
        harm_budget=None if plan.harm_budget is None else plan.harm_budget + more.bad_answers,
        max_duration_seconds=plan.max_duration_seconds + more.seconds,
    )
    return await _act(replace(stored, plan=plan), Signal.EXTEND, who, why, parts, durable)


async def report(release_id: ReleaseId, parts: ReleaseParts) -> str:
    """The release as Markdown, as it stands now.  Raises `NotFound`."""
    stored = await parts.releases.get(release_id)
    ledger = await parts.releases.ledger(release_id)
    shadow = None
    if stored.release.has_shadow:
        seen = shadowed(await parts.shadow.pairs(release_id))
        shadow = seen, shadowed(await parts.shadow.corrections(release_id))
    return markdown(stored.release, stored.plan, stored.evidence, stored.because, ledger, shadow)


async def push(project: str, metrics: Sequence[Metric], sink: MetricSink, clock: Clock) -> int:
    """Keep what a project's own systems measured of its answers; answers how many were new.

    Raises `Rejected` for a value that is no finite number.
    """
    for metric in metrics:
        if not math.isfinite(metric.value):
            raise Rejected(
                f"metric {metric.name} of {metric.request_id}: found {metric.value}, expected a "
                "finite number"
            )
    return await sink.push(project, metrics, clock.now())


async def replayed(release_id: ReleaseId, parts: ReleaseParts) -> list[Replayed]:
    """Every verdict of a release again, from its units.  Raises as `HistorySource` does."""
    known = await parts.history.history(release_id)
    # Seconds of computing for a long release, while the same process judges and answers.
    again = replay(known.begun, known.units, known.verdicts, known.pairs, known.samples)
    return await asyncio.to_thread(list, again)


async def decided_otherwise(
    release_id: ReleaseId, plan: ReleasePlan, parts: ReleaseParts
) -> Otherwise:
    """What another plan would have decided on the same units.  Raises as `replayed` does."""
    known = await parts.history.history(release_id)
    return await asyncio.to_thread(otherwise, plan, known.begun, known.units, known.samples)


async def _check_way_back(stored: StoredRelease, parts: ReleaseParts) -> None:
    """Never route to an engine that is not there, nor away under a release that is running."""
    for other in await parts.releases.live():
        if other.release.id != stored.release.id and not other.release.stage.ends_run:
            raise Rejected(
                f"release {other.release.id} is compared with {other.release.baseline}: "
                "roll it back first"
            )
    baseline = stored.release.baseline
    if await parts.engines.down_seconds(baseline, parts.clock.now()) != 0.0:
        raise Rejected(
            f"release {stored.release.id} is promoted and the way back is closed: the engine of "
            f"{baseline} is stopped. Release the old version again with a new run"
        )


async def _commit(
    stored: StoredRelease,
    verdict: Verdict,
    parts: ReleaseParts,
    durable: Wakes,
    *,
    who: str = JUDGE,
    taken: Taken = NOTHING,
) -> None:
    assert verdict.signal is not None
    decision = decide(stored.release, verdict.signal, verdict.weight)
    if decision.release.weight != stored.release.weight:
        stored = replace(stored, evidence=next_weight_begins(stored.evidence))
    act_ = Act(
        signal=verdict.signal.value, because=verdict.because, numbers=verdict.numbers, who=who
    )
    await parts.releases.commit(stored, decision, act_, taken, parts.clock.now())
    if decision.release.stage.ends_run:
        await durable.wake(stored.run_id)


async def _say(
    stored: StoredRelease,
    signal: Signal,
    because: str,
    parts: ReleaseParts,
    durable: Wakes,
    *,
    who: str = JUDGE,
) -> None:
    """A verdict that does not follow from the evidence."""
    verdict = Verdict(signal, because, describe(stored.evidence))
    await _commit(stored, verdict, parts, durable, who=who)
