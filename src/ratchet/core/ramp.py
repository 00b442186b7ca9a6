"""The next weight of a canary: as much as the harm budget allows, and no more.

Of a release that makes U more bad answers out of a hundred than the baseline, n canary answers cost
n * U / 100 users something.  U is not known, but an upper bound on it is, at every moment and with
a stated risk (`stats.betting`).  So the weight is chosen such that the answers given so far and
those of the next block, at that bound, stay within the budget that the owner accepted.  A release
that looks good climbs as fast as its proof grows; one that does not stays small by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ratchet.core.errors import Rejected

# More than this at once, and a slow start of caches and replicas would be taken for harm.
GROWTH_MAX = 4.0
# Canary answers until the next look that are enough to learn from.
LEARNING_UNITS = 5.0
# Nothing is known at first: so much of the budget may be at stake until the first look.
FIRST_SHARE_OF_BUDGET = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """How a canary's weight may move.  Weights are shares of the traffic, from 0 to 1."""

    harm_budget: float
    """Bad answers more than the baseline would have given, that the owner accepts at most."""
    first: float = 0.05
    least: float = 0.01
    most: float = 0.5
    """Half is where two arms are told apart with the fewest answers in all."""

    def __post_init__(self) -> None:
        if self.harm_budget <= 0:
            raise Rejected(f"release.harm_budget: found {self.harm_budget:g}, expected more than 0")
        if not 0 < self.least <= self.first <= self.most <= 1:
            raise Rejected("a ramp's weights: expected 0 < least <= first <= most <= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What is known when the next weight is chosen."""

    weight: float
    canary_units: float
    """Answers that the canary has given or was asked for, judged or not."""
    judged_units: float
    """Of these, the ones that the bound below is known from."""
    regression_max: float
    """Upper bound on how much more often the canary's answers are bad, from 0 to 1."""
    next_units: float
    """Answers of both arms until the weight is chosen again, as expected."""
    capacity_share: float = math.inf
    """Of the traffic, what the canary's engines can take."""
    is_suspect: bool
    """There is some evidence of harm: no proof, but reason enough to show it to nobody more."""


@dataclass(frozen=True, slots=True)
class Step:
    weight: float
    because: str
    is_spent: bool = False
    """No answer more of the canary's stays within the budget."""


def first_weight(ramp: Ramp, next_units: float) -> float:
    """As a canary begins, with so many answers of both arms expected until the first look."""
    return min(ramp.first, ramp.harm_budget * FIRST_SHARE_OF_BUDGET / max(next_units, 1e-9))


def next_weight(ramp: Ramp, known: Exposure) -> Step:
    """The weight until the next look, with the reason in words."""
    bound = f"at most {known.regression_max:.2%} more bad answers are possible"
    if known.judged_units * known.regression_max >= ramp.harm_budget:
        spent = (
            f"{bound}, of {known.judged_units:.0f} that users have had: that may be the whole "
            f"harm budget of {ramp.harm_budget:g}"
        )
        return Step(0.0, spent, is_spent=True)
    left = ramp.harm_budget / max(known.regression_max, 1e-9) - known.canary_units
    allowed = max(0.0, left) / max(known.next_units, 1e-9)
    most = min(ramp.most, known.weight * GROWTH_MAX, known.capacity_share)
    # With much traffic a hundredth is many answers, and less is enough to learn from.
    least = min(ramp.least, LEARNING_UNITS / max(known.next_units, 1e-9), most)
    if known.is_suspect:
        weight = max(least, min(known.weight, allowed))
        return Step(weight, "some evidence of harm: no climb until it falls")
    if allowed >= most:
        return Step(most, f"{bound}: {_most(ramp, known, most)} stays within the harm budget")
    if allowed <= least:
        return Step(least, f"{bound}: the harm budget of {ramp.harm_budget:g} is nearly spent")
    return Step(allowed, f"{bound}: the harm budget of {ramp.harm_budget:g} allows {allowed:.1%}")


def _most(ramp: Ramp, known: Exposure, most: float) -> str:
    if most == known.capacity_share:
        return f"{most:.1%}, as much as its engines can take,"
    return "half of the traffic" if most == ramp.most else "four times as much as before"
