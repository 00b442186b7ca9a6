"""Each kind of guard finds its own harm, proves its own margin, and survives sick values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ratchet.core.analysis import judge, still_to_show
from ratchet.core.errors import Rejected
from ratchet.core.evidence import Evidence, Unit, first_evidence, observe
from ratchet.core.findings import LOG_THRESHOLD, Finding, accuse, claim, findings, guilty
from ratchet.core.guards import (
    ALWAYS,
    KNOWN,
    Group,
    Guard,
    Kind,
    group_shares,
    weights_of,
    with_always,
)
from ratchet.core.measures import Answer, by_guard, measures
from ratchet.core.rollout import Signal
from ratchet.core.spec import ReleasePlan
from tests.unit.test_analysis import CANARY, SEEN
from tests.units import USUAL, answered

LENGTH, COST = KNOWN["length"], KNOWN["cost"]
SCORE = Guard(name="helpful", kind=Kind.SCORE, group=Group.JUDGED, margin=0.05)
NAMED = [LENGTH, COST, KNOWN["ttft_p95"], KNOWN["tokens_per_second"], SCORE]
PLAN = ReleasePlan(guards=with_always(NAMED))


def played(count: int, **changes: float) -> Evidence:
    """A canary at half of the traffic whose values are the baseline's times (for scores: minus)
    what is said of it."""
    chance = np.random.default_rng(1)

    def values(is_canary: bool) -> dict[str, float]:
        def times(name: str) -> float:
            return changes.get(name, 1.0) if is_canary else 1.0

        loss = changes.get("helpful", 0.0) if is_canary else 0.0
        took, spread = chance.lognormal(5.0, 0.5), chance.lognormal(0.0, 0.6)
        return {
            "errors": float(chance.random() < 0.01 * times("errors")),
            "latency_p95": took * times("latency_p95"),
            "ttft_p95": took * 0.2 * times("ttft_p95"),
            "length": 80.0 * spread * times("length"),
            "cost": 0.001 * spread * times("cost"),
            "tokens_per_second": 20.0 * chance.lognormal(0.0, 0.3) * times("tokens_per_second"),
            "helpful": float(np.clip(chance.normal(0.8, 0.1) - loss, 0, 1)),
        }

    usual = [values(False) for _ in range(300)]
    begun = first_evidence(PLAN, {name: [each[name] for each in usual] for name in usual[0]})
    stream = [
        Unit(number, is_canary, values(is_canary), 5_000, 1)
        for number, is_canary in enumerate((chance.random(count) < 0.5).tolist(), 1)
    ]
    for group in PLAN.groups:
        begun = observe(begun, stream, 5_000, group)
    return begun


def of(evidence: Evidence, name: str) -> Finding:
    return next(finding for finding in findings(evidence) if finding.guard.name == name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("errors", 8.0),
        ("latency_p95", 1.5),
        ("ttft_p95", 1.5),
        ("tokens_per_second", 1.5),
        ("length", 1.6),
        ("length", 0.6),
        ("cost", 1.6),
        ("helpful", 0.1),
    ],
)
def test_each_guard_finds_its_own_harm_and_is_named(name: str, change: float) -> None:
    evidence = played(1_500, **{name: change})

    assert evidence.log_harm >= LOG_THRESHOLD
    assert [f.guard.name for f in findings(evidence) if f.is_guilty] == [name]
    assert accuse(evidence).startswith(f"{name}: ")
    assert not of(evidence, name).is_proven


def test_a_canary_that_is_the_same_is_proven_on_every_guard_and_accused_of_none() -> None:
    evidence = played(12_000)

    assert evidence.log_harm < LOG_THRESHOLD
    assert all(finding.is_proven for finding in findings(evidence)), findings(evidence)
    assert all(finding.low < 0 < finding.high for finding in findings(evidence))


def test_an_interval_holds_the_difference_and_its_ends_are_in_the_values_own_unit() -> None:
    evidence = played(6_000, errors=6.0, cost=1.5)

    errors, cost = of(evidence, "errors"), of(evidence, "cost")
    assert 0 < errors.low < 0.05 < errors.high
    assert 0 < cost.low < cost.canary - cost.baseline < cost.high < 0.002
    assert errors.canary_units + errors.baseline_units == 6_000


def test_shorter_answers_are_harm_only_where_both_ways_are() -> None:
    assert played(1_500, cost=0.5).log_harm < LOG_THRESHOLD
    assert played(1_500, length=0.5).log_harm >= LOG_THRESHOLD


@pytest.mark.parametrize("sick", [math.nan, math.inf, -math.inf, -5.0])
def test_sick_values_of_both_arms_accuse_nobody(sick: float) -> None:
    names = [guard.name for guard in PLAN.guards]
    stream = [Unit(n, n % 2 == 0, dict.fromkeys(names, sick), 5_000, 1) for n in range(1, 401)]
    usual = {name: [1.0 + n / 100 for n in range(100)] for name in names}
    evidence = first_evidence(PLAN, usual)
    for group in PLAN.groups:
        evidence = observe(evidence, stream, 5_000, group)

    assert evidence.log_harm <= 1e-9
    assert all(math.isfinite(f.log_harm) and math.isfinite(f.log_safe) for f in findings(evidence))


def test_a_metric_that_vanishes_proves_nothing_more() -> None:
    whole = played(4_000)
    stream = [Unit(n, n % 2 == 0, {"errors": 0.0}, 5_000, 1) for n in range(4_001, 8_001)]

    after = observe(whole, stream, 5_000)

    assert of(after, "length").log_safe == of(whole, "length").log_safe
    assert of(after, "errors").log_safe > of(whole, "errors").log_safe


def test_the_error_rate_is_split_over_the_groups_there_are() -> None:
    both = group_shares([*ALWAYS, SCORE])

    assert group_shares(ALWAYS) == {Group.FAST: 1.0}
    assert both == {Group.FAST: pytest.approx(7 / 9), Group.JUDGED: pytest.approx(2 / 9)}
    assert weights_of(ALWAYS) == (0.5, 0.5)
    assert weights_of([*ALWAYS, LENGTH]) == (0.25, 0.25, 0.5)
    assert sum(weights_of([SCORE, LENGTH, COST])) == pytest.approx(1.0)


def test_the_guilty_are_named_with_one_error_rate_for_all() -> None:
    limit = math.log(100)

    assert guilty([limit + 3, 0.0], [0.5, 0.5], limit) == [True, False]
    # All together reach the limit: those are named that carry every average, or the largest.
    assert guilty([limit + 0.2, limit - 0.1], [0.5, 0.5], limit) == [True, False]
    crowd = [limit + 0.4, limit + 0.4, limit - 2.0]
    assert guilty(crowd, [1 / 3] * 3, limit) == [True, False, False]
    assert guilty([0.0, 1.0], [0.5, 0.5], limit) == [False, False]
    assert guilty([9e9, -9e9], [0.5, 0.5], limit) == [True, False]


def test_each_kind_of_guard_says_what_its_proof_claims() -> None:
    assert [claim(guard) for guard in (ALWAYS[0], KNOWN["refusals"], LENGTH, COST, SCORE)] == [
        "at most 1.00% more answers fail",
        "refusals at most 1.50% more often",
        "length not up or down by 15%",
        "cost not worse by 10%",
        "helpful at most 0.05 lower",
    ]


def told(count: int, *, silent_canary: float, fails: float = 0.0) -> list[Unit]:
    """Answers of which some canary ones do not tell how long they are."""
    chance, found = np.random.default_rng(8), []
    for sequence in range(1, count + 1):
        is_canary = sequence % 5 == 0
        failed = is_canary and chance.random() < fails
        tokens = None if is_canary and chance.random() < silent_canary else 10
        values = answered(failed=failed, tokens=tokens, ms=float(chance.lognormal(4.6, 0.2)))
        found.append(Unit(sequence, is_canary, values, 2_000, 1))
    return found


def test_a_metric_that_vanishes_on_one_side_is_no_health() -> None:
    plan = ReleasePlan(guards=with_always([LENGTH]))
    begun = first_evidence(plan, USUAL)

    gone = observe(begun, told(600, silent_canary=1.0), 2_000)
    there = observe(begun, told(600, silent_canary=0.0), 2_000)
    failing = observe(begun, told(100, silent_canary=0.0, fails=0.3), 2_000)

    said = judge(replace(CANARY, notches_percent=(), ramp_weight=500), plan, gone, SEEN)
    assert said.signal is Signal.ASK
    assert said.because == (
        "length: no value of 120 of 120 canary answers, of 0 of 480 baseline answers: missing "
        "metrics are not health"
    )
    assert said.numbers["length.e_missing"] > 1_000
    assert any(line.startswith("length") for line in still_to_show(gone))
    assert (
        judge(replace(CANARY, notches_percent=(), ramp_weight=500), plan, there, SEEN).signal
        is not Signal.ASK
    )
    # What failed has no length, and is counted as failed.
    assert failing.presence["length"].log_e < 1.0


def test_a_failure_is_slower_than_anything_and_has_no_length() -> None:
    failed = measures(
        Answer(failed=True, first_byte_ms=1, duration_ms=1, completion_tokens=9, cost_usd=1.0)
    )
    silent = Answer(
        failed=False, first_byte_ms=1, duration_ms=2, completion_tokens=None, cost_usd=None
    )

    assert failed == {"errors": 1.0, "latency_p95": math.inf, "ttft_p95": math.inf}
    assert measures(silent) == {"errors": 0.0, "latency_p95": 2.0, "ttft_p95": 1.0}
    assert by_guard([silent, silent])["latency_p95"] == [2.0, 2.0]


@pytest.mark.parametrize(
    "changes", [{"margin": 0.0}, {"margin": 1.0}, {"tolerance": 0.02}, {"tolerance": -0.1}]
)
def test_a_guard_that_cannot_be_meant_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(Rejected, match="guard errors"):
        replace(ALWAYS[0], **changes)  # type: ignore[arg-type]


def test_a_plan_has_each_guard_once() -> None:
    with pytest.raises(Rejected, match="once"):
        ReleasePlan(guards=(*ALWAYS, ALWAYS[0]))
    with pytest.raises(Rejected, match="errors and latency_p95"):
        ReleasePlan(guards=(LENGTH,))
