"""What a release's plan can do at a given traffic, said before anything runs.

From the limits of any test (`stats.limits`) and from how close ours comes to them in simulation
(`make bench-canary`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ratchet.core import shadow
from ratchet.core.analysis import PROOF_UNITS_MIN
from ratchet.core.findings import FALSE_ROLLBACK_RATE
from ratchet.core.guards import ERRORS, Group, group_shares
from ratchet.core.spec import ReleasePlan
from ratchet.stats.limits import units_to_exclude, units_to_find

# Measured: canary units until proof over the limit, and all units over the canary's.
PROOF_OVER_LIMIT = 1.25
ALL_OVER_CANARY = 2.1
# Measured at 5 % weight: canary units until a rollback over the limit.
FOUND_OVER_LIMIT = 1.35
# So many times the least budget decide most good releases; twice as much nearly all.
BUDGET_OVER_LEAST = 5.5
FIRST_WEIGHT = 0.05
# Fewer say too little of a rate to refuse a plan for it.
KNOWN_ANSWERS_MIN = 1_000
# A rate of zero is never known to be so.
RATE_LEAST = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a project's users send."""

    per_second: float
    error_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Numbers for the plan's owner; units are answers, times are seconds."""

    proof_units_limit: float
    proof_units: float
    proof_all_units: float
    proof_seconds: float
    budget_least: float
    """Below this nothing can ever be proven within the budget."""
    budget_advised: float
    found_units: float
    """Canary answers until a regression of twice the margin is rolled back."""
    found_seconds: float
    problems: tuple[str, ...]
    """Why the plan cannot do what it is for, each with the nearest that can."""


def forecast(plan: ReleasePlan, traffic: Traffic) -> Forecast:
    """For a plan with a harm budget, or for the same margins without one."""
    rate, margin, risk = (
        max(traffic.error_rate, RATE_LEAST),
        plan.guard(ERRORS.name).margin,
        FALSE_ROLLBACK_RATE,
    )
    limit = units_to_exclude(rate, margin, 0.5, risk)
    proof = max(limit * PROOF_OVER_LIMIT, float(PROOF_UNITS_MIN))
    least = max(1.0, 2.0 * rate * (1.0 - rate) * math.log(1.0 / risk) / margin)
    advised = math.ceil(least * BUDGET_OVER_LEAST)
    worse = min(rate + 2.0 * margin, 0.99)
    found = units_to_find(rate, worse, FIRST_WEIGHT, risk * _share(plan)) * FOUND_OVER_LIMIT
    per_second = max(traffic.per_second, 1e-9)
    return Forecast(
        proof_units_limit=limit,
        proof_units=proof,
        proof_all_units=proof * ALL_OVER_CANARY,
        proof_seconds=proof * ALL_OVER_CANARY / per_second,
        budget_least=least,
        budget_advised=advised,
        found_units=found,
        found_seconds=found / FIRST_WEIGHT / per_second,
        problems=tuple(_problems(plan, least, advised)),
    )


def _share(plan: ReleasePlan) -> float:
    """Of the error rate, what answers as a whole have at their end."""
    whole = group_shares(plan.guards)[Group.FAST]
    after_shadow = 1.0 if plan.shadow is None else 1.0 - shadow.SHARE
    return whole * after_shadow * (0.5 if plan.segments else 1.0)


def never_decides(plan: ReleasePlan, answers: int, failed: int) -> str | None:
    """Why a plan can never promote at the rate of failures that was seen, with the nearest that
    can; None when it may, or when too few answers were seen to know."""
    if plan.harm_budget is None or answers < KNOWN_ANSWERS_MIN:
        return None
    known = forecast(plan, Traffic(per_second=0.0, error_rate=failed / answers))
    if plan.harm_budget >= known.budget_least:
        return None
    return f"release: {failed / answers:.2%} of {answers} answers failed, and {known.problems[0]}"


def _problems(plan: ReleasePlan, least: float, advised: float) -> list[str]:
    if plan.harm_budget is None:
        return ["notches climb by exposure: nothing is proven; set harm_budget for that"]
    if plan.harm_budget < least:
        return [
            f"a harm budget of {plan.harm_budget:g} can never prove a margin of "
            f"{plan.guard(ERRORS.name).margin:.2%}: at least {math.ceil(least)}, or a wider margin"
        ]
    if plan.harm_budget < advised:
        return [
            f"a harm budget of {plan.harm_budget:g} leaves many good releases undecided: "
            f"{advised:g} decides most"
        ]
    return []
