"""Kayenta's comparison of two series: a port of its rule, checked against its published numbers.

The asymptotic two-sample confidence interval of R's `wilcox.test` (continuity and ties corrected),
with a root finder of the absolute tolerance 1e-4: Kayenta's verdicts depend on it, so it is here.

References: spinnaker/kayenta, kayenta-mannwhitney and MannWhitneyClassifier; Brent, "Algorithms for
Minimization without Derivatives" (1973), chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 0.25
CONFIDENCE = 0.98
ROOT_TOLERANCE = 1e-4


def interval(baseline: Floats, canary: Floats) -> tuple[float, float, float]:
    """Lower end, upper end and estimate of the shift from baseline to canary."""
    lowest = float(np.min(canary) - np.max(baseline))
    highest = float(np.max(canary) - np.min(baseline))
    quantile = NormalDist().inv_cdf((1.0 - CONFIDENCE) / 2)

    def distance(shift: float, wanted: float) -> float:
        return _standardised(canary - shift, baseline) - wanted

    def root(wanted: float, *, is_clipped: bool) -> float:
        low, high = distance(lowest, wanted), distance(highest, wanted)
        if is_clipped and low <= 0:
            return lowest
        if is_clipped and high >= 0:
            return highest
        return brent(lambda shift: distance(shift, wanted), lowest, highest, low, high)

    return (
        root(-quantile, is_clipped=True),
        root(quantile, is_clipped=True),
        root(0.0, is_clipped=False),
    )


def _standardised(x: Floats, y: Floats) -> float:
    """The rank sum of x, standardised, with both corrections."""
    n, m = len(x), len(y)
    values = np.concatenate((x, y))
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[where]
    excess = float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2
    ties = float(np.sum(counts.astype(np.float64) ** 3 - counts))
    spread = np.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    if spread == 0:
        raise ValueError("all observations are tied")
    return float((excess - 0.5 * np.sign(excess)) / spread)


def brent(f: Callable[[float], float], a: float, b: float, fa: float, fb: float) -> float:
    """A root between a and b, by bisection, the secant and inverse quadratic interpolation."""
    if fa == 0.0:
        return a
    if fb == 0.0:
        return b
    c, fc = a, fa
    for _ in range(1001):
        previous = b - a
        if abs(fc) < abs(fb):
            a, b, c, fa, fb, fc = b, c, b, fb, fc, fb
        tolerance = 2 * np.finfo(np.float64).eps * abs(b) + ROOT_TOLERANCE / 2
        step = (c - b) / 2
        if abs(step) <= tolerance or fb == 0.0:
            return b
        if abs(previous) >= tolerance and abs(fa) > abs(fb):
            step = _interpolated(step, previous, tolerance, (a, b, c), (fa, fb, fc))
        if abs(step) < tolerance:
            step = tolerance if step > 0 else -tolerance
        a, fa = b, fb
        b += step
        fb = f(b)
        if (fb > 0) == (fc > 0) and fb != 0:
            c, fc = a, fa
    return b


def _interpolated(
    step: float,
    previous: float,
    tolerance: float,
    at: tuple[float, float, float],
    values: tuple[float, float, float],
) -> float:
    """The step of an interpolation, where it is a good one; else the one that was given."""
    (a, b, c), (fa, fb, fc) = at, values
    width = c - b
    if a == c:
        ratio = fb / fa
        p, q = width * ratio, 1.0 - ratio
    else:
        q, t1, t2 = fa / fc, fb / fc, fb / fa
        p = t2 * (width * q * (q - t1) - (b - a) * (t1 - 1.0))
        q = (q - 1.0) * (t1 - 1.0) * (t2 - 1.0)
    q, p = (-q, p) if p > 0 else (q, -p)
    is_good = p < 0.75 * width * q - abs(tolerance * q) / 2 and p < abs(previous * q / 2)
    return p / q if is_good else step


def is_high(baseline: Floats, canary: Floats) -> bool:
    """Kayenta's "High": the interval is above a quarter of the estimate."""
    x, y = canary[~np.isnan(canary)], baseline[~np.isnan(baseline)]
    if len(x) < 2 or len(y) < 2 or np.array_equal(np.sort(x), np.sort(y)):
        return False
    try:
        low, _, estimate = interval(y, x)
    except ValueError:
        return False
    return low > TOLERANCE * abs(estimate)
