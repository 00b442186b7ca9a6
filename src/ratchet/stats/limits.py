"""What no test can beat: the least units, on average, that a decision of a given risk takes.

For any sequential test that errs with probability a at most, the expected number of units is at
least ln(1/a) over the information that a unit carries, in nats (Wald, 1945; Lorden, 1971).  With an
unknown base rate the alternative is the closest one: the information is minimised over it.
"""

from __future__ import annotations

import math

import numpy as np

# Points of the minimisation; the curve is smooth, so its error is below a thousandth.
_GRID = 4_001


def divergence(p: float, q: float) -> float:
    """Kullback and Leibler's, of two yes-or-no distributions, in nats."""
    parts = ((p, q), (1.0 - p, 1.0 - q))
    return sum(a * math.log(a / b) for a, b in parts if a > 0)


def units_to_find(baseline: float, canary: float, weight: float, risk: float) -> float:
    """Canary units to tell two rates apart, both unknown, at this share of the traffic."""
    low, high = sorted((baseline, canary))
    pooled = np.linspace(low, high, _GRID)[1:-1]
    information = min(
        weight * divergence(canary, float(q)) + (1.0 - weight) * divergence(baseline, float(q))
        for q in pooled
    )
    return weight * math.log(1.0 / risk) / information


def units_to_exclude(rate: float, margin: float, weight: float, risk: float) -> float:
    """Canary units to show, of a canary that is as good, that it is not worse by the margin."""
    lowest, highest = max(rate - margin, 1e-9), min(rate, 1.0 - margin - 1e-9)
    information = min(
        weight * divergence(rate, float(q) + margin) + (1.0 - weight) * divergence(rate, float(q))
        for q in np.linspace(lowest, highest, _GRID)
    )
    return weight * math.log(1.0 / risk) / information
