"""The judges that ours is compared with are what they are said to be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from judges.mannwhitney import interval, is_high
from judges.others import AsymptoticSequence, Threshold
from judges.world import World, always, failures, stream


def test_kayentas_published_numbers_are_reproduced() -> None:
    # spinnaker/spinnaker#6278: seven of ten values are 100, and it passes.
    baseline, canary = np.ones(10), np.array([100.0] * 7 + [1.0] * 3)

    low, high, estimate = interval(baseline, canary)

    assert low == pytest.approx(6.825022991538781e-05, rel=1e-13)
    assert high == 99.0
    assert estimate == pytest.approx(98.99992904170193, rel=1e-14)
    assert not is_high(baseline, canary)
    # With eight it fails, as the thread says.
    assert is_high(baseline, np.array([100.0] * 8 + [1.0] * 2))


def test_kayenta_passes_half_an_hour_of_errors_in_six_minutes() -> None:
    # spinnaker/kayenta#426: six points cannot reach its confidence.
    assert not is_high(np.zeros(6), np.array([0, 30, 30, 30, 0, 0.0]))
    assert not is_high(np.zeros(6), np.zeros(6))


def world(rate: float) -> World:
    return World(
        name="w", kind="failures", values=failures(0.01, rate), weights=always(0.5), blocks=60
    )


def test_a_threshold_counts_windows_and_never_forgets() -> None:
    judge = Threshold(
        "t", 3, minutes=1, limit=lambda base: np.full_like(base, 0.2), failure_limit=1
    )
    source, alive = stream(world(0.9), 3, seed=1), np.ones(3, dtype=bool)

    hits = [judge.step(source.draw(number), alive) for number in range(12)]

    # The first bad minute is allowed, the second is not.
    assert [bool(hit.any()) for hit in hits] == [False] * 11 + [True]


def test_an_asymptotic_sequence_sees_what_is_plain() -> None:
    judge = AsymptoticSequence(4, 0.01)
    source, alive = stream(world(0.5), 4, seed=2), np.ones(4, dtype=bool)

    hits = [judge.step(source.draw(number), alive) for number in range(5)]

    assert all(hit.all() for hit in hits[1:])
