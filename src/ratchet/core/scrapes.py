"""Rates that are counted elsewhere: what a Prometheus says of both arms, from time to time.

Counters only grow, so what lies between two samples under the same weights is a block of its own:
so many of each arm, and so many of them bad.  Which were bad together is not known, and the
evidence does not need it; but what is counted must be single things, such as conversations or
orders, and not the requests of one talk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ratchet.core.meters import Block
from ratchet.core.routing import WEIGHT_TOTAL

# A longer block than that is cut out: nothing that a release asks for is as large.
COUNT_MAX = 1_000_000
VERSION = "$version"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountQuery:
    """How a guard's counters are asked for, in PromQL; `$version` stands for the arm's."""

    guard: str
    bad: str
    all: str


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one arm, since ever."""

    all: float
    bad: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was counted at one moment, by guard: canary and baseline."""

    sequence: int
    revision: int
    """Of the weights."""
    weight: int
    """The canary's, of 10,000."""
    newest_unit: int
    """The last that was assigned by then."""
    counters: Mapping[str, tuple[Counters, Counters]]


def block_between(before: Sample, after: Sample, guard: str) -> Block | None:
    """What was counted between two samples; None when that cannot be known: the weights moved, a
    counter began anew, or one of the two has no number."""
    if before.revision != after.revision:
        return None
    if guard not in before.counters or guard not in after.counters:
        return None
    arms = zip(before.counters[guard], after.counters[guard], strict=True)
    counted = [_grown(old, new) for old, new in arms]
    if None in counted:
        return None
    (canary, canary_bad), (baseline, baseline_bad) = (pair for pair in counted if pair)
    if not canary + baseline:
        return None
    values = np.zeros(canary + baseline)
    values[:canary_bad] = 1.0
    values[canary : canary + baseline_bad] = 1.0
    is_canary = np.arange(canary + baseline) < canary
    return Block(is_canary, {guard: values}, after.weight / WEIGHT_TOTAL)


def _grown(old: Counters, new: Counters) -> tuple[int, int] | None:
    every, bad = new.all - old.all, new.bad - old.bad
    if not (math.isfinite(every) and math.isfinite(bad)):
        return None
    whole, part = round(every), round(bad)
    return (whole, part) if 0 <= part <= whole <= COUNT_MAX else None
