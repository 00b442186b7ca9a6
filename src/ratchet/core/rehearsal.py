"""A whole release played through before there is one: the real judge, users made up.

Who wants to know what a plan does says how often the baseline fails and what the canary would be
like; answers are drawn, and everything that decides is what decides in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ratchet.core.analysis import MOVE_SECONDS_MIN, Sight, Verdict, first_weight, judge
from ratchet.core.artifact import VersionId
from ratchet.core.evidence import Evidence, Unit, first_evidence, next_weight_begins, observe
from ratchet.core.guards import LATENCY
from ratchet.core.measures import Answer, measures
from ratchet.core.planning import Traffic
from ratchet.core.rollout import Release, ReleaseId, Stage, decide
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.spec import ReleasePlan

# Answers' times are log-normal with this spread, as those of models are about.
SPREAD = 0.6
REFERENCE_UNITS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppose:
    """What the canary would be like."""

    error_rate: float
    slower: float = 0.0
    """By this share."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One look, with when it was, what it said and what it led to."""

    seconds: float
    weight: int
    """Of 10,000, when it looked."""
    release: Release
    verdict: Verdict
    evidence: Evidence


def rehearse(
    plan: ReleasePlan,
    traffic: Traffic,
    suppose: Suppose,
    chance: np.random.Generator,
    seconds_max: float,
) -> Iterator[Looked]:
    """Every look that moves the release, and the last one."""
    last = None
    for look in looks(plan, traffic, suppose, chance, seconds_max):
        if look.verdict.signal is not None:
            yield look
        last = look
    if last is not None and last.verdict.signal is None:
        yield last


def looks(
    plan: ReleasePlan,
    traffic: Traffic,
    suppose: Suppose,
    chance: np.random.Generator,
    seconds_max: float,
) -> Iterator[Looked]:
    """A look every ten seconds, until the release is decided or the time is over."""
    evidence = first_evidence(plan, _usual(chance))
    release = Release(
        id=ReleaseId("rehearsal"),
        project="rehearsal",
        candidate=VersionId("canary"),
        baseline=VersionId("baseline"),
        notches_percent=plan.notches_percent,
        ramp_weight=first_weight(plan, traffic.per_second),
        stage=Stage.CANARY,
    )
    seconds, since, revision, taken = 0.0, 0.0, 1, 0
    while True:
        seconds, since = seconds + MOVE_SECONDS_MIN, since + MOVE_SECONDS_MIN
        count = round(traffic.per_second * seconds) - taken
        batch = _answers(chance, count, release.weight, (traffic, suppose), taken, revision)
        taken += count
        evidence = observe(evidence, batch, release.weight)
        sight = Sight(
            seconds_since_record=0.0,
            canary_engine_down_seconds=0.0,
            seconds_since_verdict=since,
            seconds_since_start=seconds,
        )
        verdict = judge(release, plan, evidence, sight)
        weight, seen = release.weight, evidence
        if verdict.signal is not None:
            # Whatever it is, it is another weight.
            release = decide(release, verdict.signal, verdict.weight).release
            evidence, revision, since = next_weight_begins(evidence), revision + 1, 0.0
        yield Looked(seconds, weight, release, verdict, seen)
        if seconds >= seconds_max or release.stage is not Stage.CANARY:
            return


def _usual(chance: np.random.Generator) -> Mapping[str, list[float]]:
    took = [float(ms) for ms in chance.lognormal(7.0, SPREAD, REFERENCE_UNITS)]
    return {LATENCY.name: took, "ttft_p95": took}


def _answers(
    chance: np.random.Generator,
    count: int,
    weight: int,
    who: tuple[Traffic, Suppose],
    after: int,
    revision: int,
) -> list[Unit]:
    traffic, suppose = who
    is_canary = chance.random(count) < weight / WEIGHT_TOTAL
    rate = np.where(is_canary, suppose.error_rate, traffic.error_rate)
    failed = chance.random(count) < rate
    took = chance.lognormal(7.0, SPREAD, count) * np.where(is_canary, 1.0 + suppose.slower, 1.0)
    found = []
    for place in range(count):
        answer = Answer(
            failed=bool(failed[place]),
            first_byte_ms=float(took[place]),
            duration_ms=float(took[place]),
            completion_tokens=None,
            cost_usd=None,
        )
        found.append(
            Unit(after + place + 1, bool(is_canary[place]), measures(answer), weight, revision)
        )
    return found


def only_measured(plan: ReleasePlan) -> ReleasePlan:
    """The plan without guards that a rehearsal makes up no values for: they would never be
    proven."""
    known = {"errors", "latency_p95", "ttft_p95"}
    guards = tuple(guard for guard in plan.guards if guard.name in known)
    return replace(
        plan,
        guards=guards,
        detectors=(),
        queries=(),
        shadow=None,
        segments=(),
        holdback_seconds=0.0,
    )
