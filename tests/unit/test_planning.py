"""What a plan can do is said before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet.core.guards import ERRORS, with_always
from ratchet.core.planning import Traffic, forecast, never_decides
from ratchet.core.segments import Dimension
from ratchet.core.shadow import PairJudge, Shadow
from ratchet.core.spec import ReleasePlan
from ratchet.stats.limits import divergence, units_to_exclude, units_to_find

TRAFFIC = Traffic(per_second=10.0, error_rate=0.01)


def plan(budget: float | None, margin: float = 0.01) -> ReleasePlan:
    notches = (5, 100) if budget is None else ()
    guards = with_always([replace(ERRORS, margin=margin)])
    return ReleasePlan(notches_percent=notches, harm_budget=budget, guards=guards)


def test_the_limits_are_those_of_the_study() -> None:
    # Errors from 1 to 3 % at 5 % weight; one point excluded at half of the traffic.
    assert units_to_find(0.01, 0.03, 0.05, 0.01) == pytest.approx(378, rel=0.01)
    assert units_to_find(0.03, 0.06, 0.05, 0.01) == pytest.approx(408, rel=0.01)
    assert units_to_exclude(0.01, 0.01, 0.5, 0.01) == pytest.approx(2011, rel=0.01)


def test_a_rate_carries_no_information_about_itself() -> None:
    assert divergence(0.3, 0.3) == pytest.approx(0.0)
    assert divergence(0.0, 0.5) > 0


def test_a_plan_with_enough_budget_says_how_long_it_takes() -> None:
    known = forecast(plan(100), TRAFFIC)

    assert known.problems == ()
    assert known.proof_units == pytest.approx(2_500, rel=0.02)
    assert known.proof_seconds == pytest.approx(530, rel=0.05)
    assert known.budget_least == pytest.approx(9.1, rel=0.01)
    assert known.found_units < known.proof_units


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (plan(5), "at least 10, or a wider margin"),
        (plan(20), "leaves many good releases undecided: 51"),
        (plan(None), "nothing is proven"),
        (plan(50, margin=0.001), "can never prove a margin of 0.10%"),
    ],
)
def test_a_plan_that_cannot_do_it_is_told_the_nearest_that_can(
    chosen: ReleasePlan, problem: str
) -> None:
    [said] = forecast(chosen, TRAFFIC).problems

    assert problem in said


def test_users_who_never_fail_are_no_reason_to_divide_by_zero() -> None:
    quiet = forecast(plan(100), Traffic(per_second=0.0, error_rate=0.0))

    assert quiet.proof_units >= 200
    assert quiet.proof_seconds > 1e9


def test_a_run_whose_release_could_never_be_decided_is_refused_with_the_nearest_that_can() -> None:
    said = never_decides(plan(5), 2_000, 20)

    assert said is not None
    assert said.startswith(
        "release: 1.00% of 2000 answers failed, and a harm budget of 5 can never"
    )
    assert "at least 10" in said
    # Enough budget, no budget, or too few answers to know.
    assert never_decides(plan(100), 2_000, 20) is None
    assert never_decides(plan(None), 2_000, 20) is None
    assert never_decides(plan(5), 999, 20) is None


def test_who_shares_the_error_rate_waits_longer() -> None:
    seen = Traffic(per_second=10.0, error_rate=0.01)
    alone = forecast(ReleasePlan(), seen)
    judge = PairJudge(url="http://j", model="m")

    within = forecast(ReleasePlan(segments=(Dimension.TENANT,)), seen)
    shadowed = forecast(ReleasePlan(shadow=Shadow(judge=judge)), seen)

    assert alone.found_units < shadowed.found_units < within.found_units < 1.2 * alone.found_units
    assert alone.proof_units == within.proof_units
