"""Paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from ratchet.stats.bootstrap import compare_paired, wilson_interval


def test_equal_scores_differ_by_nothing() -> None:
    scores = np.array([1.0, 0.0, 1.0, 1.0])

    comparison = compare_paired(scores, scores, level=0.95, seed=1)

    assert (comparison.difference, comparison.low, comparison.high) == (0.0, 0.0, 0.0)
    assert (comparison.won, comparison.lost) == (0, 0)


def test_the_interval_holds_the_difference_and_the_seed_fixes_it() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(200) < 0.6).astype(np.float64)
    after = (rng.random(200) < 0.8).astype(np.float64)

    one = compare_paired(before, after, level=0.95, seed=3)
    two = compare_paired(before, after, level=0.95, seed=3)

    assert one == two
    assert one.low < one.difference < one.high
    assert one.won - one.lost == round(one.difference * 200)


def test_scores_of_other_items_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="shapes"):
        compare_paired(np.zeros(3), np.zeros(4), level=0.95, seed=0)


def test_the_interval_of_a_proportion_matches_the_published_example() -> None:
    # Wilson's interval for 10 of 20, as in Agresti and Coull (1998): 0.299 to 0.701.
    low, high = wilson_interval(10, 20)

    assert (round(low, 3), round(high, 3)) == (0.299, 0.701)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
