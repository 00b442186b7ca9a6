"""Releases: one tick of the judge over every live canary, and what people may do to one."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace

from ratchet.core.analysis import Evidence, Sight, describe, judge, next_weight_begins, observe
from ratchet.core.errors import Conflict, Rejected
from ratchet.core.replay import Otherwise, Replayed, otherwise, replay
from ratchet.core.rollout import ReleaseId, Signal, Stage, decide
from ratchet.core.spec import ReleasePlan
from ratchet.kit.clock import Clock
from ratchet.operations.runs import Wakes
from ratchet.ports import (
    Act,
    Audit,
    EngineStore,
    EvidenceSource,
    HistorySource,
    ReleaseStore,
    StoredRelease,
)

JUDGE = "judge"
# A record this young means that the gateway can be seen.
SIGHT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ReleaseParts:
    releases: ReleaseStore
    evidence: EvidenceSource
    engines: EngineStore
    audit: Audit
    clock: Clock
    history: HistorySource


async def advance_all(parts: ReleaseParts, durable: Wakes) -> None:
    """Move every live release as far as the evidence allows, and stop engines nobody needs."""
    for stored in await parts.releases.live():
        try:
            await advance(stored, parts, durable)
        except Conflict:
            # Another process or a person was first; the next tick sees what they did.
            continue
    await parts.engines.stop_retired(parts.clock.now())


async def advance(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    """One look at one release.  Raises `Conflict` if somebody else moved it meanwhile."""
    if stored.release.stage is Stage.STARTING:
        await _await_engine(stored, parts, durable)
    elif stored.release.stage in (Stage.CANARY, Stage.PAUSED):
        await _judge_canary(stored, parts, durable)
    elif stored.release.stage is Stage.HELD:
        await _await_sight(stored, parts, durable)


async def _await_engine(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    candidate = stored.release.candidate
    if await parts.engines.down_seconds(candidate, parts.clock.now()) == 0.0:
        await _commit(stored, Signal.READY, "the canary's engine is ready", parts, durable)
        return
    failure = await parts.engines.failure(candidate)
    if failure is not None:
        await _commit(stored, Signal.DEAD, failure, parts, durable)


async def _await_sight(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    """A hold for blindness ends when the gateway's records come again and the engine is there."""
    now = parts.clock.now()
    silent = await parts.evidence.seconds_since_record(stored.release.project, now)
    ready = await parts.engines.down_seconds(stored.release.candidate, now) == 0.0
    if silent <= SIGHT_SECONDS and ready:
        await _commit(stored, Signal.RESUME, "access records come again", parts, durable)


async def _judge_canary(stored: StoredRelease, parts: ReleaseParts, durable: Wakes) -> None:
    release, plan = stored.release, stored.plan
    units = await parts.evidence.units(release, stored.evidence.watermark)
    evidence = observe(stored.evidence, units, plan.latency_margin, release.weight)
    verdict = judge(release, plan, evidence, await _sight(stored, parts))
    if verdict.signal is None:
        moved = evidence.watermark != stored.evidence.watermark
        if moved or verdict.because != stored.because:
            await parts.releases.save_evidence(stored, evidence, verdict.because, parts.clock.now())
        return
    await _commit(
        replace(stored, evidence=evidence),
        verdict.signal,
        verdict.because,
        parts,
        durable,
        weight=verdict.weight,
    )


async def _sight(stored: StoredRelease, parts: ReleaseParts) -> Sight:
    now = parts.clock.now()
    release = stored.release
    since_verdict = await parts.evidence.seconds_since_verdict(release.id, now)
    since_record = await parts.evidence.seconds_since_record(release.project, now)
    down = await parts.engines.down_seconds(release.candidate, now)
    return Sight(
        seconds_since_record=min(since_record, since_verdict),
        seconds_since_verdict=since_verdict,
        # An engine that is just starting again counts from its crash, which `down` no longer
        # knows; it is back or down again within seconds.
        canary_engine_down_seconds=0.0 if down is None else down,
    )


async def act(
    release_id: ReleaseId,
    signal: Signal,
    who: str,
    why: str,
    parts: ReleaseParts,
    durable: Wakes,
) -> StoredRelease:
    """A person's signal.  Raises `NotFound`, and `Rejected` if the stage does not accept it."""
    stored = await parts.releases.get(release_id)
    if stored.release.stage is Stage.PROMOTED and signal is Signal.ABORT:
        await _check_way_back(stored, parts)
    if signal is Signal.RESUME and stored.release.stage is Stage.HELD:
        down = await parts.engines.down_seconds(stored.release.candidate, parts.clock.now())
        if down != 0.0:
            raise Rejected(f"release {release_id}: the canary's engine is not ready")
    because = f"{who}: {why}"
    await _commit(stored, signal, because, parts, durable, who=who)
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


async def replayed(release_id: ReleaseId, parts: ReleaseParts) -> list[Replayed]:
    """Every verdict of a release again, from its units.  Raises as `HistorySource` does."""
    known = await parts.history.history(release_id)
    # Seconds of computing for a long release, while the same process judges and answers.
    again = replay(known.plan, known.begun, known.weights, known.verdicts)
    return await asyncio.to_thread(list, again)


async def decided_otherwise(
    release_id: ReleaseId, plan: ReleasePlan, parts: ReleaseParts
) -> Otherwise:
    """What another plan would have decided on the same units.  Raises as `replayed` does."""
    known = await parts.history.history(release_id)
    return await asyncio.to_thread(otherwise, plan, known.begun, known.weights)


async def _check_way_back(stored: StoredRelease, parts: ReleaseParts) -> None:
    """Never route to an engine that is not there."""
    baseline = stored.release.baseline
    if await parts.engines.down_seconds(baseline, parts.clock.now()) != 0.0:
        raise Rejected(
            f"release {stored.release.id} is promoted and its holdback is over: the engine of "
            f"{baseline} is stopped. Release the old version again with a new run"
        )


async def _commit(
    stored: StoredRelease,
    signal: Signal,
    because: str,
    parts: ReleaseParts,
    durable: Wakes,
    *,
    who: str = JUDGE,
    weight: int | None = None,
) -> None:
    decision = decide(stored.release, signal, weight)
    evidence: Evidence = stored.evidence
    if decision.release.weight != stored.release.weight:
        evidence = next_weight_begins(evidence)
    numbers = {k: v for k, v in describe(evidence).items() if math.isfinite(v)}
    act_ = Act(signal=signal.value, because=because, numbers=numbers, who=who)
    await parts.releases.commit(stored.release, decision, evidence, act_, parts.clock.now())
    if decision.release.stage.is_end:
        await durable.wake(stored.run_id)
